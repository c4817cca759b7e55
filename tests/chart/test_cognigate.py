"""The chart of CogniGate: it boots as its tenant's worker, and reaches what a worker may and its models, and nothing else."""

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from tests.chart.rendering import ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import HOME, everything
from tests.chart.test_memorygate import rendered as rendered_from
from tests.chart.test_network_policies import DNS, INTERNET, METADATA, PolicyPeer, allowed

from cognigate.settings import Settings
from legivellum_worker import settings as worker_settings
from metagate_client import settings as client_settings

FOLDER = ROOT / "charts" / "cognigate"
ELSEWHERE = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gates"}}}
MODEL = {"podSelector": {"matchLabels": {"app": "model"}}}
EVERYTHING = {
    "commonLabels": {"team": "platform"},
    "image": {"digest": "sha256:" + "a" * 64},
    "replicas": 3,
    "maxUnavailable": 0,
    "parallel": 2,
    "capabilities": ["document.summarise"],
    "askSeconds": 30,
    "metagate": {"url": "https://metagate.example.com", "componentKey": "thinker", "caSecret": "gates-ca"},
    "credential": {"existingSecret": "worker-key", "key": "api-key"},
    "gates": {"asyncgate": "http://async.gates:9002", "depotgate": "https://depot.example.com"},
    "modelKeys": {"MODEL_KEY": {"secret": "model", "key": "key"}},
    "networkPolicy": {"metagate": [ELSEWHERE], "gates": [ELSEWHERE], "models": [MODEL], "modelPorts": [11434]},
    "monitoring": {"podMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}},
    "serviceAccountAnnotations": {"example.com/role": "c"},
    "extraEnv": [{"name": "COGNIGATE_LOG_FORMAT", "value": "console"}],
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "everything": EVERYTHING,
    "nothing optional": {"networkPolicy": {"enabled": False}, "maxUnavailable": 0},
}
GATES = {"memorygate": 8001, "asyncgate": 8002, "depotgate": 8003, "delegate": 8004, "interrogate": 8005}


def rendered(chart: Chart, values: Mapping[str, Any]) -> list[Object]:
    return rendered_from(chart, values, "cognigate", FOLDER)


def pod(chart: Chart, values: Mapping[str, Any]) -> Any:
    """The spec of the only pod there is."""
    [(_, _, spec)] = everything(rendered(chart, values))
    return spec


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"capabilities": []}, "/capabilities"),
        ({"capabilities": [f"c{number}" for number in range(16)]}, "/capabilities"),
        ({"capabilities": ["a,b"]}, "/capabilities"),
        ({"metagate": {"url": "metagate:8000"}}, "/metagate/url"),
        ({"gates": {"delegate": "delegate:8004"}}, "/gates/delegate"),
        ({"modelKeys": {"KEY": {"secret": "model"}}}, "/modelKeys/KEY"),
        ({"builtinModel": True}, "builtinModel"),
    ],
)
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    """The built-in model is for trying out on one machine: no value of the chart turns it on."""
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_it_boots_before_it_serves(chart: Chart):
    """`metagate run` hands its packet over in memory: no disk, no database, no password."""
    objects = rendered(chart, {})
    assert not of_kind(objects, "Job")
    assert not of_kind(objects, "Secret")
    assert not of_kind(objects, "PersistentVolumeClaim")
    spec = pod(chart, {})
    [container] = containers(spec)
    words = [*container["command"], *container["args"]]
    assert (words[:2], words[-3:]) == (["metagate", "run"], ["--", "cognigate", "serve"])
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["packet"]["emptyDir"]["medium"] == "Memory"
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "packet")
    assert words[words.index("--packet-file") + 1].startswith(f"{folder}/")
    assert all(variable.get("valueFrom") is None for variable in container["env"])


def test_a_token_for_each_gate(chart: Chart):
    """One is good for the gate of its audience alone; each is where its variable says."""
    spec = pod(chart, {})
    [container] = containers(spec)
    sources = next(volume for volume in spec["volumes"] if volume["name"] == "tokens")["projected"]["sources"]
    tokens = {source["serviceAccountToken"]["audience"]: source["serviceAccountToken"]["path"] for source in sources}
    assert tokens.keys() == {"metagate", *GATES}
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tokens")
    chosen = environment(container)
    for gate, path in tokens.items():
        variable = "METAGATE_TOKEN_FILE" if gate == "metagate" else f"METAGATE_{gate.upper()}_TOKEN_FILE"
        assert chosen[variable] == f"{folder}/{path}"


def test_an_api_key_instead(chart: Chart):
    spec = pod(chart, EVERYTHING)
    [container] = containers(spec)
    chosen = environment(container)
    assert chosen["METAGATE_API_KEY_FILE"] == "/etc/cognigate/credential/key"
    assert not [name for name in chosen if name.endswith("TOKEN_FILE")]
    volume = next(volume for volume in spec["volumes"] if volume["name"] == "credential")
    assert volume["secret"] == {"secretName": "worker-key", "items": [{"key": "api-key", "path": "key"}]}


def test_what_an_installation_chooses_arrives(chart: Chart):
    [container] = containers(pod(chart, EVERYTHING))
    chosen = environment(container)
    assert chosen["METAGATE_URL"] == "https://metagate.example.com"
    assert chosen["METAGATE_COMPONENT_KEY"] == "thinker"
    assert chosen["METAGATE_CA_FILE"] == "/etc/cognigate/ca/ca.crt"
    assert (chosen["COGNIGATE_CAPABILITIES"], chosen["COGNIGATE_PARALLEL"]) == ("document.summarise", "2")
    assert chosen["METAGATE_ASYNCGATE_URL"] == "http://async.gates:9002"
    assert "METAGATE_MEMORYGATE_URL" not in chosen
    [key] = [variable for variable in container["env"] if variable["name"] == "MODEL_KEY"]
    assert key["valueFrom"] == {"secretKeyRef": {"name": "model", "key": "key"}}


@pytest.mark.parametrize("name", FORMS)
def test_every_variable_is_read_by_somebody(chart: Chart, name: str):
    """A misspelt variable would silently do nothing."""
    read = {Settings.variable(field) for field in Settings.model_fields}
    for module in (worker_settings, client_settings):
        read |= {value for value in vars(module).values() if isinstance(value, str) and value.startswith("METAGATE_")}
    [container] = containers(pod(chart, FORMS[name]))
    assert {item["name"] for item in container["env"]} - {"MODEL_KEY"} <= read


@pytest.mark.invariant("INV-126")
def test_it_reaches_the_gates_of_a_worker_and_public_models(chart: Chart):
    """By default: MetaGate, five gates on their ports, names, and https outside; no address inside the cluster."""
    objects = rendered(chart, {})
    policies = list(of_kind(objects, "NetworkPolicy").values())
    [(_, metadata, _)] = everything(objects)
    ours = PolicyPeer(metadata["labels"], HOME)
    assert allowed(policies, ours, DNS, 53, "UDP")
    everywhere = {"kubernetes.io/metadata.name": "metagate-system"}
    for gate, port in {**GATES, "metagate": 8000}.items():
        peer = PolicyPeer({"app.kubernetes.io/name": gate}, everywhere)
        assert {number for number in (80, 443, 8000, *GATES.values()) if allowed(policies, ours, peer, number)} == {
            port
        }
    assert {number for number in (80, 443, 5432) if allowed(policies, ours, INTERNET, number)} == {443}
    for other in (METADATA, PolicyPeer({"app": "database"}, HOME), PolicyPeer(address="10.1.2.3")):
        assert not any(allowed(policies, ours, other, number) for number in (80, 443, 5432, 8000, *GATES.values()))
    caller = PolicyPeer({"app": "prometheus"}, {"tenant": "yes"})
    assert {number for number in (80, 8006) if allowed(policies, caller, ours, number)} == {8006}


@pytest.mark.invariant("INV-126")
def test_a_model_of_the_cluster_is_the_only_one_then(chart: Chart):
    objects = rendered(chart, EVERYTHING)
    policies = list(of_kind(objects, "NetworkPolicy").values())
    [(_, metadata, _)] = everything(objects)
    ours = PolicyPeer(metadata["labels"], HOME)
    assert allowed(policies, ours, PolicyPeer({"app": "model"}, HOME), 11434)
    assert not allowed(policies, ours, INTERNET, 443)
    there = PolicyPeer({}, {"kubernetes.io/metadata.name": "gates"})
    assert all(allowed(policies, ours, there, port) for port in (9002, 443, *GATES.values()))


def test_the_example_declares_what_the_chart_makes(chart: Chart):
    """The service account of the release is the subject, its component is permitted, its model's key is a variable."""
    declared = {
        document["kind"]: document["spec"]
        for document in yaml.safe_load_all((ROOT / "examples" / "cognigate" / "world.yaml").read_text())
    }
    values = {"modelKeys": {"MODEL_KEY": {"secret": "model", "key": "key"}}}
    spec = pod(chart, values)
    [container] = containers(spec)
    assert declared["Principal"]["subjects"] == [{"serviceAccount": {"name": spec["serviceAccountName"]}}]
    assert environment(container)["METAGATE_COMPONENT_KEY"] in declared["PrincipalBinding"]["components"]
    assert {secret["ref"] for secret in declared["Profile"]["secretRefs"]} <= {
        item["name"] for item in container["env"]
    }
    assert {service["type"] for service in declared["Manifest"]["services"].values()} == {*GATES, "chat-completions"}
