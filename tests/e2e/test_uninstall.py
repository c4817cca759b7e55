"""`helm uninstall` takes what the chart brought and leaves what people declared and what was recorded."""

from collections.abc import Callable

from tests.e2e.kubernetes import eventually
from tests.e2e.release import AGENTS, CHART, NAME, NAMESPACE, WORKLOADS, InstalledRelease, watcher

from metagate_crds.kinds import KINDS

OURS = f"app.kubernetes.io/instance={NAME}"
NAMESPACED = "all,secrets,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"
DECLARED = "principals,profiles,manifests,principalbindings,policyprofiles,problematas,plantemplates"
CLUSTER_WIDE = "clusterroles,clusterrolebindings,validatingwebhookconfigurations,tokenissuers"


def test_uninstall_leaves_declarations_and_data(release: InstalledRelease, say: Callable[[str], None]):
    """CRDs, declared objects, the volume and the passwords stay; nothing else of the release does; a new install goes on."""
    cluster = release.cluster
    declared = cluster.kubectl("get", DECLARED, "-n", AGENTS, "-o", "name").split()
    recorded = {startup["startup_id"] for startup in release.startups(AGENTS, "archivist")}
    assert declared
    assert recorded
    cluster.helm("uninstall", NAME, "-n", NAMESPACE, "--wait", "--timeout", "3m")
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "watcher", "metagate-test", "--ignore-not-found", "--now")

    def left() -> list[str]:
        return cluster.kubectl("get", NAMESPACED, "-n", NAMESPACE, "-l", OURS, "-o", "name").split()

    eventually(lambda: left() == ["secret/metagate-database"], within=60)  # pods drain first
    assert cluster.kubectl("get", CLUSTER_WIDE, "-l", OURS, "-o", "name").split() == []
    claims = cluster.kubectl("get", "persistentvolumeclaims", "-n", NAMESPACE, "-o", "name").split()
    assert claims == ["persistentvolumeclaim/data-metagate-database-0"]
    definitions = cluster.kubectl("get", "crds", "-o", "name").split()
    assert len([name for name in definitions if "metagate.legivellum.io" in name]) == len(KINDS)
    assert cluster.kubectl("get", DECLARED, "-n", AGENTS, "-o", "name").split() == declared
    cluster.helm("install", NAME, str(CHART), "-n", NAMESPACE, "--wait", "--timeout", "3m")
    cluster.rolled_out(NAMESPACE, *WORKLOADS)
    watcher(cluster)
    again = {startup["startup_id"] for startup in release.startups(AGENTS, "archivist")}
    assert recorded <= again
    say(f"uninstall and install again: {len(recorded)} recorded startups of the example still there")


def test_uninstall_takes_data_when_values_say_so(release: InstalledRelease):
    """With `database.trial.keepData=false` the volume claim and the passwords go too."""
    cluster = release.cluster
    cluster.helm(
        "upgrade", NAME, str(CHART), "-n", NAMESPACE, "--set", "database.trial.keepData=false", "--timeout", "3m"
    )
    cluster.rolled_out(NAMESPACE, *WORKLOADS)
    cluster.helm("uninstall", NAME, "-n", NAMESPACE, "--wait", "--timeout", "3m")
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=delete", "pvc/data-metagate-database-0", "--timeout=60s")
    assert cluster.kubectl("get", "secrets", "-n", NAMESPACE, "-l", OURS, "-o", "name").split() == []
