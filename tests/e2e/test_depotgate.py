"""The chart of DepotGate beside MetaGate's: on a volume of one pod, then on a bucket with two, and a rollout loses nothing."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from tests.e2e.kubernetes import NODE, ROOT, RUN, NodeCluster, eventually, inside_node, volume
from tests.e2e.ledger import LedgerReader, install_ledger, mirror, reading_ledger
from tests.e2e.release import AGENTS, NAME, NAMESPACE, InstalledRelease, pod
from tests.e2e.test_asyncgate import principal
from tests.object_store import ObjectStore

GATE = ROOT / "charts" / "depotgate"
URL = f"http://depotgate.{NAMESPACE}:8003"
NODE_ADDRESS = "10.244.0.1"
ARTIFACTS = ("legivellum", "artifacts")
TOKEN = ("--token-file", "/var/run/secrets/metagate/token", "--url", URL, "--patience", "60")


@dataclass(frozen=True)
class NodeDepot:
    """DepotGate, asked by a pod of the service account `author`, a principal."""

    ledger: LedgerReader
    tenant: str

    @property
    def cluster(self) -> NodeCluster:
        return self.ledger.release.cluster

    def run(self, script: str) -> str:
        return self.cluster.kubectl("-n", AGENTS, "exec", "author", "--", "sh", "-c", script)

    def put(self, text: str) -> str:
        """Deposit a text; its pointer."""
        arguments = " ".join([*ARTIFACTS, "put", "-", "--role", "input", *TOKEN])
        return self.run(f"printf %s '{text}' | {arguments}").strip()

    def recorded(self) -> set[str]:
        """The pointers of all receipts of stored artifacts; the ledger has those of the chapters before, too."""
        path = f"/v1/receipts?tenant={self.tenant}&limit=500"
        page = self.ledger.ask(path)[0]
        items = page["items"]
        while page["items"] and page["next_cursor"] is not None:
            page = self.ledger.ask(f"{path}&cursor={page['next_cursor']}")[0]
            items += page["items"]
        return {receipt["artifact_pointer"] for receipt in items if receipt["phase"] == "stored"}

    def get(self, pointer: str) -> str:
        return self.run(" ".join([*ARTIFACTS, "get", pointer, "-", *TOKEN]))


def install_gate(cluster: NodeCluster, *values: str) -> None:
    chosen = ("--set", f"database.trialOf={NAME}", "--set", "leases=optional", *values)
    arguments = ("upgrade", "--install", "depotgate", str(GATE), "-n", NAMESPACE, *chosen)
    cluster.helm(*arguments, "--wait", "--timeout", "2m")


def uninstall_gate(cluster: NodeCluster) -> None:
    """With the claim that the chart keeps, so that nobody finds another's volume."""
    cluster.helm("uninstall", "depotgate", "-n", NAMESPACE)
    cluster.kubectl("-n", NAMESPACE, "delete", "pvc/depotgate", "--ignore-not-found")
    cluster.kubectl("delete", "pv/artifacts", "--ignore-not-found")


@pytest.fixture(scope="module")
def depot(release: InstalledRelease) -> Iterator[NodeDepot]:
    """Three commands at once; a pod with a projected token for the audience of this gate."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pods" / "world.yaml"))
    volume(cluster, "artifacts")
    with ThreadPoolExecutor(3) as together:
        installs = [
            together.submit(mirror, cluster, "--set", "tokenIssuer.audiences={metagate,depotgate}"),
            together.submit(install_ledger, cluster),
            together.submit(install_gate, cluster, "--set", "store.volume.size=1Gi"),
        ]
        for install in installs:
            install.result()
    cluster.apply(*principal("author", "principal"))
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "principal/author", "--timeout=30s")
    cluster.apply(pod("author", AGENTS, "author", ["sleep", "infinity"], audience="depotgate"))
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "pod/author", "--timeout=60s")
    tenant = cluster.get("namespace", AGENTS)["metadata"]["uid"]
    with reading_ledger(release) as reader:
        yield NodeDepot(reader, tenant)
    cluster.kubectl("-n", AGENTS, "delete", "pod", "author", "--now")
    cluster.kubectl("-n", AGENTS, "delete", "principal/author")
    uninstall_gate(cluster)
    cluster.helm("uninstall", "memorygate", "-n", NAMESPACE)


def running_pods(cluster: NodeCluster) -> list[str]:
    """Also those that are ending."""
    selection = ("-l", "app.kubernetes.io/name=depotgate", "--field-selector", "status.phase=Running")
    return cluster.kubectl("-n", NAMESPACE, "get", "pods", *selection, "-o", "name").split()


@pytest.mark.invariant("INV-093", "INV-123")
def test_a_pod_deposits_on_a_volume_and_a_rollout_keeps_it(depot: NodeDepot):
    """The pod is replaced, not joined, because it alone has the volume; whoever deposits meanwhile waits."""
    pointer = eventually(lambda: depot.put("an input of a task"), within=30)
    assert pointer.endswith(hashlib.sha256(b"an input of a task").hexdigest())
    depot.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/depotgate")
    second = depot.put("deposited while it restarts")
    depot.cluster.rolled_out(NAMESPACE, "deployment/depotgate")
    assert [depot.get(each) for each in (pointer, second)] == ["an input of a task", "deposited while it restarts"]
    assert eventually(lambda: {pointer, second} <= depot.recorded(), within=30)


def test_two_pods_share_a_bucket_and_a_rollout_loses_no_deposit(depot: NodeDepot):
    """Every pod is replaced while deposits go on; each pointer that was answered resolves, at either pod."""
    cluster = depot.cluster
    store = ObjectStore.start(RUN / "objects", environment=NODE, address=NODE_ADDRESS, prefix=tuple(inside_node()))
    try:
        bucket = store.make_bucket()
        keys = ("access-key-id", store.access_key), ("secret-access-key", store.secret_key)
        cluster.kubectl("-n", NAMESPACE, "create", "secret", "generic", "depot-keys",
                        *(f"--from-literal={name}={value}" for name, value in keys))  # fmt: skip
        install_gate(
            cluster,
            *("--set", f"store.url=s3://{bucket}", "--set", f"store.endpoint={store.url}", "--set", "replicas=2"),
            *("--set", "store.existingSecret=depot-keys"),
        )
        cluster.rolled_out(NAMESPACE, "deployment/depotgate")
        # The pod before stored on a volume: what it took while it was ending would not be in the bucket.
        eventually(lambda: len(running_pods(cluster)) == 2, within=60)
        cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/depotgate")
        pointers = {f"text {number}": depot.put(f"text {number}") for number in range(20)}
        cluster.rolled_out(NAMESPACE, "deployment/depotgate")
        for text, pointer in pointers.items():
            assert depot.get(pointer) == text
    finally:
        store.end()
        cluster.kubectl("-n", NAMESPACE, "delete", "secret", "depot-keys", "--ignore-not-found")
