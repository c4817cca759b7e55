"""examples/workers: a real API server takes every object, and refuses it with one word misspelled."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.control_plane import Cluster, eventually

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples" / "workers").glob("*.yaml"))
CRDS = Path(__file__).parent / "keda_crds.yaml"


@pytest.fixture(scope="module")
def agents(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with the namespace of the examples and the kinds of KEDA."""
    kubectl = cluster.kubectl
    kubectl.run("apply", "-f", str(CRDS))
    kubectl.run("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRDS))
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "agents"}})
    eventually(lambda: kubectl.run("get", "scaledobjects", "-A", check=False).returncode == 0)
    yield cluster
    kubectl.run("delete", "-f", str(CRDS))
    kubectl.run("delete", "namespace", "agents", "--wait=false")


def applied(cluster: Cluster, text: str) -> subprocess.CompletedProcess[str]:
    return cluster.kubectl.run("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text, check=False)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_is_accepted(agents: Cluster, file: Path) -> None:
    """Every object of the file, judged by the server's own schemas."""
    done = applied(agents, file.read_text())
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(list(yaml.safe_load_all(file.read_text())))


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("deployment", "serviceAccountName"),
        ("horizontalpodautoscaler", "averageValue"),
        ("scaledobject", "valueLocation"),
        ("scaledobject", "secretTargetRef"),
        ("world", "subjects"),
    ],
)
def test_a_misspelled_field_is_refused(agents: Cluster, file: str, field: str) -> None:
    """So the test above can fail."""
    text = (ROOT / "examples" / "workers" / f"{file}.yaml").read_text()
    done = applied(agents, re.sub(rf"\b{field}\b", f"{field}x", text))
    assert done.returncode != 0
    assert f"{field}x" in done.stderr


def test_the_autoscalers_scale_the_deployment() -> None:
    """Each names the Deployment of the example, its triggers the capability that the worker asks for."""
    objects = {item["kind"]: item for file in FILES for item in yaml.safe_load_all(file.read_text())}
    deployment = objects["Deployment"]
    name = deployment["metadata"]["name"]
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == name
    scaled = objects["ScaledObject"]["spec"]
    assert scaled["scaleTargetRef"]["name"] == name
    [capability] = re.findall(
        r"--capability=(\S+)", " ".join(deployment["spec"]["template"]["spec"]["containers"][0]["command"])
    )
    assert {trigger["metadata"]["url"].partition("?")[2] for trigger in scaled["triggers"]} == {
        f"capability={capability}"
    }
    names = {trigger["name"] for trigger in scaled["triggers"]}
    assert set(re.findall(r"[a-z]+", scaled["advanced"]["scalingModifiers"]["formula"])) == names
    authentications = {trigger["authenticationRef"]["name"] for trigger in scaled["triggers"]}
    assert authentications == {objects["TriggerAuthentication"]["metadata"]["name"]}
