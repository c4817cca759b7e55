"""The admission gate's chart beside MetaGate's and the ledger's: what pods ask is decided, receipted and forwarded, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.e2e.kubernetes import (
    ENVIRONMENT,
    NODE,
    ROOT,
    NodeCluster,
    Object,
    enforcing_policies,
    eventually,
    inside_node,
)
from tests.e2e.ledger import LedgerReader, install_ledger, mirror, reading_ledger
from tests.e2e.release import AGENTS, NAME, NAMESPACE, InstalledRelease, declared, pod, script

GATE = ROOT / "charts" / "interrogate"
METADATA = "169.254.169.254"
"""Where a cloud's nodes keep their credentials; here the node serves an empty directory."""
NODE_DNS = "networkPolicy.dns[0].ipBlock.cidr=10.244.0.1/32"
"""The test's CoreDNS is a process of the node and no pod of kube-system."""
RUN = uuid4().hex[:8]
"""Part of every task's name: a node that is kept has the tasks of the runs before, and an admitted one replays."""
Say = Callable[[str], None]


def policy(*allowed: str) -> Object:
    entrance = {"principals": ["courier"], "mayBegin": ["courier"]}
    return declared("PolicyProfile", "deliveries", AGENTS, {
        "limits": {"maxSpawnDepth": 2},
        "budget": {"initial": 4},
        "surfaces": [
            {**entrance, "surfaceId": "counter", "capabilities": {"allow": list(allowed)},
             "targets": [{"name": "desk", "url": "http://desk:8080/parcels"}]},
            {**entrance, "surfaceId": "back-door", "capabilities": {"allow": ["*"]},
             "targets": [{"name": "metadata", "url": f"http://{METADATA}/latest"}]},
            {**entrance, "surfaceId": "window", "capabilities": {"allow": ["*"]}},
        ],
    })  # fmt: skip


def envelope(task: str, capability: str = "parcels.send", surface: str = "counter", **payload: Any) -> Object:
    causality = {
        "root_task_id": f"{task}-{RUN}", "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0, "capability_id": capability,
    }  # fmt: skip
    return {
        "tenant_id": AGENTS, "surface_id": surface, "policy_profile_id": "deliveries", "payload_kind": "task", "payload": payload,
        "causality": causality,
    }  # fmt: skip


def scales() -> list[Object]:
    """An MCP server behind the gateway: its policy, and the one tool that is declared of it."""
    target = {"name": "scales", "kind": "Mcp", "url": "http://scales:8080/mcp"}
    surface = {"surfaceId": "scales", "kind": "McpGateway", "principals": ["courier"], "targets": [target]}
    schema = {"type": "object", "properties": {"parcel": {"type": "string"}}, "required": ["parcel"]}
    definition = {"name": "weigh", "description": "Weighs a parcel.", "inputSchema": schema}
    gateway = {"policyProfileRef": {"name": "weighing"}, "surfaceId": "scales", "principals": ["courier"]}
    rate = {"name": "weighing", "capabilities": ["parcels.weigh"], "requests": 1, "per": "24h"}
    return [
        declared("PolicyProfile", "weighing", AGENTS, {
            "limits": {"maxSpawnDepth": 2, "maxTotalDescendants": 1000},
            "surfaces": [{**surface, "capabilities": {"allow": ["parcels.weigh"]}, "rateLimits": [rate]}],
        }),
        declared("Problemata", "depot", AGENTS, {
            "version": "1", "gateway": gateway, "payloadKind": "parcel", "exposeTools": True,
            "capabilities": [{"id": "parcels.weigh", "tool": {"target": "scales", "definition": definition}}],
        }),
    ]  # fmt: skip


def install_gate(cluster: NodeCluster) -> None:
    values = ("--set", f"database.trialOf={NAME}", "--set", NODE_DNS, "--set", f"targetHosts={{{METADATA}}}")
    cluster.helm("install", "interrogate", str(GATE), "-n", NAMESPACE, *values, "--wait", "--timeout", "2m")


def asking_pod(name: str, command: list[str]) -> Object:
    address = f"http://interrogate.{NAMESPACE}:8005"
    return pod(
        name, AGENTS, "courier", command, scripts="evaluate", audience="interrogate", GATE_URL=address
    )  # fmt: skip


@dataclass(frozen=True)
class NodeGate:
    """The gate, asked by the service account `courier` from a restricted pod of its namespace."""

    ledger: LedgerReader
    tenant: str

    @property
    def cluster(self) -> NodeCluster:
        return self.ledger.release.cluster

    def evaluate(self, body: Object) -> tuple[int, Object]:
        command = ("-n", AGENTS, "exec", "-i", "asker", "--", "python3", "/scripts/evaluate.py")
        line = self.cluster.kubectl(*command, feed=json.dumps({"path": "/v1/evaluate", "body": body}) + "\n")
        answer = json.loads(line)
        return answer["status"], answer["answer"]

    def receipts(self, task: str) -> list[Object]:
        [receipts] = self.ledger.tasks([task], self.tenant)
        return receipts

    def connects(self, host: str, port: int) -> bool:
        """Whether the asking pod can: it has no policy of its own."""
        look = (
            "import socket\n"
            f"try: socket.create_connection(({host!r}, {port}), 3); print('connected')\n"
            "except ConnectionRefusedError: print('refused')"
        )
        output = self.cluster.kubectl("-n", AGENTS, "exec", "asker", "--", "python3", "-c", look)
        return output.strip() == "connected"


@pytest.fixture(scope="module")
def gate(release: InstalledRelease, say: Say) -> Iterator[NodeGate]:
    """Three commands at once; a policy, somebody who asks, and a target."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pods" / "world.yaml"))
    audiences = ("--set", "tokenIssuer.audiences={metagate,interrogate}", "--set", NODE_DNS)
    api_server = ("--set", "networkPolicy.apiServerPorts={443,6443,17443}")
    with ThreadPoolExecutor(3) as together:
        installs = [
            together.submit(mirror, cluster, *audiences, *api_server),
            together.submit(install_ledger, cluster, "--set", NODE_DNS),
            together.submit(install_gate, cluster),
        ]
        for install in installs:
            install.result()
    for name in ("evaluate.py", "desk.py"):
        script(cluster, AGENTS, name)
    desk = pod("desk", AGENTS, "courier", ["python3", "/scripts/desk.py"], scripts="desk")
    desk["metadata"]["labels"] = {"app": "desk"}
    service = {"selector": {"app": "desk"}, "ports": [{"port": 8080}]}
    cluster.apply(
        policy("parcels.*"),
        desk,
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "desk", "namespace": AGENTS}, "spec": service},
        asking_pod("asker", ["sleep", "infinity"]),
    )
    for name in ("desk", "asker"):
        cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    tenant = cluster.get("namespace", AGENTS)["metadata"]["uid"]
    with reading_ledger(release) as reader:
        yield NodeGate(reader, tenant)
    cluster.kubectl("-n", AGENTS, "delete", "pod", "desk", "asker", "--now")
    cluster.kubectl("-n", AGENTS, "delete", "service/desk", "policyprofile/deliveries")
    cluster.helm("uninstall", "interrogate", "-n", NAMESPACE)
    cluster.helm("uninstall", "memorygate", "-n", NAMESPACE)


@pytest.mark.invariant("INV-096", "INV-108", "INV-112", "INV-123")
def test_a_pod_is_admitted_and_refused_and_the_ledger_has_both(gate: NodeGate):
    """With a projected token: one is forwarded to a Service of the pod's namespace, the other is not; each has its receipt."""
    status, admitted = eventually(lambda: _decided(gate.evaluate(envelope("parcel-1", weight=3))), within=30)
    assert (status, admitted["outcome"], admitted["budget_remaining"]) == (200, "ALLOW", 3), admitted
    [forward] = admitted["forwards"]
    assert (forward["target"], forward["state"], forward["answer"]) == ("desk", "delivered", {"taken": 1})
    taken = json.loads(eventually(lambda: gate.cluster.logs(AGENTS, "desk"), within=20))
    assert json.loads(taken["body"]) == {"weight": 3}
    assert taken["headers"]["legivellum-admission"] == admitted["receipt_id"]
    assert "authorization" not in taken["headers"]

    status, denied = gate.evaluate(envelope("parcel-2", "money.send"))
    assert (status, denied["outcome"], denied["reason_code"]) == (403, "DENY", "CAPABILITY_DENIED"), denied
    [accepted] = gate.receipts(admitted["task_id"])
    [rejected] = gate.receipts(denied["receipt_id"])
    for receipt, phase, decision in ((accepted, "accepted", admitted), (rejected, "rejected", denied)):
        assert (receipt["receipt_id"], receipt["kind"], receipt["phase"]) == (
            decision["receipt_id"],
            "admission",
            phase,
        )
        assert (receipt["emitter"], receipt["principal_ai"]) == ("svc:interrogate", "courier")
    _, second = gate.evaluate(envelope("parcel-3"))
    assert second["forwards"][0]["answer"] == {"taken": 2}, "nothing of the refused one arrived"


def _decided(answer: tuple[int, Object]) -> tuple[int, Object]:
    """Before the gate has read of principal, policy and issuer there is nothing to judge."""
    assert answer[0] != 401, answer
    assert answer[1].get("reason_code") != "POLICY_NOT_FOUND", answer
    return answer


@pytest.fixture
def served_scales(gate: NodeGate) -> Iterator[NodeGate]:
    """An MCP server in a pod of the tenant, and an MCP client in the asking pod."""
    cluster = gate.cluster
    for name in ("scales.py", "toolcall.py"):
        script(cluster, AGENTS, name)
    server = pod("scales", AGENTS, "herald", ["python3", "/scripts/scales.py"], scripts="scales")
    server["metadata"]["labels"] = {"app": "scales"}
    spec = {"selector": {"app": "scales"}, "ports": [{"port": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "scales", "namespace": AGENTS}, "spec": spec}
    address = f"http://interrogate.{NAMESPACE}:8005/mcp"
    agent = pod(
        "mcp-client",
        AGENTS,
        "courier",
        ["sleep", "infinity"],
        scripts="toolcall",
        audience="interrogate",
        MCP_URL=address,
    )
    cluster.apply(*scales(), server, service, agent)
    for name in ("scales", "mcp-client"):
        cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    yield gate
    cluster.kubectl("-n", AGENTS, "delete", "pod", "scales", "mcp-client", "--now")
    cluster.kubectl("-n", AGENTS, "delete", "service/scales", "problemata/depot", "policyprofile/weighing")


def weigh(gate: NodeGate, parcel: str) -> Object:
    """What the official client in the pod sees: the tools that are listed, and the result of a call."""
    command = ("python3", "/scripts/toolcall.py", "depot.weigh", json.dumps({"parcel": parcel}))
    return json.loads(gate.cluster.kubectl("-n", AGENTS, "exec", "mcp-client", "--", *command))


@pytest.mark.invariant("INV-114", "INV-123")
def test_an_agent_calls_a_tool_of_an_mcp_server_through_the_gateway(served_scales: NodeGate):
    """With the pod's projected token: the tool is listed and called, its server sees no credential of the agent, both receipts
    are in the ledger; the second call of the day is refused by the policy."""
    gate = served_scales
    first = eventually(lambda: _listed(weigh(gate, "parcel-1")), within=45)
    assert first["result"]["structuredContent"] == {"kg": 3}, first
    [line] = [line for line in gate.cluster.logs(AGENTS, "scales").splitlines() if line.startswith("{")]
    taken = json.loads(line)
    assert taken["arguments"] == {"parcel": "parcel-1"}
    assert "authorization" not in taken["headers"]
    receipts = first["result"]["_meta"]["legivellum.io/receipt"]
    phases = {receipt["receipt_id"]: receipt["phase"] for receipt in gate.receipts(receipts["admission"])}
    assert phases == {receipts["admission"]: "accepted", receipts["outcome"]: "complete"}
    refused = weigh(gate, "parcel-2")["result"]
    assert refused["isError"], refused
    assert (refused["structuredContent"]["outcome"], refused["structuredContent"]["reason_code"]) == (
        "DENY",
        "RATE_LIMITED",
    )


def _listed(seen: Object) -> Object:
    assert "depot.weigh" in seen["tools"], seen
    assert not seen["result"].get("isError"), seen
    return seen


@pytest.mark.invariant("INV-107")
def test_a_policy_that_is_applied_is_in_force(gate: NodeGate):
    """`kubectl apply` of one that allows less: refused from then on, under a higher revision, and the receipts say which."""
    _, before = eventually(lambda: _decided(gate.evaluate(envelope("parcel-4"))), within=30)
    assert before["outcome"] == "ALLOW"
    gate.cluster.apply(policy("letters.*"))
    numbers = iter(range(1_000))

    def refused() -> Object:
        status, answer = gate.evaluate(envelope(f"letter-{next(numbers)}"))
        assert status == 403, answer
        return answer

    after = eventually(refused, within=30, every=0.1)
    assert after["reason_code"] == "CAPABILITY_DENIED"
    assert after["policy"]["revision"] > before["policy"]["revision"]
    assert gate.evaluate(envelope("letter-last", "letters.send"))[0] == 200
    gate.cluster.apply(policy("parcels.*"))
    eventually(lambda: gate.evaluate(envelope(f"parcel-again-{next(numbers)}"))[0] == 200, within=30, every=0.1)


@contextmanager
def metadata_service(directory: Path) -> Iterator[None]:
    """A server of the node at the address where a cloud has its metadata."""
    subprocess.run(inside_node("ip", "address", "add", f"{METADATA}/32", "dev", "cni0"), check=True, env=NODE)
    with subprocess.Popen(
        inside_node(sys.executable, "-m", "http.server", "80", "--bind", METADATA, "--directory", str(directory)),
        env=NODE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            yield
        finally:
            server.terminate()
    subprocess.run(inside_node("ip", "address", "del", f"{METADATA}/32", "dev", "cni0"), check=True, env=NODE)


@pytest.mark.invariant("INV-123")
@pytest.mark.skipif(
    ENVIRONMENT.get("USE_EXISTING_CLUSTER") == "true", reason="NOT RUN: policies are enforced on a node of our own"
)
def test_its_network_policy_permits_what_it_needs_and_nothing_else(gate: NodeGate, tmp_path: Path):
    """Enforced: it decides, forwards to the tenant's Service, and receipts. A node's metadata service, which a target names and
    `targetHosts` permits, is out of reach, and so is the database for pods of others."""
    database = f"metagate-database.{NAMESPACE}"
    with metadata_service(tmp_path):
        eventually(lambda: gate.connects(METADATA, 80), within=10)
        assert gate.connects(database, 5432)
        [reached] = gate.evaluate(envelope("back-1", surface="back-door"))[1]["forwards"]
        assert reached["status"] == 501, reached  # the little server knows no POST: without enforcement it is reached
        with enforcing_policies(gate.cluster):
            eventually(lambda: not gate.connects(database, 5432), within=30)
            assert gate.connects(METADATA, 80), "a pod without a policy reaches it still"
            status, escalated = gate.evaluate(envelope("back-2", surface="back-door"))
            [forward] = escalated["forwards"]
            assert (status, escalated["outcome"]) == (502, "ALLOW"), escalated
            assert (forward["state"], forward["status"], forward["reason"]) == ("failed", None, "UNREACHABLE")
            status, answer = gate.evaluate(envelope("parcel-5"))
            assert (status, answer["forwards"][0]["state"]) == (200, "delivered"), answer
            phases = sorted(receipt["phase"] for receipt in gate.receipts(escalated["task_id"]))
            assert phases == ["accepted", "escalate"]


@pytest.mark.invariant("INV-108")
def test_a_rollout_loses_nothing(gate: NodeGate, say: Say):
    """Every pod of the gate is replaced while requests arrive: whatever was answered is in the ledger, once; nothing was refused."""
    cluster = gate.cluster
    cluster.apply(
        asking_pod(
            "asker-load", ["python3", "/scripts/evaluate.py", "--loop", json.dumps(envelope("", surface="window"))]
        )
    )
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "pod/asker-load", "--timeout=60s")
    before = _pods(cluster)
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/interrogate")
    cluster.rolled_out(NAMESPACE, "deployment/interrogate")
    cluster.kubectl("-n", AGENTS, "exec", "asker-load", "--", "touch", "/tmp/stop")
    cluster.kubectl("-n", AGENTS, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/asker-load", "--timeout=90s")
    counted = json.loads(cluster.logs(AGENTS, "asker-load").splitlines()[-1])
    cluster.kubectl("-n", AGENTS, "delete", "pod", "asker-load", "--now")
    say(
        f"InterroGate's rollout: {len(counted['admitted'])} admitted, {len(counted['refused'])} refused,"
        f" retried after 503 {counted['retried_503']}, after a broken connection {counted['retried_connection']}"
    )
    assert not before & _pods(cluster)
    assert counted["refused"] == []
    assert len(counted["admitted"]) > 50
    stored = gate.ledger.tasks([task for task, _ in counted["admitted"]], gate.tenant)
    for (_, receipt_id), receipts in zip(counted["admitted"], stored, strict=True):
        assert [receipt["receipt_id"] for receipt in receipts] == [receipt_id]


def _pods(cluster: NodeCluster) -> set[str]:
    items = cluster.get(
        "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/name=interrogate,app.kubernetes.io/component=gate"
    )["items"]
    return {item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]}
