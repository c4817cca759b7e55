"""The next release: one more migration, one more field in a CRD, while pods boot in a loop; then back again."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.kubernetes import CACHE, ENVIRONMENT, NODE, RECIPE, NodeCluster
from tests.e2e.release import CHART, IMAGE, NAME, NAMESPACE, InstalledRelease, loop
from tests.e2e.test_faults import report

Say = Callable[[str], None]
NEXT = "0.1.1"
MIGRATION = "9001_next_release.sql"
FIELD = '    next_release: str | None = Field(default=None, description="A field of the next release.")\n\n'


@pytest.fixture(scope="module")
def next_release(cluster: NodeCluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart of the next release; its images are today's with a migration and a field more."""
    if ENVIRONMENT.get("USE_EXISTING_CLUSTER") == "true":
        pytest.skip("NOT RUN: the next release's images are made and loaded on a node of our own only")
    work = tmp_path_factory.mktemp("next")
    (work / MIGRATION).write_text("CREATE TABLE metagate.next_release (noted timestamptz NOT NULL DEFAULT now());\n")
    edit = (
        "import pathlib, metagate_crds.models.profile as m\n"
        "path = pathlib.Path(m.__file__); text = path.read_text()\n"
        "mark = '    sla_seconds: Annotated'\n"
        f"assert text.count(mark) == 1; path.write_text(text.replace(mark, {FIELD!r} + mark))\n"
    )
    (work / "Dockerfile").write_text(
        f"ARG BASE\nFROM $BASE\nUSER 0\n"
        f"COPY {MIGRATION} /tmp/\n"
        'RUN cp /tmp/9001* "$(python3 -c "import metagate_store; print(metagate_store.__path__[0])")/migrations/"\n'
        "COPY edit.py /tmp/\nRUN python3 /tmp/edit.py && rm -r /opt/metagate/lib/python*/site-packages/metagate_crds/models/__pycache__\n"
        "USER 65532:65532\n"
    )
    (work / "edit.py").write_text(edit)
    for suffix in ("", "-embedded"):
        image = f"docker.io/library/metagate:{NEXT}{suffix}"
        build = [
            "buildah",
            "bud",
            "-q",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--build-arg",
            f"BASE=docker.io/library/{IMAGE}{suffix}",
        ]
        subprocess.run([*build, "-t", image, str(work)], check=True, stdout=subprocess.DEVNULL)
        archive = CACHE / "e2e" / f"next{suffix}.tar"
        archive.unlink(missing_ok=True)
        subprocess.run(
            ["buildah", "push", "-q", "--disable-compression", image, f"oci-archive:{archive}:{image}"], check=True
        )
        subprocess.run([str(RECIPE), "load", str(archive)], check=True, env=NODE, stdout=subprocess.DEVNULL)
        archive.unlink()
    chart = work / "metagate"
    shutil.copytree(CHART, chart)
    described = (chart / "Chart.yaml").read_text()
    (chart / "Chart.yaml").write_text(described.replace("0.1.0", NEXT))
    return chart


def explained(cluster: NodeCluster) -> str:
    return cluster.kubectl("explain", "profile.spec.startup", "--api-version=metagate.legivellum.io/v1alpha1")


def test_upgrade_while_pods_boot(release: InstalledRelease, next_release: Path, say: Say):
    """helm upgrade: the hook applies the CRD, the operator migrates, every pod is replaced, and no boot fails."""
    assert "nextRelease" not in explained(release.cluster)
    load = loop(release.cluster)
    release.cluster.helm("upgrade", NAME, str(next_release), "-n", NAMESPACE, "--wait", "--timeout", "4m")
    counts = load.counts()
    report(say, "helm upgrade", counts)
    assert (counts["failed"], counts["lost"]) == (0, 0)
    assert counts["booted"] > 50
    assert "nextRelease" in explained(release.cluster)
    migrated = release.cluster.logs(NAMESPACE, "deployment/metagate-operator", "-c", "migrate")
    assert "applied 9001_next_release" in migrated
    images = release.cluster.get("deployment", "metagate-api", "-n", NAMESPACE)["spec"]["template"]["spec"][
        "containers"
    ]
    assert images[0]["image"] == f"metagate:{NEXT}"


def test_rollback_while_pods_boot(release: InstalledRelease, next_release: Path, say: Say):
    """helm rollback: the previous release runs on the newer schema and the newer CRDs, and no boot fails."""
    load = loop(release.cluster)
    release.cluster.helm("rollback", NAME, "-n", NAMESPACE, "--wait", "--timeout", "4m")
    counts = load.counts()
    report(say, "helm rollback", counts)
    assert (counts["failed"], counts["lost"]) == (0, 0)
    assert "nextRelease" in explained(release.cluster)
    images = release.cluster.get("deployment", "metagate-api", "-n", NAMESPACE)["spec"]["template"]["spec"][
        "containers"
    ]
    assert images[0]["image"] == IMAGE
    output = release.cluster.helm("test", NAME, "-n", NAMESPACE, "--logs", "--timeout", "2m")
    assert "is READY" in output
