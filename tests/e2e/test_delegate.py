"""The chart of DeleGate beside those of the gates that plans need: a pod sends a plan, another approves it, a third does it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.e2e.kubernetes import ROOT, NodeCluster, Object, eventually, volume
from tests.e2e.ledger import LedgerReader, install_ledger, mirror, reading_ledger
from tests.e2e.release import AGENTS, NAME, NAMESPACE, InstalledRelease, declared, pod
from tests.e2e.test_asyncgate import install_gate as install_asyncgate
from tests.e2e.test_asyncgate import principal
from tests.e2e.test_depotgate import install_gate as install_depotgate
from tests.e2e.test_depotgate import uninstall_gate as uninstall_depotgate

from legivellum.identity.api_keys import mint

GATE = ROOT / "charts" / "delegate"
PORTS = {"memorygate": 8001, "asyncgate": 8002, "depotgate": 8003, "delegate": 8004}
PEOPLE = {"sender": "principal", "mara": "principal", "helper": "worker"}
HANDLER = 'cat "$LEGIVELLUM_WORK_DIR"/inputs/* > "$LEGIVELLUM_WORK_DIR/output"'
WORK = ["legivellum", "work", "--capability", "letter.read", "--capability", "letter.answer", "--", "sh", "-c", HANDLER]
DRAFT = (ROOT / "examples" / "plans" / "letters-mended.yaml").read_text()


@dataclass(frozen=True)
class NodePlans:
    """DeleGate, asked by pods of the service accounts `sender` and `mara`."""

    ledger: LedgerReader
    tenant: str

    @property
    def cluster(self) -> NodeCluster:
        return self.ledger.release.cluster

    def legivellum(self, person: str, *arguments: str, feed: str | None = None) -> Object:
        command = ("-n", AGENTS, "exec", "-i", person, "--", "legivellum", *arguments, "-o", "json")
        answer: Object = json.loads(self.cluster.kubectl(*command, feed=feed))
        return answer

    def ended(self, plan: str) -> list[Object]:
        """The receipts of a plan that is over."""
        [receipts] = self.ledger.tasks([plan], self.tenant)
        assert any(receipt["obligation_id"] == plan and receipt["phase"] == "complete" for receipt in receipts)
        return receipts


def speaking_pod(name: str, command: list[str]) -> Object:
    """A pod with a projected token for each gate, where the worker library and `legivellum` look for it."""
    addresses = {f"METAGATE_{gate.upper()}_URL": f"http://{gate}.{NAMESPACE}:{port}" for gate, port in PORTS.items()}
    made = pod(name, AGENTS, name, command, **addresses)
    for gate in PORTS:
        token = {"serviceAccountToken": {"audience": gate, "expirationSeconds": 3600, "path": "token"}}
        made["spec"]["volumes"].append({"name": gate, "projected": {"sources": [token]}})
        mount = {"name": gate, "mountPath": str(Path("/var/run/secrets") / gate), "readOnly": True}
        made["spec"]["containers"][0]["volumeMounts"].append(mount)
    return made


def install_gate(cluster: NodeCluster) -> None:
    """With the key of a delegate of the agents' namespace, in a Secret of the release's."""
    key = mint()
    spec = {"type": "delegate", "apiKeys": [{"id": key.id, "sha256": key.sha256}]}
    cluster.apply(declared("Principal", "delegate", AGENTS, spec))
    secret = ("secret", "generic", "agents-delegate", f"--from-literal=key={key.key}")
    cluster.kubectl("-n", NAMESPACE, "create", *secret)
    values = (f"identity.trialOf={NAME}", "admission=off", f"credentials.{AGENTS}=agents-delegate")
    chosen = [word for value in values for word in ("--set", value)]
    cluster.helm("install", "delegate", str(GATE), "-n", NAMESPACE, *chosen, "--wait", "--timeout", "2m")


@pytest.fixture(scope="module")
def plans(release: InstalledRelease) -> Iterator[NodePlans]:
    """Five commands at once; a sender, an approver and a worker, who hold nothing but projected tokens."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pods" / "world.yaml"))
    volume(cluster, "artifacts")
    audiences = ("--set", f"tokenIssuer.audiences={{metagate,{','.join(PORTS)}}}")
    leased = ("--set", "store.volume.size=1Gi", "--set", "leases=required")
    with ThreadPoolExecutor(5) as together:
        installs = [
            together.submit(mirror, cluster, *audiences),
            together.submit(install_ledger, cluster),
            together.submit(install_asyncgate, cluster),
            together.submit(install_depotgate, cluster, *leased),
            together.submit(install_gate, cluster),
        ]
        for install in installs:
            install.result()
    for name, kind in PEOPLE.items():
        cluster.apply(*principal(name, kind))
    names = [f"principal/{name}" for name in (*PEOPLE, "delegate")]
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", *names, "--timeout=30s")
    cluster.apply(
        *(speaking_pod(name, WORK if kind == "worker" else ["sleep", "infinity"]) for name, kind in PEOPLE.items())
    )
    pods = [f"pod/{name}" for name in PEOPLE]
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", *pods, "--timeout=60s")
    tenant = cluster.get("namespace", AGENTS)["metadata"]["uid"]
    with reading_ledger(release) as reader:
        yield NodePlans(reader, tenant)
    cluster.kubectl("-n", AGENTS, "delete", *pods, "--now")
    cluster.kubectl("-n", AGENTS, "delete", *names)
    cluster.kubectl("-n", NAMESPACE, "delete", "secret", "agents-delegate")
    for gate in ("delegate", "asyncgate", "memorygate"):
        cluster.helm("uninstall", gate, "-n", NAMESPACE)
    uninstall_depotgate(cluster)


@pytest.mark.invariant("INV-079", "INV-126")
def test_a_held_plan_is_approved_and_done_by_pods(plans: NodePlans):
    """Restricted pods, projected tokens, NetworkPolicies: held, approved by its digest, each step leased once, closed by a worker."""
    sent = eventually(lambda: plans.legivellum("sender", "plan", "send", "-", feed=DRAFT), within=60, every=2)
    plan = sent["plan_id"]
    assert sent["phase"] == "held"
    approved = eventually(lambda: plans.legivellum("mara", "done", plan, "--yes"), within=30, every=2)
    assert approved["phase"] == "running"
    receipts = eventually(lambda: plans.ended(plan), within=90, every=2)
    decision = next(receipt for receipt in receipts if receipt["emitter"] == "mara")
    assert decision["metadata"] == {"plan_digest": sent["plan_digest"]}
    end = next(receipt for receipt in receipts if receipt["obligation_id"] == plan and receipt["phase"] == "complete")
    assert (end["status"], end["emitter"]) == ("success", "delegate")
    steps = plans.ledger.tasks([step["task_id"] for step in sent["steps"]], plans.tenant)
    assert [[receipt["phase"] for receipt in step].count("lease_issued") for step in steps[:2]] == [1, 1]
