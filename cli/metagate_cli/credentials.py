"""`metagate keys` and `metagate token`: credentials are shown once and kept by nobody; what is declared is a digest."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import typer

from metagate_cli.terminal import FAILURE, Stop, print_note

_UNITS = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(text: str) -> int:
    """`90d`, `12h`, `30m`, `2w`."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", text)
    if match is None:
        raise typer.BadParameter("a whole number and m, h, d or w, like 90d")
    return int(match[1]) * _UNITS[match[2]]


def _principal_types() -> list[str]:
    from metagate_crds.models.principal import PrincipalType

    return list(get_args(PrincipalType))


def create_key(
    principal: Annotated[str, typer.Argument(help="Name of the Principal that gets the key.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    expires: Annotated[str | None, typer.Option(help="Lifetime, like 90d; unset: until removed.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="Write the key there (0600) instead of printing it.")] = None,
    type_: Annotated[
        str | None,
        typer.Option(
            "--type",
            help="Print a whole Principal of this type, to apply as it is: admin, observer, component, …",
            autocompletion=_principal_types,
        ),
    ] = None,
) -> None:
    """Make an API key and print what to declare: YAML that holds only a digest of it.

    The key is shown this once: as the first line, or with --type on standard error, so that the YAML can be piped on.
    """
    from legivellum.identity.api_keys import mint

    if type_ is not None and type_ not in _principal_types():
        raise typer.BadParameter(f"one of {', '.join(_principal_types())}", param_hint="--type")
    expires_at = datetime.now(UTC) + timedelta(seconds=seconds(expires)) if expires else None
    key = mint()
    if key_file is not None:
        write_secret(key_file, key.key)
    elif type_ is None:
        print(key.key)
    else:
        print_note(f"The key, shown this once: {key.key}")
    expiry_text = f', expiresAt: "{expires_at:%Y-%m-%dT%H:%M:%SZ}"' if expires_at else ""
    if type_ is None:
        print(f"# In Principal {namespace}/{principal}; the key itself is kept by nobody.")
    else:
        print("apiVersion: metagate.legivellum.io/v1alpha1\nkind: Principal")
        print(f"metadata:\n  name: {json.dumps(principal)}\n  namespace: {json.dumps(namespace)}")
    print("spec:")
    if type_ is not None:
        print(f"  type: {type_}")
    print("  apiKeys:")
    print(f'  - {{id: {key.id}, sha256: "{key.sha256}"{expiry_text}}}')


def write_secret(file: Path, text: str) -> None:
    """A new file that only its owner reads.

    Raises:
        Stop: it is there already.

    """
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Stop(f"{file} is there already: remove it first, or choose another") from None
    with os.fdopen(handle, "w", encoding="utf-8") as opened:
        opened.write(text + "\n")


def verify_key(
    file: Annotated[Path | None, typer.Argument(help="File that holds the key; standard input when left out.")] = None,
) -> None:
    """Check the form and checksum of an API key, and print its id and digest. Nothing is looked up."""
    from legivellum.identity.api_keys import digest_of, id_of, well_formed

    raw = (file.read_bytes() if file is not None else sys.stdin.buffer.read(4096)).strip()
    if not well_formed(raw):
        raise Stop("not an API key: it is cut off, mistyped, or something else", code=FAILURE)
    print(f'{{id: {id_of(raw)}, sha256: "{digest_of(raw)}"}}')


def create_token(
    subject: Annotated[str, typer.Argument(help="What the Principal names as subject.")],
    expires: Annotated[str, typer.Option(help="Lifetime, like 1h.")] = "1h",
) -> None:
    """Make an HS256 token signed with JWT_SECRET. Declare it as `{issuer: metagate, subject: …}`."""
    from legivellum.identity.shared_secret import SharedSecret
    from metagate_api.settings import Settings

    settings = Settings()
    if settings.jwt_secret is None:
        raise Stop("HS256 is off: set JWT_SECRET, here and for the API")
    secret = SharedSecret(
        issuer=settings.jwt_issuer,
        secret=settings.jwt_secret.get_secret_value().encode(),
        algorithm=settings.jwt_algorithm,
        audience=settings.jwt_audience,
    )
    try:
        print(secret.mint(subject, now=time.time(), lifetime=seconds(expires)))
    except ValueError as error:
        raise Stop(str(error)) from None
