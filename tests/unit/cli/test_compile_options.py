"""What compiles by which settings: `metagate dev`, operator and admission, `validate` and `compile`."""

from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.unit.cli.running import metagate

from metagate_api.settings import Settings
from metagate_cli.compile_options import Place, compile_settings
from metagate_operator.settings import OperatorSettings

SECRET = SecretStr("a-secret-of-more-than-thirty-two-bytes")
ISSUER = """
apiVersion: metagate.legivellum.io/v1alpha1
kind: TokenIssuer
metadata: {name: corp}
spec:
  issuer: corp
  audiences: [metagate]
  algorithms: [RS256]
  jwks: {source: URL, url: "https://corp.example.com/keys"}
"""


@pytest.mark.parametrize(
    ("place", "given", "issuer", "namespaces"),
    [
        ("standalone", {}, None, ("*",)),
        ("standalone", {"jwt_issuer": "corp"}, None, ("*",)),
        ("standalone", {"jwt_secret": SECRET}, "metagate", ("*",)),
        ("standalone", {"jwt_secret": SECRET, "jwt_namespaces": "a"}, "metagate", ("a",)),
        ("cluster", {}, None, ()),
        ("cluster", {"jwt_issuer": "corp"}, "corp", ()),
        ("cluster", {"jwt_secret": SECRET}, "metagate", ()),
        ("cluster", {"jwt_issuer": "corp", "jwt_namespaces": "a, b  c"}, "corp", ("a", "b", "c")),
        ("cluster", {"jwt_issuer": "corp", "jwt_namespaces": "*"}, "corp", ("*",)),
        ("files", {}, None, ("*",)),
        ("files", {"jwt_issuer": "corp", "jwt_namespaces": "a,b"}, "corp", ("a", "b")),
    ],
)
def test_one_rule_for_the_shared_secret(
    place: Place, given: dict[str, object], issuer: str | None, namespaces: tuple[str, ...]
) -> None:
    """D-37: on with the secret, or where nobody may hold it with its issuer; unset, nobody may claim in a cluster."""
    for settings in (Settings(**given), OperatorSettings(**given)):
        result = compile_settings("metagate-system", settings, place=place)
        assert (result.jwt_issuer, result.jwt_namespaces) == (issuer, namespaces)


def test_the_operator_reads_the_apis_settings_as_the_api_does() -> None:
    """D-37: the same variables, types, defaults and bounds, or compiler and API would disagree."""
    for name, field in OperatorSettings.model_fields.items():
        api_field = Settings.model_fields[name]
        assert (field.validation_alias, field.annotation, field.default, field.metadata) == (
            api_field.validation_alias, api_field.annotation, api_field.default, api_field.metadata,
        ), name  # fmt: skip


def test_files_may_not_take_the_shared_issuer(tmp_path: Path) -> None:
    """D-37: `metagate validate` refuses a TokenIssuer that names JWT_ISSUER, once it is named."""
    (tmp_path / "issuer.yaml").write_text(ISSUER)
    assert metagate("validate", tmp_path).returncode == 0
    refused = metagate("validate", tmp_path, JWT_ISSUER="corp")
    assert refused.returncode == 1
    assert "spec.issuer" in refused.stdout + refused.stderr
    assert "reserved" in refused.stdout + refused.stderr
