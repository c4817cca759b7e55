"""What the chart tells the processes is what the processes listen to."""

import re
import subprocess
import sys

import pytest
from opentelemetry.sdk.environment_variables import OTEL_EXPORTER_OTLP_ENDPOINT
from tests.chart.rendering import ENVIRONMENT, MATRIX, ROOT, Chart, Object, containers, environment, of_kind, pods

from metagate_api.settings import Settings, names
from metagate_operator.settings import LedgerSettings, WriterSettings

CLIENT = {"METAGATE_URL", "METAGATE_TOKEN_FILE", "METAGATE_COMPONENT_KEY"}
LIBPQ = {"PGUSER", "PGPASSWORD"}
OPENTELEMETRY = {OTEL_EXPORTER_OTLP_ENDPOINT}


def readable_variables() -> set[str]:
    """Every variable that some process of ours reads."""
    result = {name for field in Settings.model_fields.values() for name in names(field)}
    for settings in (LedgerSettings, WriterSettings):
        result |= {f"METAGATE_{name.upper()}" for name in settings.model_fields}
    for file in (ROOT / "cli" / "metagate_cli").glob("*.py"):
        text = file.read_text()
        result |= set(re.findall(r"METAGATE_[A-Z_]+", text))
    return result | CLIENT | LIBPQ | OPENTELEMETRY


@pytest.mark.parametrize("name", MATRIX)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """No container is given a variable that no process knows: a misspelt one would silently do nothing."""
    for owner, _, spec in pods(chart.render(MATRIX[name])):
        for container in containers(spec):
            given = {item["name"] for item in container.get("env", [])}
            assert given <= readable_variables(), f"{owner}/{container['name']}"


def test_every_argument_is_understood(chart: Chart):
    """Each option that the chart passes is in the help of the command that it is passed to."""
    observations: dict[str, set[str]] = {}
    for values in MATRIX.values():
        for value in of_kind(chart.render(values), "Deployment").values():
            for container in containers(value["spec"]["template"]["spec"]):
                command, *options = container["args"]
                observations.setdefault(command, set()).update(option.partition("=")[0] for option in options)
    assert set(observations) == {"operator", "admission", "serve", "migrate"}
    assert {"--secret", "--tls-key"} <= observations["admission"]
    for command, options in observations.items():
        output = subprocess.run(
            [sys.executable, "-m", "metagate_cli.main", command, "--help"],
            check=True, capture_output=True, text=True, env={**ENVIRONMENT, "COLUMNS": "300", "TERM": "dumb"},
        ).stdout  # fmt: skip
        for option in options:
            assert option in output, f"metagate {command} {option}"


def test_the_shared_secret_is_the_apis_alone(chart: Chart):
    """D-37: hs256 gives the API the secret, and tells operator and admission the issuer and who may claim its subjects."""
    answer = {"METAGATE_JWT_ISSUER", "METAGATE_JWT_NAMESPACES"}
    off, on = (
        chart.render({}),
        chart.render({"hs256": {"secretName": "mine", "issuer": "corp", "namespaces": ["a", "b"]}}),
    )
    assert not [name for environment in _environments(off).values() for name in environment if "JWT" in name]
    environments = _environments(on)
    for part in ("operator", "admission"):
        assert {name: value for name, value in environments[part].items() if "JWT" in name} == dict(
            zip(sorted(answer), ("corp", "a,b"), strict=True)
        )
    assert environments["api"]["METAGATE_JWT_SECRET"] == ("mine", "jwt-secret")
    assert environments["api"]["METAGATE_JWT_ISSUER"] == "corp"


def test_the_retention_is_a_value(chart: Chart):
    """RECEIPT_RETENTION_HOURS reaches the process that purges, 72 unless said otherwise (INV-037)."""
    for values, hours in (({}, "72"), ({"operator": {"receiptRetentionHours": 24}}, "24")):
        assert _environments(chart.render(values))["operator"]["METAGATE_RECEIPT_RETENTION_HOURS"] == hours


def test_the_consoles_cookies_are_for_https(chart: Chart):
    """Unless somebody says that people open it over plain http."""
    console = {"enabled": True, "secretName": "console-cookies"}
    for more, output in (({}, "true"), ({"secure": False}, "false")):
        api = _environments(chart.render({"console": {**console, **more}}))["api"]
        assert api["METAGATE_CONSOLE_SECURE"] == output


def test_the_console_links_to_the_ledgers(chart: Chart):
    """Where somebody says where people reach it."""
    console = {"enabled": True, "secretName": "console-cookies"}
    address = "https://ledger.example/console"
    for more, output in (({}, None), ({"ledgerUrl": address}, address)):
        api = _environments(chart.render({"console": {**console, **more}}))["api"]
        assert api.get("METAGATE_CONSOLE_LEDGER_URL") == output


def _environments(objects: list[Object]) -> dict[str, dict[str, object]]:
    """By container, those of the Deployments."""
    return {
        container["name"]: environment(container)
        for value in of_kind(objects, "Deployment").values()
        for container in value["spec"]["template"]["spec"]["containers"]
    }
