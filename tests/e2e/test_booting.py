"""Pods of other people boot at their start: the examples as they are, and what happens when a start goes wrong."""

import json
import re
import time
from collections.abc import Callable

import lupa
import pytest
import yaml
from tests.e2e.kubernetes import ROOT, NodeCluster, Object, eventually
from tests.e2e.release import AGENTS, InstalledRelease, account, declared, namespace, pod

EXAMPLES = ROOT / "examples" / "pods"
RECIPES = ROOT / "docs" / "howto" / "recipes.md"
KINDS = ("archivist", "courier", "herald")


@pytest.fixture(scope="module")
def examples(release: InstalledRelease, say: Callable[[str], None]) -> NodeCluster:
    """examples/pods, applied as its README says."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(EXAMPLES / "world.yaml"))
    cluster.kubectl(
        "wait",
        "--for=condition=Ready",
        "-n",
        AGENTS,
        "--all",
        "principalbindings.metagate.legivellum.io",
        "--timeout=30s",
    )
    began = time.monotonic()
    cluster.kubectl("apply", "-f", str(EXAMPLES))
    cluster.rolled_out(AGENTS, *(f"deployment/{item}" for item in KINDS))
    say(f"three kinds of pods from apply to rolled out {time.monotonic() - began:.1f} s")
    return cluster


def test_three_kinds_of_pods_report_ready(release: InstalledRelease, examples: NodeCluster):
    """Init container, wrapped entry point and curl: one session each, READY, bound to the pod that opened it."""
    pods = {
        item["metadata"]["labels"]["app"]: item["metadata"]
        for item in examples.get("pods", "-n", AGENTS)["items"]
        if "app" in item["metadata"].get("labels", {})
    }
    for kind in KINDS:
        name = pods[kind]["name"]
        result = eventually(
            lambda name=name: [startup for startup in release.startups(AGENTS, name) if startup["status"] == "READY"],
            within=30,
        )
        assert [item["principal_key"] for item in result] == [kind]
        assert result[0]["pod"]["uid"] == pods[kind]["uid"]
        assert len(release.startups(AGENTS, name)) == 1


def test_the_packet_reaches_the_application(examples: NodeCluster):
    """The init container's packet is read by another container; `metagate run` hands it over as a file and in variables."""
    assert "woke up as archivist in {'region': 'eu-north'}" in examples.logs(AGENTS, "deployment/archivist")
    look = (
        "import json, os, glob\n"
        "stat = os.stat('/packet/packet.json')\n"
        "def argv(path):\n"
        "    try: return open(path + '/cmdline', 'rb').read().split(b'\\0')\n"
        "    except OSError: return []\n"
        "[child] = [p for p in glob.glob('/proc/[0-9]*') if argv(p)[1:3] == [b'-m', b'http.server']]\n"
        "env = dict(e.split('=', 1) for e in open(child + '/environ').read().split(chr(0)) if '=' in e)\n"
        "packet = json.load(open('/packet/packet.json'))\n"
        "print(json.dumps({'mode': oct(stat.st_mode & 0o777), 'memory': env['MEMORY_URL'], 'write': packet['capabilities']['write'],\n"
        "  'same': env['METAGATE_STARTUP_ID'] == packet['startup']['startup_id'], 'left': os.listdir('/packet')}))"
    )
    document = json.loads(examples.kubectl("-n", AGENTS, "exec", "deployment/courier", "--", "python3", "-c", look))
    assert document == {
        "mode": "0o600", "memory": "http://memorygate.ledger:8001", "write": ["receipts", "messages"], "same": True,
        "left": ["packet.json"],
    }  # fmt: skip


def test_a_sidecar_boots_for_its_pod(release: InstalledRelease, examples: NodeCluster):
    """The Pod of docs/howto/recipes.md: the packet is there before the application starts, READY once it listens."""
    [recipe] = re.findall(r'^```yaml title="sidecar.yaml"\n(.*?)^```$', RECIPES.read_text(), re.MULTILINE | re.DOTALL)
    examples.kubectl("apply", "-f", "-", feed=recipe)
    examples.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "pod/courier-sidecar", "--timeout=90s")
    startup = eventually(
        lambda: [item for item in release.startups(AGENTS, "courier-sidecar") if item["status"] == "READY"], within=30
    )
    assert [item["principal_key"] for item in startup] == ["courier"]
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8080/packet.json').read().decode())"
    packet = json.loads(
        examples.kubectl("-n", AGENTS, "exec", "courier-sidecar", "-c", "application", "--", "python3", "-c", ask)
    )
    assert packet["startup"]["startup_id"] == startup[0]["startup_id"]
    examples.kubectl("-n", AGENTS, "delete", "pod", "courier-sidecar", "--now")


def test_sigterm_reaches_the_wrapped_command(examples: NodeCluster):
    """Deleting the wrapped pod ends it at once, not after the grace period: the signal is passed on."""
    [name] = [item["metadata"]["name"] for item in examples.get("pods", "-n", AGENTS, "-l", "app=courier")["items"]]
    began = time.monotonic()
    examples.kubectl("-n", AGENTS, "delete", "pod", name, "--wait=true")
    assert time.monotonic() - began < 15
    examples.rolled_out(AGENTS, "deployment/courier")


def ending(cluster: NodeCluster, name: str) -> Object:
    """The state in which the one container of a pod ended."""

    def ended() -> Object | None:
        [status] = cluster.get("pod", name, "-n", AGENTS)["status"].get("containerStatuses", [{}])
        result: Object | None = status.get("state", {}).get("terminated")
        return result

    return eventually(ended, within=60)


def test_a_crash_before_ready_is_failed(release: InstalledRelease, examples: NodeCluster):
    """A command that ends before it was ready: FAILED is recorded with its exit code, which is the pod's too."""
    command = ["metagate", "run", "--ready-after", "30", "--", "python3", "-c", "import sys; sys.exit(17)"]
    examples.apply(pod("courier-crash", AGENTS, "courier", command))
    assert ending(examples, "courier-crash")["exitCode"] == 17
    [startup] = release.startups(AGENTS, "courier-crash")
    assert startup["status"] == "FAILED"
    assert "17" in json.dumps(startup["report"])


def test_a_hang_is_overdue(release: InstalledRelease, examples: NodeCluster):
    """A command that never gets ready: its session is overdue after the Profile's SLA, and nobody wrote that down."""
    examples.apply(
        declared("Profile", "hasty", AGENTS, {"startup": {"slaSeconds": 2}}),
        account("sleeper", AGENTS),
        declared("Principal", "sleeper", AGENTS, {"subjects": [{"serviceAccount": {"name": "sleeper"}}]}),
        declared("PrincipalBinding", "sleeper", AGENTS, {
            "principalRef": {"name": "sleeper"}, "profileRef": {"name": "hasty"}, "manifestRef": {"name": "production"},
            "components": ["sleeper"],
        }),
    )  # fmt: skip
    examples.kubectl("wait", "--for=condition=Ready", "-n", AGENTS, "principalbinding/sleeper", "--timeout=30s")
    command = ["metagate", "run", "--ready-port", "1", "--", "sleep", "1000"]
    examples.apply(pod("sleeper", AGENTS, "sleeper", command))
    result = eventually(
        lambda: [startup for startup in release.startups(AGENTS, "sleeper") if startup["status"] == "overdue"],
        within=40,
    )
    assert result[0]["overdue"] is True
    examples.kubectl("-n", AGENTS, "delete", "pod", "sleeper", "courier-crash", "--now")


def test_the_same_name_in_another_namespace_is_nobody(release: InstalledRelease, examples: NodeCluster):
    """A service account `courier` of another namespace is not the Principal `courier`: refused, and no session opened."""
    namespace(examples, "strangers")
    before = len(release.startups(AGENTS))
    stranger = pod("courier-stranger", "strangers", "courier", ["metagate", "bootstrap"])
    examples.apply(account("courier", "strangers"), stranger)
    output = eventually(lambda: examples.logs("strangers", "courier-stranger"), within=40)
    assert "refused (403 " in output
    assert len(release.startups(AGENTS)) == before


def test_applying_twice_changes_nothing(examples: NodeCluster):
    """The same manifests again: no new generation, resource version or managed field, whichever way they are applied."""
    kinds = "principals,profiles,manifests,principalbindings"

    def snapshot() -> list[Object]:
        return [item["metadata"] for item in examples.get(kinds, "-n", AGENTS, "--show-managed-fields")["items"]]

    before = snapshot()
    assert before
    output = examples.kubectl("apply", "-f", str(EXAMPLES / "world.yaml"))
    assert all(line.endswith("unchanged") for line in output.splitlines())
    assert snapshot() == before
    server_side = (
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=gitops",
        "-f",
        str(EXAMPLES / "world.yaml"),
    )
    examples.kubectl(*server_side)
    once = snapshot()
    examples.kubectl(*server_side)
    assert snapshot() == once
    for item in once:
        status = [entry for entry in item["managedFields"] if entry.get("subresource") == "status"]
        assert len(status) == 1
        assert set(status[0]["fieldsV1"]) == {"f:status"}


def kstatus(result: Object) -> str:
    """What Flux and `helm --wait` conclude from an object: generation first, then Stalled, Reconciling, Ready."""
    status = result.get("status", {})
    if status.get("observedGeneration", result["metadata"]["generation"]) != result["metadata"]["generation"]:
        return "InProgress"
    conditions = {condition["type"]: condition["status"] for condition in status.get("conditions", [])}
    if conditions.get("Stalled") == "True":
        return "Failed"
    if conditions.get("Reconciling") == "True":
        return "InProgress"
    if conditions.get("Ready", "True") != "True":
        return "InProgress"
    return "Current"


def argo(result: Object) -> str:
    """What Argo CD concludes from an object by the script of docs/install.md."""
    text = (ROOT / "docs" / "install.md").read_text()
    (settings,) = re.findall(r"```yaml\n(resource\.customizations\.health.*?)```", text, re.DOTALL)
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(result, recursive=True)
    return str(lua.execute(*yaml.safe_load(settings).values()).status)


def test_gitops_tools_read_the_status_right(examples: NodeCluster):
    """Argo CD and Flux find a served object healthy, one with a broken reference not, and it gets there by itself."""
    for item in examples.get("principals,profiles,manifests,principalbindings", "-n", AGENTS)["items"]:
        assert (kstatus(item), argo(item)) == ("Current", "Healthy"), item["metadata"]["name"]
    examples.apply(
        declared("PrincipalBinding", "early", AGENTS, {
            "principalRef": {"name": "late"}, "profileRef": {"name": "agent"}, "manifestRef": {"name": "production"},
            "components": ["late"],
        })
    )  # fmt: skip

    def judged(*wanted: tuple[str, str]) -> Callable[[], bool]:
        def ask() -> bool:
            result = examples.get("principalbinding", "early", "-n", AGENTS)
            return bool(result.get("status", {}).get("conditions")) and (kstatus(result), argo(result)) in wanted

        return ask

    eventually(judged(("InProgress", "Degraded"), ("Failed", "Degraded")), within=30)
    examples.apply(declared("Principal", "late", AGENTS, {"subjects": [{"serviceAccount": {"name": "late"}}]}))
    eventually(judged(("Current", "Healthy")), within=30)
    examples.kubectl("-n", AGENTS, "delete", "principalbinding/early", "principal/late")


def test_what_the_wrapper_costs(examples: NodeCluster, say: Callable[[str], None]):
    """`metagate run -- true` beside `python3 -c pass`, in a pod: wall and CPU of the whole process tree."""
    look = (
        "import json, resource, subprocess, time\n"
        "def cost(command, rounds=8):\n"
        "    wall, cpu = [], []\n"
        "    for _ in range(rounds):\n"
        "        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()\n"
        "        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "        after = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "        wall.append(time.perf_counter() - began)\n"
        "        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)\n"
        "    return [round(1000 * sorted(each)[len(each) // 2]) for each in (wall, cpu)]\n"
        "print(json.dumps([cost(['python3', '-c', 'pass']), cost(['metagate', 'run', '--packet-file=', '--ready-after=0', '--', 'true'])]))"
    )
    bare, wrapped = json.loads(
        examples.kubectl("-n", AGENTS, "exec", "deployment/courier", "--", "python3", "-c", look)
    )
    say(
        f"a start: python3 -c pass {bare[0]} ms wall, {bare[1]} ms CPU; metagate run -- true {wrapped[0]} ms wall, {wrapped[1]} ms CPU"
    )
    assert wrapped[1] - bare[1] < 250
