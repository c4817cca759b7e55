"""The tables of docs/security.md and docs/client.md say what the code says."""

import inspect
import re
from pathlib import Path

from legivellum.base import public_jwk
from legivellum.identity import claims, compact_jws, shared_secret
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.caller import FailureReason, status_of
from legivellum.identity.tokens import TokenVerifier
from metagate_client import arguments, errors, settings
from metagate_crds.models.issuer import TokenIssuerSpec
from metagate_operator.issuers import jwks, key_fetcher

DOCS = Path(__file__).parents[3] / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table after a heading, without its head."""
    text = (DOCS / page).read_text().split(f"{heading}\n", 1)[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    lines = table[0].strip().splitlines()[2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_every_reason_of_refusal_is_documented() -> None:
    """The table of reasons holds each reason with its status, and nothing else."""
    documented = {name: int(status) for name, status, _ in rows("security.md", "### Reasons of refusal")}
    assert documented == {str(reason): status_of(reason) for reason in FailureReason}


def test_the_documented_limits_are_those_of_the_code() -> None:
    """Each limit in the table is the value the code uses."""
    throttle = inspect.signature(AuthFailureThrottle.__init__).parameters
    verifier = inspect.signature(TokenVerifier.__init__).parameters
    shared = inspect.signature(shared_secret.SharedSecret.__init__).parameters
    assert [value for _, value, _ in rows("security.md", "### Limits")] == [
        str(compact_jws.LONGEST_TOKEN),
        str(claims.LEEWAY),
        str(TokenIssuerSpec.model_fields["max_token_lifetime"].default),
        str(shared["longest_life"].default),
        f"{public_jwk.SMALLEST_RSA_BITS} to {public_jwk.LARGEST_RSA_BITS}",
        str(verifier["limit"].default),
        f"{throttle['rate'].default:g}",
        f"{throttle['longest'].default:g}",
        str(jwks.LARGEST_SET),
        str(jwks.MOST_KEYS),
        f"{key_fetcher.SECONDS:g}",
        str(jwks.MISSES),
        f"{jwks.MISSED_FOR.total_seconds() / 60:g}",
    ]


def test_the_form_that_is_refused_is_documented() -> None:
    """Every header member that a token must not have is named."""
    text = (DOCS / "security.md").read_text()
    assert all(f"`{name}`" in text for name in compact_jws._FORBIDDEN_HEADERS)


def test_every_variable_and_option_of_the_client_is_documented() -> None:
    """The table of the client's configuration holds each variable, each with an option that exists."""
    documented = {row[0]: row[1] for row in rows("client.md", "## Configuration")}
    variables = {
        value
        for name, value in vars(settings).items()
        if name.isupper() and isinstance(value, str) and value.startswith("METAGATE_")
    } - {settings.PACKET_STATE}
    assert set(documented) == variables
    commands = next(action for action in arguments.parser()._actions if action.dest == "command").choices
    options = {option for command in commands.values() for option in command._option_string_actions}  # type: ignore[union-attr]
    assert set(documented.values()) <= options
    text = (DOCS / "client.md").read_text()
    assert {option for option in options if option.startswith("--") and option not in text} <= {"--help"}


def test_the_documented_exit_codes_are_those_of_the_errors() -> None:
    """Codes 1, 2 and 3 belong to refused, misconfigured and unavailable."""
    assert [int(row[0]) for row in rows("client.md", "## Exit codes")] == [
        0,
        errors.RefusedError.exit_code,
        errors.MisconfiguredError.exit_code,
        errors.UnavailableError.exit_code,
    ]
