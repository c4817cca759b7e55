"""`helm install` on a fresh node: nothing but the chart's defaults, in a namespace that enforces *restricted*."""

import json
import sys
import tempfile
from collections.abc import Callable

import pytest
import yaml
from tests.chart.rendering import MATRIX, Chart, find_helm
from tests.e2e.kubernetes import NodeCluster
from tests.e2e.release import NAME, NAMESPACE, WORKLOADS, InstalledRelease, namespace

from metagate_crds.kinds import KINDS

FOREIGN = {"Certificate", "Issuer", "PodMonitor", "PrometheusRule", "ServiceMonitor"}  # of operators that are not here
LATER = {"Pod"}  # of `helm test`, which is run for real: its service account must exist


def test_everything_is_ready_and_nothing_restarted(release: InstalledRelease):
    """Two API and two admission pods, an operator and the trial database are Ready, none of them at a second try."""
    ours = f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component!=test"
    items = release.cluster.get("pods", "-n", NAMESPACE, "-l", ours)["items"]
    assert sorted(item["metadata"]["labels"]["app.kubernetes.io/component"] for item in items) == [
        "admission", "admission", "api", "api", "database", "operator",
    ]  # fmt: skip
    for item in items:
        statuses = item["status"]["containerStatuses"] + item["status"].get("initContainerStatuses", [])
        assert [status["restartCount"] for status in statuses] == [0] * len(statuses), item["metadata"]["name"]


def test_the_shipped_issuer_is_served(release: InstalledRelease):
    """The cluster's own TokenIssuer is Ready and its keys are fresh."""
    for condition in ("Ready", "KeysFresh"):
        release.cluster.kubectl("wait", f"--for=condition={condition}", "tokenissuer/cluster", "--timeout=30s")


def test_helm_test_boots_a_pod(release: InstalledRelease):
    """`helm test` declares a component, boots a pod as it through a projected token, and sees READY."""
    output = release.cluster.helm("test", NAME, "-n", NAMESPACE, "--logs", "--timeout", "2m")
    assert "booted as metagate-test" in output
    assert "is READY" in output
    left = release.cluster.kubectl(
        "get", "principals,profiles,manifests,principalbindings", "-n", NAMESPACE, "-o", "name"
    )
    assert "metagate-test" not in left


def test_doctor_finds_nothing_wrong_and_boots(release: InstalledRelease):
    """`metagate doctor --cluster --boot` as docs/cli.md shows it: through a port-forward, as whoever installed it."""
    script = f"""
        kubectl -n {NAMESPACE} port-forward service/{NAME} 18000:8000 >/dev/null & forward=$!
        trap 'kill $forward' EXIT
        until curl -sf -o /dev/null http://127.0.0.1:18000/readyz; do sleep 0.2; done
        {sys.executable} -m metagate_cli.main doctor --cluster --boot --url http://127.0.0.1:18000 -o json
    """
    looked = {item["what"]: item for item in json.loads(release.cluster.run("sh", "-ec", script))}
    states = {what: looked[what]["state"] for what in ("API", "webhook", "rights", "pods", "database", "boot")}
    assert states == dict.fromkeys(states, "ok"), looked
    assert "is READY" in looked["boot"]["says"]


@pytest.mark.parametrize("name", MATRIX)
def test_the_api_server_accepts_what_is_rendered(release: InstalledRelease, name: str):
    """Every object of every combination of values passes the real API server, and no pod template violates *restricted*."""
    helm = find_helm()
    assert helm is not None
    namespace(release.cluster, "team-a")
    namespace(release.cluster, "team-b")
    objects = [item for item in Chart(helm).render(MATRIX[name]) if item["kind"] not in FOREIGN | LATER]
    accepted = 0
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", dir="/tmp") as file:
        yaml.safe_dump_all(objects, file)
        file.flush()
        completed = release.cluster.run(
            "sh", "-c", f"kubectl apply --dry-run=server --force-conflicts --server-side -f {file.name} 2>&1"
        )
    accepted = sum(line.endswith("(server dry run)") for line in completed.splitlines())
    assert accepted == len(objects)
    assert "would violate" not in completed


@pytest.mark.parametrize("workload", WORKLOADS)
def test_root_file_systems_cannot_be_written(release: InstalledRelease, workload: str):
    """Neither may a process write outside its scratch space, nor is it root, nor does it hold a capability."""
    look = (
        "import os, json\n"
        "def writable(path):\n"
        "    try: open(path, 'w').close(); os.unlink(path); return True\n"
        "    except OSError: return False\n"
        "status = dict(line.split(':', 1) for line in open('/proc/1/status'))\n"
        "print(json.dumps({'uid': os.getuid(), 'root': writable('/x'), 'home': writable('/opt/metagate/x'),\n"
        "  'scratch': writable('/tmp/x'), 'capabilities': status['CapEff'].strip(), 'no_new': status['NoNewPrivs'].strip(),\n"
        "  'seccomp': status['Seccomp'].strip(), 'links': [n for n in os.environ if n.endswith('_SERVICE_HOST') and n != 'KUBERNETES_SERVICE_HOST']}))"
    )
    document = json.loads(release.cluster.kubectl("-n", NAMESPACE, "exec", workload, "--", "python3", "-c", look))
    assert document == {
        "uid": 65532, "root": False, "home": False, "scratch": True,
        "capabilities": "0000000000000000", "no_new": "1", "seccomp": "2", "links": [],
    }  # fmt: skip


def memory(cluster: NodeCluster, workload: str, *container: str, where: str = NAMESPACE) -> int:
    """Resident MiB of all processes of a container of the workload, shared pages counted once per process' share."""
    look = (
        "import glob\n"
        "total = 0\n"
        "for path in glob.glob('/proc/[0-9]*/smaps_rollup'):\n"
        "    try: lines = open(path).read().splitlines()\n"
        "    except OSError: continue\n"
        "    total += sum(int(line.split()[1]) for line in lines if line.startswith('Pss:'))\n"
        "print(total // 1024)"
    )
    return int(cluster.kubectl("-n", where, "exec", workload, *container, "--", "python3", "-c", look))


def test_idle_memory(release: InstalledRelease, say: Callable[[str], None]):
    """Each pod stays far below its limit while nothing happens."""
    result = {item.rpartition("-")[2]: memory(release.cluster, item) for item in WORKLOADS}
    say("memory per idle pod, MiB: " + ", ".join(f"{name} {size}" for name, size in result.items()))
    assert result["operator"] < 250
    assert result["api"] < 200
    assert result["admission"] < 200


def test_start_of_the_command(release: InstalledRelease, say: Callable[[str], None]):
    """What each container waits for before its own work begins: the interpreter, and the command line read."""
    look = (
        "import subprocess, time\n"
        "began = time.monotonic()\n"
        "subprocess.run(['metagate', 'version'], check=True, stdout=subprocess.DEVNULL)\n"
        "print(round((time.monotonic() - began) * 1000))"
    )
    api = "deployment/metagate-api"
    first, *others = (
        int(release.cluster.kubectl("-n", NAMESPACE, "exec", api, "--", "python3", "-c", look)) for _ in range(4)
    )
    say(f"`metagate version` in the image: {first} ms, then {min(others)} ms")
    assert min(others) < 5_000


def test_the_crds_have_one_owner(release: InstalledRelease):
    """Helm and the hook apply the CRDs under one name: a later install over what is left behind meets no conflict."""
    items = release.cluster.get("crds", "--show-managed-fields")["items"]
    ours = [item for item in items if item["spec"]["group"] == "metagate.legivellum.io"]
    assert len(ours) == len(KINDS)
    for item in ours:
        owners = {entry["manager"] for entry in item["metadata"]["managedFields"] if "f:spec" in entry["fieldsV1"]}
        assert owners == {"helm"}
