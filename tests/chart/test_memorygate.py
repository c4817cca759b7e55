"""The ledger's chart: it lints, refuses to guess its database, and its pods may reach the databases and nothing else."""

import tempfile
from typing import Any

import pytest
import yaml
from tests.chart.rendering import ROOT, Chart, Refused, containers, environment, of_kind, plain, pods

LEDGER = str(ROOT / "charts" / "memorygate")
SECRET = {"database": {"existingSecret": "ledger-db"}}
EVERYTHING = {
    **SECRET,
    "fullnameOverride": "ledger",
    "commonLabels": {"team": "platform"},
    "imagePullSecrets": ["registry"],
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "networkPolicy": {"from": [{"podSelector": {}}], "database": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]},
    "extraEnv": [{"name": "MEMORYGATE_STREAMS", "value": "8"}],
    "podAnnotations": {"example.com/a": "b"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
}


def rendered(chart: Chart, values: dict[str, Any], command: str = "template") -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump(plain(values), file)
        file.flush()
        if command == "lint":
            return chart.run("lint", "--strict", LEDGER, "-f", file.name)
        return chart.run("template", "lg", LEDGER, "-n", "legivellum", "-f", file.name)


@pytest.mark.parametrize("values", [SECRET, EVERYTHING, {**SECRET, "networkPolicy": {"enabled": False}}])
def test_lints_strictly(chart: Chart, values: dict[str, Any]):
    """helm lint --strict finds nothing."""
    assert "0 chart(s) failed" in rendered(chart, values, "lint")


def test_without_a_database_it_says_what_is_missing(chart: Chart):
    """There is no default that could hold somebody's receipts."""
    with pytest.raises(Refused, match=r"database\.existingSecret"):
        rendered(chart, {})


@pytest.mark.parametrize("values", [SECRET, EVERYTHING])
def test_pods_are_restricted_and_credentials_come_from_the_secret(chart: Chart, values: dict[str, Any]):
    """No root, no writable file system, no token, no service links; each container gets its own URL and no other's."""
    objects = [each for each in yaml.safe_load_all(rendered(chart, values)) if each]
    [(_, _, spec)] = list(pods(objects))
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for each in containers(spec):
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    migrate, gate = map(environment, containers(spec))
    assert migrate == {"MEMORYGATE_DATABASE_URL": ("ledger-db", "owner-url")}
    assert gate["MEMORYGATE_DATABASE_URL"] == ("ledger-db", "writer-url")
    assert gate["MEMORYGATE_IDENTITY_DATABASE_URL"] == ("ledger-db", "identity-url")


@pytest.mark.invariant("INV-059", "INV-123")
def test_the_ledger_can_reach_its_databases_and_nothing_else(chart: Chart):
    """Egress is DNS and PostgreSQL's port."""
    objects = [each for each in yaml.safe_load_all(rendered(chart, SECRET)) if each]
    [policy] = of_kind(objects, "NetworkPolicy").values()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert sorted({port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}) == [53, 5432]
    [deployment] = of_kind(objects, "Deployment").values()
    assert policy["spec"]["podSelector"] == deployment["spec"]["selector"]
