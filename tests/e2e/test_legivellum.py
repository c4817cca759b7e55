"""The chart of the whole: one `helm install`, the demo from a pod, every other edge refused, and the small profile's memory.

It has a MetaGate of its own, so it comes after the chapter that uninstalls the other one.
"""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import uuid4

import pytest
from tests.chart.test_legivellum import readme_edges
from tests.e2e.kubernetes import ENVIRONMENT, ROOT, NodeCluster, enforcing_policies, eventually, volume
from tests.e2e.release import namespace, pod
from tests.e2e.test_install import memory
from tests.e2e.test_readme import forget

CHART = ROOT / "charts" / "legivellum"
NAMESPACE, TENANT, LATER, ELSEWHERE = "legivellum", "team-a", "team-b", "elsewhere"
PORTS = {"api": 8000, "memorygate": 8001, "asyncgate": 8002, "depotgate": 8003, "delegate": 8004, "interrogate": 8005,
         "cognigate": 8006, "database": 5432, "admission": 9443, "tenant": 8080, "stranger": 8080}  # fmt: skip
METRICS = {"api": 9090, "operator": 9090}
OUTSIDERS = {"tenant": TENANT, "stranger": ELSEWHERE}
NODE = "10.244.0.1/32"
"""CoreDNS and the API server are processes of the node, and no pods."""
VALUES = ("model.name=builtin/extract-1", "depotgate.store.volume.size=1Gi", f"networkPolicy.dns[0].ipBlock.cidr={NODE}",
          f"networkPolicy.apiServer[0].ipBlock.cidr={NODE}", "networkPolicy.apiServerPorts={443,6443,17443}",
          *(f"{gate}.replicas=1" for gate in ("memorygate", "interrogate", "asyncgate", "delegate")),
          "metagate.api.replicas=1", "metagate.admission.replicas=1")  # fmt: skip
RUN = uuid4().hex[:8]
"""Part of the names of volumes: a node that is kept has those of the runs before, with other passwords."""
Say = Callable[[str], None]
CONNECT = """
import concurrent.futures, json, socket, sys
def connects(target):
    try:
        socket.create_connection((target[1], target[2]), 5).close()
        return True
    except OSError:
        return False
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(targets)) as pool:
    print(json.dumps(list(pool.map(connects, targets))))
"""


def install(cluster: NodeCluster, profile: str, *tenants: str) -> None:
    chosen = (*VALUES, f"profile={profile}", f"tenants={{{','.join(tenants)}}}")
    values = [word for value in chosen for word in ("--set", value)]
    command = ("upgrade", "--install", "legivellum", str(CHART), "-n", NAMESPACE, *values)
    cluster.helm(*command, "--wait", "--timeout", "5m", within=360)
    cluster.kubectl("wait", "-A", "--for=condition=Available", "deployment", "--all", "--timeout=180s")


@pytest.fixture(scope="module")
def whole(cluster: NodeCluster, say: Say) -> Iterator[NodeCluster]:
    """The small profile, installed over nothing, with its NetworkPolicies enforced from the first pod on."""
    if not ENVIRONMENT.get("METAGATE_E2E_KEEP"):
        forget(cluster)
    cluster.kubectl("delete", "pv/readme", "--ignore-not-found")  # the next chapter's, which must find it empty
    for name in (NAMESPACE, TENANT, LATER, ELSEWHERE):
        namespace(cluster, name)
    for name in ("database", "artifacts"):
        volume(cluster, f"{name}-{RUN}")
    with enforcing_policies(cluster):
        began = time.monotonic()
        install(cluster, "small", TENANT)
        say(f"helm install of all gates, small: {time.monotonic() - began:.0f} s")
        yield cluster
    cluster.helm("uninstall", "legivellum", "-n", NAMESPACE, "--wait", "--timeout", "3m")
    cluster.kubectl("delete", "namespace", NAMESPACE, TENANT, LATER, ELSEWHERE, "--timeout=120s")


def run_demo(cluster: NodeCluster) -> str:
    """What the pod printed, once it ended well."""
    cluster.kubectl("-n", TENANT, "delete", "pod/demo", "--ignore-not-found", "--now")
    cluster.kubectl("-n", TENANT, "apply", "-f", str(ROOT / "examples" / "cluster" / "demo.yaml"))
    cluster.kubectl("-n", TENANT, "wait", "--for=condition=Ready", "principal/reviewer", "--timeout=30s")

    def phase() -> str:
        found: str = cluster.get("-n", TENANT, "pod/demo")["status"]["phase"]
        return found if found in {"Succeeded", "Failed"} else ""

    try:
        eventually(phase, within=150, every=1)
    finally:
        output = cluster.logs(TENANT, "pod/demo")
    assert phase() == "Succeeded", output
    return output


@pytest.mark.invariant("INV-126")
def test_the_demo_passes_from_a_pod(whole: NodeCluster):
    """Projected tokens, no key, NetworkPolicies on: from the MCP call to the artifact, with exactly the receipts it must leave."""
    output = run_demo(whole)
    assert "as they must be" in output


def test_the_small_profile_is_below_a_gibibyte(whole: NodeCluster, say: Say):
    """What the processes of all containers of the one pod hold after the demo, and no container was killed on the way."""
    [item] = whole.get("-n", NAMESPACE, "pods", "-l", "app.kubernetes.io/component=gates")["items"]
    pod_name, gates = item["metadata"]["name"], [container["name"] for container in item["spec"]["containers"]]
    used = {gate: memory(whole, pod_name, "-c", gate, where=NAMESPACE) for gate in gates}
    say(
        "memory of the small profile, MiB: "
        + ", ".join(f"{gate} {size}" for gate, size in used.items())
        + f"; together {sum(used.values())}"
    )
    assert sum(used.values()) < 1024
    assert [status["restartCount"] for status in item["status"]["containerStatuses"]] == [0] * len(used)


def test_small_becomes_standard_and_keeps_everything(whole: NodeCluster):
    """A pod for each gate, and another tenant: the demo passes again, the first delegate's key is kept, the second has its own."""
    before = whole.get("-n", NAMESPACE, "secret/delegate-keys")["data"]
    install(whole, "standard", TENANT, LATER)
    keys = whole.get("-n", NAMESPACE, "secret/delegate-keys")["data"]
    assert keys[TENANT] == before[TENANT] != keys[LATER]
    assert "as they must be" in run_demo(whole)
    whole.kubectl("-n", LATER, "wait", "--for=condition=Ready", "principal/delegate", "--timeout=30s")


@dataclass(frozen=True)
class NodePod:
    namespace: str
    name: str
    address: str


def running_pods(cluster: NodeCluster) -> dict[str, NodePod]:
    """A pod of each kind, by the names of the chart's table; `tenant` and `stranger` listen too."""
    listening = ["python3", "-m", "http.server", str(PORTS["tenant"])]
    cluster.apply(*(pod(party, where, "default", listening) for party, where in OUTSIDERS.items()))
    for party, where in OUTSIDERS.items():
        cluster.kubectl("-n", where, "wait", "--for=condition=Ready", f"pod/{party}", "--timeout=60s")
    result = {}
    for item in (
        item for where in (NAMESPACE, TENANT, ELSEWHERE) for item in cluster.get("-n", where, "pods")["items"]
    ):
        metadata, labels = item["metadata"], item["metadata"].get("labels", {})
        component = labels.get("app.kubernetes.io/component", metadata["name"])
        party = labels["app.kubernetes.io/name"] if component == "gate" else component
        if party in {*PORTS, *METRICS} and item["status"]["phase"] == "Running" and "deletionTimestamp" not in metadata:
            result[party] = NodePod(metadata["namespace"], metadata["name"], item["status"]["podIP"])
    return result


@pytest.mark.invariant("INV-126")
def test_every_other_edge_is_refused(whole: NodeCluster):
    """A pod of each kind tries every address: it connects where the table of the chart's README says so, and nowhere else."""
    pods = running_pods(whole)
    assert set(pods) == {*PORTS, *METRICS}
    targets = [(party, pods[party].address, port) for ports in (PORTS, METRICS) for party, port in ports.items()]

    def connected(source: str) -> set[tuple[str, str, int]]:
        command = (
            "-n",
            pods[source].namespace,
            "exec",
            pods[source].name,
            "--",
            "python3",
            "-c",
            CONNECT,
            json.dumps(targets),
        )
        answers: list[bool] = json.loads(whole.kubectl(*command))
        return {
            (source, party, port)
            for (party, _, port), answer in zip(targets, answers, strict=True)
            if answer and party != source
        }

    # The table's lines without a port: InterroGate may call any port of a tenant.
    permitted = {(source, target, port or PORTS[target]) for source, target, port in readme_edges() if target in PORTS}
    # Nothing restricts the pods outside: they reach each other, and the webhook, whose caller has no known address.
    permitted |= {(source, target, PORTS[target]) for source in OUTSIDERS for target in (*OUTSIDERS, "admission")}
    wanted = {edge for edge in permitted if edge[0] in pods and edge[0] != edge[1]}
    # A pod that has just started is permitted to call once its address is known to the node's rules.
    eventually(lambda: connected("tenant") == {edge for edge in wanted if edge[0] == "tenant"}, within=30)
    with ThreadPoolExecutor(4) as together:
        assert set().union(*together.map(connected, sorted(pods))) == wanted
