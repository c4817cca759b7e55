"""Parts of the release go away while pods boot in a loop."""

import time
from collections.abc import Callable

import pytest
from tests.e2e.kubernetes import NodeCluster, eventually
from tests.e2e.release import NAMESPACE, InstalledRelease, loop, undisturbed
from tests.e2e.test_install import memory

Say = Callable[[str], None]


def report(say: Say, what: str, counts: dict[str, int]) -> None:
    say(
        f"{what}: {counts['booted']} boots, {counts['failed']} failed, {counts['lost']} lost,"
        f" retried after 503 {counts['retried_503']}, after a broken connection {counts['retried_connection']}"
    )


def other_pods(cluster: NodeCluster, component: str) -> list[str]:
    """Those that are there to stay: what an earlier rollout ended may still be draining."""
    items = cluster.get("pods", "-n", NAMESPACE, "-l", f"app.kubernetes.io/component={component}")["items"]
    return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]


@pytest.mark.invariant("INV-025")
def test_an_operator_that_is_gone_is_not_missed(release: InstalledRelease, say: Say):
    """The operator's pod is deleted and stays away: boots go on undisturbed, and it takes over again."""
    load = loop(release.cluster)
    release.cluster.kubectl("-n", NAMESPACE, "scale", "deployment/metagate-operator", "--replicas=0")
    release.cluster.kubectl(
        "-n", NAMESPACE, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=60s"
    )
    counts = load.counts()
    report(say, "operator away", counts)
    release.cluster.kubectl("-n", NAMESPACE, "scale", "deployment/metagate-operator", "--replicas=1")
    release.cluster.rolled_out(NAMESPACE, "deployment/metagate-operator")
    assert counts["booted"] > 20
    undisturbed(counts)


def test_memory_under_load(release: InstalledRelease, say: Say):
    """An API pod under the loop stays far below its limit."""
    load = loop(release.cluster)
    result = {name: memory(release.cluster, f"deployment/metagate-{name}") for name in ("api", "operator")}
    result["database"] = memory(release.cluster, "statefulset/metagate-database")
    counts = load.counts()
    say("memory per pod while pods boot, MiB: " + ", ".join(f"{name} {size}" for name, size in result.items()))
    assert counts["failed"] == 0
    assert result["api"] < 250


def test_a_rollout_of_the_api_loses_nothing(release: InstalledRelease, say: Say):
    """F35: every API pod is replaced under load; drained connections are not broken, nothing acknowledged is lost."""
    before = set(other_pods(release.cluster, "api"))
    load = loop(release.cluster)
    release.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "deployment/metagate-api")
    release.cluster.rolled_out(NAMESPACE, "deployment/metagate-api")
    counts = load.counts()
    report(say, "API rollout", counts)
    assert not before & set(other_pods(release.cluster, "api")) or counts["booted"] > 20
    assert (counts["failed"], counts["lost"]) == (0, 0)


def test_an_api_pod_killed_at_once_loses_nothing(release: InstalledRelease, say: Say):
    """F35: one API pod is killed without notice; those it was serving ask again, the other pod answers."""
    load = loop(release.cluster)
    victim = other_pods(release.cluster, "api")[0]
    release.cluster.kubectl("-n", NAMESPACE, "delete", "pod", victim, "--grace-period=0", "--force")
    release.cluster.rolled_out(NAMESPACE, "deployment/metagate-api")
    counts = load.counts()
    report(say, "API pod killed", counts)
    assert (counts["failed"], counts["lost"]) == (0, 0)


def test_a_database_that_restarts_loses_nothing(release: InstalledRelease, say: Say):
    """The database's pod is replaced under load: 503 meanwhile, no API pod restarts, what was acknowledged is there."""
    pods = {name: _restarts(release.cluster, name) for name in other_pods(release.cluster, "api")}
    load = loop(release.cluster)
    release.cluster.kubectl("-n", NAMESPACE, "delete", "pod", "metagate-database-0", "--wait=true")
    release.cluster.rolled_out(NAMESPACE, "statefulset/metagate-database")
    eventually(lambda: release.ask("/v1/startups?limit=1"), within=30)
    time.sleep(5)  # of ordinary boots, for the counts
    counts = load.counts()
    report(say, "database restart", counts)
    assert counts["booted"] > 20
    assert counts["retried_503"] + counts["retried_connection"] > 0
    assert (counts["failed"], counts["lost"]) == (0, 0)
    assert {name: _restarts(release.cluster, name) for name in other_pods(release.cluster, "api")} == pods


def _restarts(cluster: NodeCluster, name: str) -> int:
    container_statuses = cluster.get("pod", name, "-n", NAMESPACE)["status"]["containerStatuses"]
    return sum(int(status["restartCount"]) for status in container_statuses)
