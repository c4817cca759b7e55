"""The chart of AsyncGate beside MetaGate's and the ledger's: a pod parks tasks, another works, and a rollout loses none."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from uuid import uuid4

import pytest
from tests.e2e.kubernetes import ROOT, NodeCluster, Object, eventually
from tests.e2e.ledger import LedgerReader, install_ledger, mirror, reading_ledger
from tests.e2e.release import AGENTS, NAME, NAMESPACE, InstalledRelease, account, declared, pod, script
from ulid import ULID

GATE = ROOT / "charts" / "asyncgate"
LEDGER_URL, GATE_URL = f"http://memorygate.{NAMESPACE}:8001", f"http://asyncgate.{NAMESPACE}:8002"
WORK = (
    "legivellum",
    "work",
    "--url",
    GATE_URL,
    "--token-file",
    "/var/run/secrets/metagate/token",
    "--capability",
    "parcels.pack",
    "--",
)
HANDLER = 'cp "$LEGIVELLUM_WORK_DIR/task.json" "$LEGIVELLUM_WORK_DIR/output"'


@cache
def receipt_id(_task: str) -> str:
    """The same for a task that is parked again: the ledger then takes it for the receipt that it has."""
    return str(ULID())


@dataclass(frozen=True)
class NodeTasks:
    """AsyncGate, asked by the service account `sender`, which mints obligations at the ledger."""

    ledger: LedgerReader
    tenant: str

    @property
    def cluster(self) -> NodeCluster:
        return self.ledger.release.cluster

    def park(self, *tasks: str) -> list[Object]:
        """An obligation of each in AsyncGate's custody, then the tasks."""
        self._post("sender-receipts", "/receipts", [
            {"receipt_id": receipt_id(task), "phase": "accepted", "task_id": task, "principal_ai": "sender",
             "recipient_ai": "svc:asyncgate", "task_type": "pack", "task_summary": "Pack a parcel"}
            for task in tasks
        ])  # fmt: skip
        return self._post("sender-tasks", "/tasks", [
            {"task_id": task, "principal_ai": "sender", "capability": "parcels.pack", "payload_pointer": task} for task in tasks
        ])  # fmt: skip

    def _post(self, name: str, path: str, bodies: list[Object]) -> list[Object]:
        lines = "".join(json.dumps({"path": path, "body": body}) + "\n" for body in bodies)
        command = ("-n", AGENTS, "exec", "-i", name, "--", "python3", "/scripts/evaluate.py")
        answers = [json.loads(line) for line in self.cluster.kubectl(*command, feed=lines).splitlines()]
        assert {answer["status"] for answer in answers} <= {200, 201}, answers
        return [answer["answer"] for answer in answers]

    def ended(self, *tasks: str) -> list[list[Object]]:
        """The receipts of tasks that are all over."""
        result = self.ledger.tasks(list(tasks), self.tenant)
        assert all(any(receipt["phase"] == "complete" for receipt in receipts) for receipts in result)
        return result


def principal(name: str, kind: str) -> list[Object]:
    spec = {"type": kind, "subjects": [{"serviceAccount": {"name": name}}]}
    return [account(name, AGENTS), declared("Principal", name, AGENTS, spec)]


def install_gate(cluster: NodeCluster) -> None:
    values = ("--set", f"database.trialOf={NAME}")
    cluster.helm("install", "asyncgate", str(GATE), "-n", NAMESPACE, *values, "--wait", "--timeout", "2m")


@pytest.fixture(scope="module")
def gate(release: InstalledRelease) -> Iterator[NodeTasks]:
    """Three commands at once; a sender and a worker, each with projected tokens for the gates that it asks."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pods" / "world.yaml"))
    audiences = ("--set", "tokenIssuer.audiences={metagate,asyncgate}")
    with ThreadPoolExecutor(3) as together:
        installs = [
            together.submit(mirror, cluster, *audiences),
            together.submit(install_ledger, cluster),
            together.submit(install_gate, cluster),
        ]
        for install in installs:
            install.result()
    script(cluster, AGENTS, "evaluate.py")
    idle = ["sleep", "infinity"]
    pods = [
        pod("sender-receipts", AGENTS, "sender", idle, scripts="evaluate", audience="memorygate", GATE_URL=LEDGER_URL),
        pod("sender-tasks", AGENTS, "sender", idle, scripts="evaluate", audience="asyncgate", GATE_URL=GATE_URL),
        pod("packer", AGENTS, "packer", [*WORK, "sh", "-c", HANDLER], audience="asyncgate"),
    ]
    cluster.apply(*principal("sender", "principal"), *principal("packer", "worker"))
    for name in ("sender", "packer"):
        cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", f"principal/{name}", "--timeout=30s")
    cluster.apply(*pods)
    names = [started["metadata"]["name"] for started in pods]
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=60s")
    tenant = cluster.get("namespace", AGENTS)["metadata"]["uid"]
    with reading_ledger(release) as reader:
        yield NodeTasks(reader, tenant)
    cluster.kubectl("-n", AGENTS, "delete", "pod", *names, "--now")
    cluster.kubectl("-n", AGENTS, "delete", "principal/sender", "principal/packer")
    cluster.helm("uninstall", "asyncgate", "-n", NAMESPACE)
    cluster.helm("uninstall", "memorygate", "-n", NAMESPACE)


@pytest.mark.invariant("INV-123")
def test_a_pod_parks_a_task_and_another_works_on_it(gate: NodeTasks):
    """Restricted pods with projected tokens: the obligation, its acknowledgement, the lease and the worker's claim, one receipt each."""
    task = f"parcel-{uuid4()}"
    eventually(lambda: gate.park(task), within=30)
    [receipts] = eventually(lambda: gate.ended(task), within=30)
    phases = [(receipt["kind"], receipt["phase"], receipt["emitter"]) for receipt in receipts]
    assert phases[0] == ("obligation", "accepted", "sender"), phases
    assert phases[-1] == ("obligation", "complete", "svc:asyncgate"), phases
    assert [phase for _, phase, _ in phases].count("lease_issued") == 1


def test_a_rollout_loses_no_task(gate: NodeTasks):
    """Every pod of the gate is replaced while tasks are parked and worked on: each is ended, once."""
    cluster = gate.cluster
    tasks = [f"parcel-{uuid4()}" for _ in range(40)]
    gate.park(*tasks[:20])
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/asyncgate")
    gate.park(*tasks[20:])
    cluster.rolled_out(NAMESPACE, "deployment/asyncgate")
    for receipts in eventually(lambda: gate.ended(*tasks), within=90, every=2):
        assert [receipt["phase"] for receipt in receipts].count("complete") == 1
