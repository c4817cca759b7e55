"""A release that the code before this one's installed is upgraded by this chart, while pods boot, without a step by hand."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.checkouts import checkout_of
from tests.e2e.kubernetes import CACHE, ENVIRONMENT, NODE, RECIPE, ROOT, NodeCluster, eventually, volume
from tests.e2e.release import AGENTS, CHART, IMAGE, NAME, NAMESPACE, WORKLOADS, InstalledRelease, loop, watcher
from tests.e2e.test_faults import report
from tests.e2e.test_readme import forget

Say = Callable[[str], None]
PREVIOUS = "01711b5"
"""The commit before the packages moved to roots of their own."""
TAG = "previous"


@pytest.fixture(scope="module")
def previous_chart(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of that commit; its images, built by its own script, are on the node with the tag `previous`."""
    if ENVIRONMENT.get("USE_EXISTING_CLUSTER") == "true":
        pytest.skip("NOT RUN: the previous release's images are made and loaded on a node of our own only")
    source = checkout_of(PREVIOUS, tmp_path_factory.mktemp("previous") / "source")
    if source is None:
        pytest.skip(f"NOT RUN: the history here does not reach to {PREVIOUS}: a shallow clone")
    name = f"docker.io/library/metagate:{TAG}"
    built_by = {"BUILDER": "buildah", "BASE_IMAGE": "localhost/debian:trixie-slim", "PIP": f"{sys.executable} -m pip"}
    subprocess.run(
        [source / "deploy/image", name],
        check=True,
        stdout=subprocess.DEVNULL,
        env=os.environ | built_by,  # noqa: TID251
    )
    for image in (name, f"{name}-embedded"):
        archive = CACHE / "e2e" / f"{image.rpartition(':')[2]}.tar"
        archive.unlink(missing_ok=True)
        push = ["buildah", "push", "-q", "--disable-compression", image, f"oci-archive:{archive}:{image}"]
        subprocess.run(push, check=True)
        subprocess.run([str(RECIPE), "load", str(archive)], check=True, env=NODE, stdout=subprocess.DEVNULL)
        archive.unlink()
    return source / "charts/metagate"


@pytest.mark.timeout(900)
def test_the_release_before_is_upgraded(cluster: NodeCluster, previous_chart: Path, say: Say) -> None:
    """`helm upgrade` and nothing else: no boot fails meanwhile, what was recorded and declared is there, pods boot on."""
    forget(cluster)
    volume(cluster, TAG)
    cluster.helm(
        "install", NAME, str(previous_chart), "-n", NAMESPACE, "--create-namespace", "--set", f"image.tag={TAG}",
        "--wait", "--timeout", "3m",
    )  # fmt: skip
    cluster.rolled_out(NAMESPACE, *WORKLOADS)
    cluster.kubectl("apply", "-f", str(ROOT / "examples/pods/world.yaml"))
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "principalbindings", "--all", "--timeout=60s")
    watcher(cluster)
    release = InstalledRelease(cluster, 0)
    load = loop(cluster)
    recorded = {session["startup_id"] for session in eventually(lambda: release.startups(AGENTS))}
    # Without --reset-values helm would keep the tag of the images.
    cluster.helm("upgrade", NAME, str(CHART), "-n", NAMESPACE, "--reset-values", "--wait", "--timeout", "4m")
    cluster.rolled_out(NAMESPACE, *WORKLOADS)
    counts = load.counts()
    report(say, f"helm upgrade from {PREVIOUS}", counts)
    assert (counts["failed"], counts["lost"]) == (0, 0)
    pods = cluster.get("deployment", "metagate-api", "-n", NAMESPACE)["spec"]["template"]["spec"]
    assert pods["containers"][0]["image"] == IMAGE
    assert recorded <= {session["startup_id"] for session in release.startups(AGENTS)}
    cluster.kubectl("-n", AGENTS, "wait", "--for=condition=Ready", "principalbindings", "--all", "--timeout=60s")
    assert "is READY" in cluster.helm("test", NAME, "-n", NAMESPACE, "--logs", "--timeout", "2m")
