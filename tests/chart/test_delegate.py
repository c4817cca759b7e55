"""The chart of DeleGate: whose credentials it has, and that it reaches the gates a plan needs and nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.chart.rendering import ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import HOME, everything, passwords
from tests.chart.test_memorygate import rendered as rendered_from
from tests.chart.test_network_policies import DNS, INTERNET, METADATA, PolicyPeer, allowed

from delegate.settings import Settings

FOLDER = ROOT / "charts" / "delegate"
TRIAL = {"identity": {"trialOf": "metagate"}, "credentials": {"team-a": "team-a-delegate"}}
OWN = {
    "identity": {"host": "metagate-db", "port": 6001, "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
    "credentials": {"team-a": "team-a-delegate", "team-b": "team-b-delegate"},
}
ELSEWHERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gates"}}}
EVERYTHING = {
    **OWN,
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "credentialKey": "token",
    "gates": {
        "memorygate": "https://ledger.example.com",
        "depotgate": "http://depot.gates:9003",
        "caSecret": "gates-ca",
    },
    "networkPolicy": {"gates": [ELSEWHERE]},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "beside a trial": TRIAL,
    "a database of one's own": OWN,
    "without InterroGate": {**TRIAL, "admission": "off"},
    "everything": EVERYTHING,
    "nothing optional": {**OWN, "credentials": {}, "networkPolicy": {"enabled": False}, "maxUnavailable": 0},
}
PORTS = {"memorygate": 8001, "asyncgate": 8002, "depotgate": 8003, "interrogate": 8005}


def rendered(chart: Chart, values: Mapping[str, Any]) -> list[Object]:
    return rendered_from(chart, values, "delegate", FOLDER)


def pod(chart: Chart, values: Mapping[str, Any]) -> Any:
    """The spec of the only pod there is."""
    [(_, _, spec)] = everything(rendered(chart, values))
    return spec


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "no database: set identity.host"),
        ({"identity": {"trialOf": "metagate", "host": "db"}}, "two databases"),
        ({"identity": {"host": "db", "caSecret": "ca"}}, "identity.existingSecret is empty"),
        ({"identity": {"host": "db", "existingSecret": "pg"}}, "identity.caSecret is empty"),
        ({**TRIAL, "admission": "perhaps"}, "/admission"),
        ({**TRIAL, "credentials": {"Team A": "key"}}, "'Team A' does not match"),
        ({**TRIAL, "gates": {"memorygate": "memorygate:8001"}}, "/gates/memorygate"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_there_is_no_database_of_its_own(chart: Chart):
    """One password, that of who reads identities; no migration, no Secret that the chart makes."""
    for values, secret in ((TRIAL, ("metagate-database", "metagate_identity")), (OWN, ("pg-identity", "identity"))):
        objects = rendered(chart, values)
        assert not of_kind(objects, "Job")
        assert not of_kind(objects, "Secret")
        [container] = containers(pod(chart, values))
        assert passwords(container) == {"DELEGATE_IDENTITY_DATABASE_PASSWORD": secret}
    chosen = environment(containers(pod(chart, OWN))[0])
    assert chosen["DELEGATE_IDENTITY_DATABASE_URL"].startswith(
        "postgresql://metagate_identity@metagate-db:6001/metagate?"
    )


@pytest.mark.invariant("INV-079")
def test_each_namespace_has_a_file_with_its_own_credential(chart: Chart):
    """In one directory, named like the namespace, out of the Secret that is named for it; a projection follows changes."""
    for values, key in ((OWN, "key"), (EVERYTHING, "token")):
        spec = pod(chart, values)
        [container] = containers(spec)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert volumes["credentials"]["projected"]["sources"] == [
            {"secret": {"name": "team-a-delegate", "items": [{"key": key, "path": "team-a"}]}},
            {"secret": {"name": "team-b-delegate", "items": [{"key": key, "path": "team-b"}]}},
        ]
        assert mounts["credentials"]["mountPath"] == environment(container)["DELEGATE_CREDENTIALS"]
        assert mounts["credentials"]["readOnly"] is True
        assert "subPath" not in mounts["credentials"]


def test_what_an_installation_chooses_arrives(chart: Chart):
    chosen = environment(containers(pod(chart, EVERYTHING))[0])
    assert chosen["DELEGATE_ADMISSION"] == "required"
    assert chosen["DELEGATE_MEMORYGATE_URL"] == "https://ledger.example.com"
    assert chosen["DELEGATE_DEPOTGATE_URL"] == "http://depot.gates:9003"
    assert chosen["DELEGATE_ASYNCGATE_URL"].startswith("http://asyncgate.")
    assert chosen["DELEGATE_GATES_CA_FILE"] == "/etc/delegate/gates-ca/ca.crt"
    assert environment(containers(pod(chart, FORMS["without InterroGate"]))[0])["DELEGATE_ADMISSION"] == "off"


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """A misspelt variable would silently do nothing."""
    read = {Settings.variable(field) for field in Settings.model_fields}
    [container] = containers(pod(chart, FORMS[name]))
    assert {item["name"] for item in container["env"]} <= read


@pytest.mark.invariant("INV-126")
def test_it_reaches_the_gates_that_a_plan_needs(chart: Chart):
    """The edges of a plan: ledger, AsyncGate, DepotGate, InterroGate where it admits; not MetaGate, not the internet."""
    for values, gates in ((TRIAL, set(PORTS)), (FORMS["without InterroGate"], set(PORTS) - {"interrogate"})):
        objects = rendered(chart, values)
        policies = list(of_kind(objects, "NetworkPolicy").values())
        [(_, metadata, _)] = everything(objects)
        ours = PolicyPeer(metadata["labels"], HOME)
        assert allowed(policies, ours, DNS, 53, "UDP")
        for gate, port in PORTS.items():
            peer = PolicyPeer({"app.kubernetes.io/name": gate}, HOME)
            reached = {number for number in (80, *PORTS.values()) if allowed(policies, ours, peer, number)}
            assert reached == ({port} if gate in gates else set()), gate
        for other in (INTERNET, METADATA, PolicyPeer({"app.kubernetes.io/name": "metagate"}, HOME)):
            assert not any(allowed(policies, ours, other, number) for number in (80, 443, 8000, *PORTS.values()))
        caller = PolicyPeer({"app": "agent"}, {"tenant": "yes"})
        assert {number for number in (80, 8004) if allowed(policies, caller, ours, number)} == {8004}


def test_gates_elsewhere_are_reached_by_the_ports_of_their_addresses(chart: Chart):
    objects = rendered(chart, EVERYTHING)
    policies = list(of_kind(objects, "NetworkPolicy").values())
    [(_, metadata, _)] = everything(objects)
    ours = PolicyPeer(metadata["labels"], HOME)
    peer = PolicyPeer({}, {"kubernetes.io/metadata.name": "gates"})
    assert all(allowed(policies, ours, peer, port) for port in (443, 9003, *PORTS.values()))
    assert not allowed(policies, ours, INTERNET, 443)
