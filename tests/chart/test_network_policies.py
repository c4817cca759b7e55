"""Who may talk to whom, decided by the rendered NetworkPolicies themselves: nothing enforces them where the tests run."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.chart.rendering import MATRIX, NAMESPACE, Chart, Object, of_kind, pods


@dataclass(frozen=True)
class PolicyPeer:
    """A pod (labels, the labels of its namespace) or an address outside."""

    labels: dict[str, str] = field(default_factory=dict)
    namespace: dict[str, str] = field(default_factory=dict)
    address: str | None = None


def _selected(selector: Object, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "the evaluator knows matchLabels only"
    return selector.get("matchLabels", {}).items() <= labels.items()


def _is_peer(rule: Object, peer: PolicyPeer, home: dict[str, str]) -> bool:
    if block := rule.get("ipBlock"):
        if peer.address is None:
            return False
        address, network = ipaddress.ip_address(peer.address), ipaddress.ip_network(block["cidr"])
        excluded = [ipaddress.ip_network(cidr) for cidr in block.get("except", ())]
        return address.version == network.version and address in network and not any(address in net for net in excluded)
    if peer.address is not None:
        return False
    if "namespaceSelector" in rule:
        if not _selected(rule["namespaceSelector"], peer.namespace):
            return False
    elif peer.namespace != home:
        return False
    return _selected(rule.get("podSelector", {}), peer.labels)


def _side(
    policies: list[Object], subject: PolicyPeer, other: PolicyPeer, port: int, protocol: str, direction: str, key: str
) -> bool:
    """What the Kubernetes documentation says: policies that select a pod isolate it, then any one rule may allow."""
    mine = [
        policy["spec"]
        for policy in policies
        if subject.address is None
        and subject.namespace.get("kubernetes.io/metadata.name") == policy["metadata"]["namespace"]
        and _selected(policy["spec"]["podSelector"], subject.labels)
        and direction in policy["spec"]["policyTypes"]
    ]
    if not mine:
        return True
    for spec in mine:
        for rule in spec[direction.lower()]:
            ports = rule.get("ports", [])
            if ports and not [p for p in ports if p["port"] == port and p.get("protocol", "TCP") == protocol]:
                continue
            if not rule.get(key) or any(_is_peer(item, other, subject.namespace) for item in rule[key]):
                return True
    return False


def allowed(policies: list[Object], source: PolicyPeer, target: PolicyPeer, port: int, protocol: str = "TCP") -> bool:
    return _side(policies, source, target, port, protocol, "Egress", "to") and _side(
        policies, target, source, port, protocol, "Ingress", "from"
    )


HOME = {"kubernetes.io/metadata.name": NAMESPACE}
SYSTEM = {"kubernetes.io/metadata.name": "kube-system"}
DNS = PolicyPeer({"k8s-app": "kube-dns"}, SYSTEM)
APP = PolicyPeer({"app": "indexer"}, {"kubernetes.io/metadata.name": "team-a"})
NEIGHBOUR = PolicyPeer({"app": "other"}, HOME)
API_SERVER = PolicyPeer(address="198.51.100.1")
INTERNET = PolicyPeer(address="203.0.113.7")
METADATA = PolicyPeer(address="169.254.169.254")
PARTS = ("operator", "api", "admission", "database", "crds")


def _world(objects: list[Object]) -> tuple[list[Object], dict[str, PolicyPeer]]:
    result: dict[str, PolicyPeer] = {}
    for _, metadata, _ in pods(objects):
        result[metadata["labels"]["app.kubernetes.io/component"]] = PolicyPeer(metadata["labels"], HOME)
    return list(of_kind(objects, "NetworkPolicy").values()), result


# (who, to whom, port): allowed with the chart's defaults. Every other pair of the matrix below is denied.
DEFAULT: set[tuple[str, str, int]] = {
    *((part, "dns", 53) for part in ("operator", "api", "admission", "crds")),
    *((part, "api server", port) for part in ("operator", "admission", "crds") for port in (443, 6443)),
    *(
        (part, "internet", port) for part in ("operator", "admission", "crds") for port in (443, 6443)
    ),  # no address given
    *((part, "metadata", port) for part in ("operator", "admission", "crds") for port in (443, 6443)),
    ("operator", "database", 5432),
    ("api", "database", 5432),
    *((name, "api", 8000) for name in ("app", "neighbour", "internet", "api server", "metadata", "dns")),
    *((name, "admission", 9443) for name in ("app", "neighbour", "internet", "api server", "metadata", "dns")),
    *((name, part, 9090) for name in ("app", "neighbour", "dns") for part in ("operator", "api")),
}


def _matrix(policies: list[Object], ours: dict[str, PolicyPeer]) -> set[tuple[str, str, int]]:
    others = {
        "dns": DNS, "app": APP, "neighbour": NEIGHBOUR, "api server": API_SERVER, "internet": INTERNET, "metadata": METADATA,
    }  # fmt: skip
    peers = {**ours, **others}
    ports = (53, 80, 443, 5432, 6443, 8000, 8001, 8443, 9090, 9443)
    return {
        (source, target, port)
        for source in peers
        for target in peers
        for port in ports
        if (source in ours or target in ours) and source != target
        if allowed(policies, peers[source], peers[target], port)
        # what a pod that nobody restricts may send to a pod that nobody restricts is not the chart's business
        if not (source == "test" and target not in ours)
    }


def test_the_whole_matrix_by_default(chart: Chart):
    """Of all pairs and ports exactly the documented ones are allowed."""
    policies, ours = _world(chart.render(MATRIX["defaults"]))
    assert set(ours) == {*PARTS, "test"}
    result = {item for item in _matrix(policies, ours) if "test" not in item}
    assert result == DEFAULT


def test_the_test_pod_is_a_stranger(chart: Chart):
    """`helm test` boots as any pod does: it reaches the API, and the database is out of its reach."""
    policies, ours = _world(chart.render(MATRIX["defaults"]))
    assert allowed(policies, ours["test"], ours["api"], 8000)
    assert not allowed(policies, ours["test"], ours["database"], 5432)


def test_named_addresses_close_the_rest(chart: Chart):
    """With addresses named, the operator reaches API server, ledger and issuers and nothing else outside."""
    policies, ours = _world(chart.render(MATRIX["everything optional"]))
    operator = ours["operator"]
    assert allowed(policies, operator, API_SERVER, 6443)
    assert not allowed(policies, operator, API_SERVER, 443)
    assert allowed(policies, operator, PolicyPeer(address="192.0.2.10"), 443)
    assert allowed(
        policies, operator, PolicyPeer({"app": "memorygate"}, {"kubernetes.io/metadata.name": "ledger"}), 8443
    )
    assert not allowed(policies, operator, INTERNET, 443)
    assert not allowed(policies, operator, METADATA, 80)
    collector = PolicyPeer({"app": "collector"}, {"kubernetes.io/metadata.name": "observability"})
    assert [part for part in PARTS if allowed(policies, ours[part], collector, 4318)] == ["api"]
    assert not allowed(policies, ours["api"], INTERNET, 4318)
    for part in ("admission", "crds"):
        assert allowed(policies, ours[part], API_SERVER, 6443)
        assert not allowed(policies, ours[part], INTERNET, 443)
        assert not allowed(policies, ours[part], ours["database"], 5432)


@pytest.mark.parametrize("name", ["external database", "external database behind a pooler"])
def test_an_external_database_is_all_the_api_reaches(chart: Chart, name: str):
    """The API reaches DNS and the database's ports, and nothing on any other port."""
    policies, ours = _world(chart.render(MATRIX[name]))
    reached = {port for port in range(1, 10_000) if allowed(policies, ours["api"], INTERNET, port)}
    assert reached == ({5432, 6432} if "pooler" in name else {5432})
    assert allowed(policies, ours["api"], DNS, 53, "UDP")


def test_callers_can_be_narrowed(chart: Chart):
    """`apiFrom` and `metricsFrom` close both doors to everybody else."""
    team = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "team-a"}}}
    policies, ours = _world(chart.render({"networkPolicy": {"apiFrom": [team], "metricsFrom": [team]}}))
    assert allowed(policies, APP, ours["api"], 8000)
    assert allowed(policies, APP, ours["operator"], 9090)
    assert not allowed(policies, INTERNET, ours["api"], 8000)
    assert not allowed(policies, NEIGHBOUR, ours["api"], 9090)


def test_switched_off(chart: Chart):
    """Without NetworkPolicies there is none, not a permissive one."""
    objects: list[Any] = chart.render({"networkPolicy": {"enabled": False}})
    assert of_kind(objects, "NetworkPolicy") == {}
