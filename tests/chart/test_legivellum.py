"""The chart of the whole: one namespace, two profiles, tenants, and NetworkPolicies that are the table of its README."""

import base64
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from tests.chart.rendering import EXTERNAL, ROOT, Chart, Object, RenderingRefused, containers, environment, of_kind
from tests.chart.test_memorygate import everything, helm
from tests.chart.test_network_policies import API_SERVER, DNS, INTERNET, METADATA, PolicyPeer, allowed

from legivellum.identity.api_keys import digest_of, id_of, well_formed
from metagate_crds.kinds import KINDS

FOLDER = ROOT / "charts" / "legivellum"
RELEASE, NAMESPACE = "lv", "legivellum"
HOME = {"kubernetes.io/metadata.name": NAMESPACE}
TENANT = {"kubernetes.io/metadata.name": "team-a"}
GATES = ("metagate", "memorygate", "interrogate", "asyncgate", "depotgate", "delegate", "cognigate")
TENANTS = {"tenants": ["team-a", "team-b"], "model": {"name": "builtin/extract-1"}}
OWN = {
    "database": {"host": "main-rw.databases", "caSecret": "main-ca", "existingSecret": "legivellum-database"},
    "metagate": {
        "database": {"external": {role: EXTERNAL["external"][role] for role in ("owner", "publisher", "api")}}
    },
}
FORMS: Mapping[str, Mapping[str, Any]] = {
    "standard": TENANTS,
    "small": {**TENANTS, "profile": "small"},
    "nobody yet": {},
    "a database of one's own": {**TENANTS, **OWN, "image": {"digest": "sha256:" + "a" * 64}},
    "small with a database of one's own": {**TENANTS, **OWN, "profile": "small"},
    "a MetaGate that is there": {
        **TENANTS,
        "database": OWN["database"],
        "identity": {"host": "metagate-db", "caSecret": "metagate-ca", "existingSecret": "pg-identity"},
        "metagate": {"enabled": False},
        "cognigate": {"metagate": {"url": "http://metagate.metagate-system:8000"}},
    },
    "a model elsewhere": {
        "tenants": ["team-a"],
        "escalateTo": "mara",
        "model": {"name": "small-1", "endpoint": "https://llm.example.com/v1", "existingSecret": "model"},
        "delegateKeys": {"existingSecret": "keys-of-ours"},
        "networkPolicy": {
            "people": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
            "metrics": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
    },
    "the ledger alone": {gate: {"enabled": gate in {"metagate", "memorygate"}} for gate in GATES},
}


_RENDERED: dict[str, list[Object]] = {}


def rendered(chart: Chart, values: Mapping[str, Any]) -> list[Object]:
    """Each set of values once: reading a hundred objects takes longer than rendering them."""
    if (key := repr(values)) not in _RENDERED:
        text = helm(chart, values, "template", RELEASE, str(FOLDER), "-n", NAMESPACE)
        _RENDERED[key] = [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]
    return _RENDERED[key]


def named(objects: list[Object], kind: str, namespace: str) -> dict[str, Object]:
    return of_kind([item for item in objects if item["metadata"].get("namespace") == namespace], kind)


@pytest.mark.parametrize("form", FORMS)
def test_lints_strictly(chart: Chart, form: str):
    assert "0 chart(s) failed" in helm(chart, FORMS[form], "lint", "--strict", str(FOLDER))


@pytest.mark.parametrize("form", FORMS)
def test_every_object_is_there_once_with_a_namespace(chart: Chart, form: str):
    """Two gates that made an object of one name would take it from each other; what is rendered twice is applied twice."""
    objects = rendered(chart, FORMS[form])
    identities = [(item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]) for item in objects]
    assert len(identities) == len(set(identities))
    assert {namespace for _, namespace, _ in identities} <= {None, NAMESPACE, "team-a", "team-b"}


@pytest.mark.parametrize("form", FORMS)
def test_pods_are_restricted(chart: Chart, form: str):
    """No root, nothing that can be written but bounded volumes, bounded memory, and a token for who calls the API server."""
    for owner, metadata, spec in everything(rendered(chart, FORMS[form])):
        component = metadata["labels"]["app.kubernetes.io/component"]
        assert spec["automountServiceAccountToken"] is (component in {"operator", "admission", "crds"}), owner
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec.get("volumes", []):
            assert "sizeLimit" in volume.get("emptyDir", {"sizeLimit": ""}), owner
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("gate", GATES)
def test_each_gate_has_a_condition(chart: Chart, gate: str):
    """`<gate>.enabled=false`: nothing of its chart is rendered, and no NetworkPolicy names its pods."""
    needed = {"memorygate": {"delegate": {"enabled": False}}, "metagate": {"database": OWN["database"]}}
    objects = rendered(chart, {**TENANTS, **needed.get(gate, {}), gate: {"enabled": False}})
    assert not [item for item in objects if item["metadata"]["labels"]["app.kubernetes.io/name"] == gate]
    policies = yaml.safe_dump([item for item in objects if item["kind"] == "NetworkPolicy"])
    assert f"app.kubernetes.io/name: {gate}\n" not in policies


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"metagate": {"enabled": False}}, "no database: with metagate.enabled=false set database.host"),
        ({"memorygate": {"enabled": False}}, "plans need the ledger"),
        ({"tenants": [NAMESPACE]}, "tenants names legivellum"),
        ({"model": {"name": "small-1"}}, "model.endpoint is empty"),
        ({"model": {"name": "builtin/extract-1", "endpoint": "http://llm"}}, "leave model.endpoint empty"),
        ({"profile": "small", "interrogate": {"mcp": {"metagate": {"url": "http://metagate"}}}}, "needs profile=standard"),
        ({"profile": "small", "asyncgate": {"monitoring": {"podMonitor": {"enabled": True}}}}, "no pods of asyncgate"),
        ({"profile": "tiny"}, "/profile"),
        ({"tenants": ["Team_A"]}, "/tenants/0"),
        ({"asyncgate": {"replicas": 0}}, "/replicas"),
        ({"database": {"host": "pg", "existingSecret": "s", "caSecret": "ca"}}, "database.external.owner.existingSecret is empty"),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(chart: Chart, values: dict[str, Any], says: str):
    """What is missing or contradicts itself is named before anything is installed, also in the values of one gate."""
    with pytest.raises(RenderingRefused) as refused:
        rendered(chart, values)
    assert says in str(refused.value)


def test_one_pod_has_a_container_for_each_gate(chart: Chart):
    """`small`: what `standard` has in Deployments stands in one pod, with the same commands, variables and passwords."""
    pods = {
        profile: {
            container["name"]: container
            for value in named(rendered(chart, {**TENANTS, "profile": profile}), "Deployment", NAMESPACE).values()
            for container in value["spec"]["template"]["spec"]["containers"]
        }
        for profile in ("standard", "small")
    }
    assert len(named(rendered(chart, FORMS["small"]), "Deployment", NAMESPACE)) == 1
    assert set(pods["standard"]) == {*pods["small"], "admission"}
    for name, container in pods["small"].items():
        other = pods["standard"][name]
        assert (container["args"], container["image"]) == (other["args"], other["image"])
        environments = environment(container), environment(other)
        assert {key for key in environments[1] if environments[0].get(key) != environments[1][key]} <= {
            "METAGATE_METRICS_PORT"
        }


def test_identities_stay_apart_in_one_pod(chart: Chart):
    """`small`: each container has its own role, password and volumes; the operator alone has a token for the API server."""
    [deployment] = named(rendered(chart, FORMS["small"]), "Deployment", NAMESPACE).values()
    spec = deployment["spec"]["template"]["spec"]
    mounted = [mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]]
    assert len(mounted) == len(set(mounted)), "a volume of two containers"
    assert {volume["name"] for volume in spec["volumes"]} == {
        *mounted,
        *(mount["name"] for container in spec["initContainers"] for mount in container["volumeMounts"]),
    }
    holders = {
        container["name"]
        for container in spec["containers"]
        for mount in container["volumeMounts"]
        if mount["mountPath"].startswith("/var/run/secrets/kubernetes.io")
    }
    assert holders == {"operator"}
    passwords = [environment(container).get("PGPASSWORD") for container in spec["containers"]]
    given = [password for password in passwords if password is not None]  # DeleGate has no database of its own
    assert len(given) == len(set(given)) == 6
    assert spec["serviceAccountName"] == "metagate-operator"


def test_one_pod_is_below_a_gibibyte(chart: Chart):
    """`small`: the limits of all containers together, so that no pod can be above it."""
    [deployment] = named(rendered(chart, FORMS["small"]), "Deployment", NAMESPACE).values()
    limits = [item["resources"]["limits"]["memory"] for item in deployment["spec"]["template"]["spec"]["containers"]]
    assert all(limit.endswith("Mi") for limit in limits)
    assert sum(int(limit.removesuffix("Mi")) for limit in limits) < 1024


@pytest.mark.parametrize("form", ["standard", "small"])
def test_services_lead_to_ports_of_their_pods(chart: Chart, form: str):
    """Each Service selects the pods of one workload, which listen on its port; no two containers of a pod on the same."""
    objects = rendered(chart, FORMS[form])
    workloads = [*named(objects, "Deployment", NAMESPACE).values(), *named(objects, "StatefulSet", NAMESPACE).values()]
    for service in named(objects, "Service", NAMESPACE).values():
        [selected] = [
            item["spec"]["template"]
            for item in workloads
            if service["spec"]["selector"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = [port for container in selected["spec"]["containers"] for port in container["ports"]]
        assert len({port["containerPort"] for port in ports}) == len(ports)
        for port in service["spec"]["ports"]:
            assert port["targetPort"] in {item.get("name") for item in ports} | {
                item["containerPort"] for item in ports
            }


def test_both_profiles_have_the_same_names(chart: Chart):
    """So that one can become the other: addresses, volumes, Secrets and what tenants have stay."""
    kept = ("Service", "PersistentVolumeClaim", "Secret", "StatefulSet", *KINDS)
    names = [
        {(item["kind"], item["metadata"]["name"]) for item in rendered(chart, FORMS[form]) if item["kind"] in kept}
        for form in ("standard", "small")
    ]
    without = {name for name in names[0] if name[1].startswith("metagate-admission")}
    assert names[0] - without == names[1]


def test_a_key_of_each_tenants_delegate_is_made(chart: Chart):
    """The Secret has keys of the form that gates accept, another for each tenant; the Principals declare their digests."""
    objects = rendered(chart, TENANTS)
    secret = named(objects, "Secret", NAMESPACE)["delegate-keys"]
    keys = {tenant: base64.b64decode(key) for tenant, key in secret["data"].items()}
    assert set(keys) == {"team-a", "team-b"}
    assert keys["team-a"] != keys["team-b"]
    for tenant, key in keys.items():
        assert well_formed(key)
        spec = named(objects, "Principal", tenant)["delegate"]["spec"]
        assert spec == {"type": "delegate", "apiKeys": [{"id": id_of(key), "sha256": digest_of(key)}]}
    volumes = named(objects, "Deployment", NAMESPACE)["delegate"]["spec"]["template"]["spec"]["volumes"]
    assert {"secret": {"name": "delegate-keys"}} in next(v for v in volumes if v["name"] == "credentials")["projected"][
        "sources"
    ]


def test_what_a_tenant_gets(chart: Chart):
    """Everything that it needs to work here, and its CogniGate in its own namespace."""
    objects = rendered(chart, TENANTS)
    ours = {
        (item["kind"], item["metadata"]["name"]) for item in objects if item["metadata"].get("namespace") == "team-a"
    }
    assert {kind_name for kind_name in ours if kind_name[0] in KINDS} == {
        ("Principal", "delegate"), ("Principal", "cognigate"), ("Principal", "front-desk"), ("Principal", "operator-on-call"),
        ("PolicyProfile", "legivellum"), ("Problemata", "review"), ("PlanTemplate", "review"),
        ("Profile", "cognigate"), ("Manifest", "legivellum"), ("PrincipalBinding", "cognigate"),
    }  # fmt: skip
    assert {
        ("Deployment", "cognigate"),
        ("ServiceAccount", "cognigate"),
        ("NetworkPolicy", "legivellum-cognigate"),
    } <= ours
    surfaces = named(objects, "PolicyProfile", "team-a")["legivellum"]["spec"]["surfaces"]
    assert [surface["surfaceId"] for surface in surfaces] == ["public", "plans"]


def test_no_worker_without_a_model(chart: Chart):
    objects = named(rendered(chart, {"tenants": ["team-a"]}), "Deployment", "team-a")
    assert objects == {}


@pytest.mark.parametrize("form", ["standard", "a model elsewhere"])
def test_what_tenants_get_is_valid(chart: Chart, form: str, tmp_path):
    """The rules of the language find nothing in it."""
    objects = [item for item in rendered(chart, FORMS[form]) if item["metadata"].get("namespace") != NAMESPACE]
    declared = [item for item in objects if item["kind"] in KINDS]
    (tmp_path / "declared.yaml").write_text(yaml.safe_dump_all(declared))
    done = subprocess.run(
        [sys.executable, "-m", "metagate_cli.main", "validate", tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_template_is_the_demos():
    """`legivellum demo` compares receipts, so both worlds have the same plan."""
    demo = yaml.safe_load((ROOT / "examples" / "demo" / "template.yaml").read_text())["spec"]
    assert yaml.safe_load((FOLDER / "files" / "review.yaml").read_text()) == demo


def readme_edges() -> set[tuple[str, str, int]]:
    """The table of the README: who, to whom, on which port (0: any)."""
    text = (FOLDER / "README.md").read_text().split("## Who may call whom")[1]
    edges = set()
    for source, targets in re.findall(r"^\| ([a-z-]+) \| ([a-z0-9, -]+) \|$", text, re.MULTILINE):
        for target in targets.split(", "):
            name, _, port = target.partition(" ")
            edges.add((source, name, int(port or 0)))
    return edges


def test_the_table_is_what_policies_are_made_of():
    made_of = yaml.safe_load((FOLDER / "files" / "edges.yaml").read_text())
    assert readme_edges() == {(edge["from"], edge["to"], edge.get("port", 0)) for edge in made_of}


def test_the_table_is_that_of_the_architecture():
    """Between gates and tenants: the arrows of docs/architecture.md, where `tenant` is an agent, a person or a worker."""
    text = (ROOT / "docs" / "architecture.md").read_text().split("## The whole")[1].split("\n## ")[0]
    gates = {"memorygate", "asyncgate", "depotgate", "delegate", "interrogate"}
    arrows = set()
    for sources, target in re.findall(r"^\| ([A-Za-z, ]+) \| ([A-Za-z ]+) \|", text, re.MULTILINE):
        for source in sources.lower().split(", "):
            start = {"agent": "tenant", "person": "tenant", "worker": "tenant", "metagate": "operator"}.get(
                source, source
            )
            arrows.add((start, {"metagate": "api", "mcp servers": "tenant"}.get(target.lower(), target.lower())))
    ours = {(source, target) for source, target, _ in readme_edges() if target in gates | {"api", "tenant"}}
    assert ours == arrows - {("from", "to"), ("cognigate", "models")}


STRANGER = PolicyPeer({"app": "other"}, {"kubernetes.io/metadata.name": "elsewhere"})
NEIGHBOUR = PolicyPeer({"app": "other"}, HOME)
AGENT = PolicyPeer({"app": "agent"}, TENANT)
OUTSIDE = {"stranger": STRANGER, "neighbour": NEIGHBOUR, "tenant": AGENT, "dns": DNS, "internet": INTERNET,
           "metadata": METADATA, "api-server": API_SERVER}  # fmt: skip
PORTS = (53, 80, 443, 5432, 6443, 8000, 8001, 8002, 8003, 8004, 8005, 8006, 9090, 9091, 9443)


def parties(objects: list[Object]) -> dict[str, PolicyPeer]:
    """The pods by the names of the table; those of `small` are one, `gates`."""
    result = {}
    for _, metadata, _ in everything(objects):
        labels = metadata["labels"]
        name, component = labels["app.kubernetes.io/name"], labels["app.kubernetes.io/component"]
        party = {"gate": name, "migrate": f"{name}-migrate"}.get(component, component)
        result[party] = PolicyPeer(labels, TENANT if party == "cognigate" else HOME)
    return result


def expected(ours: Mapping[str, PolicyPeer]) -> set[tuple[str, str, int]]:
    """What the table says, spelled out for the pods there are."""

    def pod_of(party: str) -> str:
        return party if party in {*ours, "tenant", "api-server", "admission"} else "gates"

    result = {(party, "dns", 53) for party in ours if party != "database"}
    for source, target, port in readme_edges():
        start, end = pod_of(source), pod_of(target)
        if end == "api-server":
            result |= {
                (start, other, number) for other in ("api-server", "internet", "metadata") for number in (443, 6443)
            }
        elif start == "api-server":
            # It is no pod, so its address is not known: whoever is not restricted reaches the webhook.
            result |= {(other, end, port) for other in OUTSIDE}
        elif start != end:
            result |= {(start, end, number) for number in ([port] if port else PORTS)}
    return {edge for edge in result if edge[0] in {*ours, *OUTSIDE} and edge[1] in {*ours, *OUTSIDE}}


@pytest.mark.invariant("INV-126")
@pytest.mark.parametrize("form", ["standard", "small"])
def test_policies_are_the_table(chart: Chart, form: str):
    """Of all pairs of pods and ports exactly those of the table are allowed, at both ends."""
    objects = rendered(chart, FORMS[form])
    policies, ours = [item for item in objects if item["kind"] == "NetworkPolicy"], parties(objects)
    peers = {**ours, **OUTSIDE}
    result = {
        (source, target, port)
        for source in peers
        for target in peers
        for port in PORTS
        if source != target and (source in ours or target in ours)
        if allowed(policies, peers[source], peers[target], port)
    }
    assert result == expected(ours)


def test_people_metrics_and_models_are_added(chart: Chart):
    """Beside the table: who comes from outside, who reads metrics, which model is asked. Nobody else."""
    objects = rendered(chart, FORMS["a model elsewhere"])
    policies, ours = [item for item in objects if item["kind"] == "NetworkPolicy"], parties(objects)
    ingress, monitoring = (PolicyPeer({}, {"kubernetes.io/metadata.name": name}) for name in ("ingress", "monitoring"))
    for gate, port in {"api": 8000, "memorygate": 8001, "interrogate": 8005}.items():
        assert allowed(policies, ingress, ours[gate], port)
        assert not allowed(policies, STRANGER, ours[gate], port)
    assert allowed(policies, monitoring, ours["api"], 9090)
    assert allowed(policies, monitoring, ours["cognigate"], 8006)
    assert not allowed(policies, ingress, ours["cognigate"], 8006)
    assert allowed(policies, ours["cognigate"], INTERNET, 443)
    assert not allowed(policies, ours["cognigate"], METADATA, 443)
    assert not allowed(policies, ours["delegate"], INTERNET, 443)


def test_policies_are_switched_off_together(chart: Chart):
    values = {**TENANTS, "networkPolicy": {"enabled": False}, "asyncgate": {"networkPolicy": {"enabled": True}}}
    assert of_kind(rendered(chart, values), "NetworkPolicy") == {}


def test_the_pod_of_the_demo_fits(chart: Chart):
    """The addresses in its file are Services of the chart, and its tokens are of audiences that the TokenIssuer admits."""
    _, principal, pod = yaml.safe_load_all((ROOT / "examples" / "cluster" / "demo.yaml").read_text())
    objects = rendered(chart, TENANTS)
    [issuer] = of_kind(objects, "TokenIssuer").values()
    services = named(objects, "Service", NAMESPACE)
    addresses = {
        f"http://{name}.{NAMESPACE}:{port['port']}" for name, item in services.items() for port in item["spec"]["ports"]
    }
    assert set(environment(pod["spec"]["containers"][0]).values()) <= addresses
    tokens = [volume["projected"]["sources"][0] for volume in pod["spec"]["volumes"] if "projected" in volume]
    assert {token["serviceAccountToken"]["audience"] for token in tokens} <= set(issuer["spec"]["audiences"])
    assert principal["spec"]["subjects"] == [{"serviceAccount": {"name": pod["spec"]["serviceAccountName"]}}]
