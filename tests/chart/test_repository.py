"""The chart repository that `make charts` writes: helm installs from it, and Artifact Hub understands it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart.rendering import RELEASE, ROOT, Chart

CHARTS = {folder.parent.name for folder in (ROOT / "charts").glob("*/Chart.yaml")}
APPLICATIONS = sorted(CHARTS - {"gate-lib"})
CATEGORIES = {
    "ai-machine-learning", "database", "integration-delivery", "monitoring-logging", "networking", "security", "storage",
    "streaming-messaging", "skip-prediction",
}  # fmt: skip


def described(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "charts" / name / "Chart.yaml").read_text()))


@pytest.fixture(scope="module")
def repository(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert chart.helm
    folder = tmp_path_factory.mktemp("repository") / "charts"
    subprocess.run(
        [sys.executable, ROOT / "charts" / "package.py", "--directory", folder], check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def address(repository: Path) -> Iterator[str]:
    """The folder, copied to a web server as it is."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the overridden method
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(repository))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_every_chart_is_in_the_index_in_the_version_of_its_folder(repository: Path):
    entries = yaml.safe_load((repository / "index.yaml").read_text())["entries"]
    assert {name: [entry["version"] for entry in versions] for name, versions in entries.items()} == {
        name: [described(name)["version"]] for name in CHARTS
    }
    archives = {entry["urls"][0] for versions in entries.values() for entry in versions}
    assert {path.name for path in repository.iterdir()} == {*archives, "index.yaml", "artifacthub-repo.yml"}


def contents(folder: Path) -> dict[str, Any]:
    """Of a chart; helm writes Chart.yaml anew, so what it says is compared."""
    files = {
        str(path.relative_to(folder)): path
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".helmignore"
    }
    return {
        name: yaml.safe_load(path.read_text()) if path.name == "Chart.yaml" else path.read_bytes()
        for name, path in files.items()
    }


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_helm_fetches_what_lies_in_the_checkout(chart: Chart, address: str, tmp_path: Path, name: str):
    """The library chart, the CRDs and the files are in the archive; nothing else has to be fetched."""
    chart.run("pull", name, "--repo", address, "--untar", "--untardir", str(tmp_path))
    assert contents(tmp_path / name) == contents(ROOT / "charts" / name)


def test_helm_renders_from_the_repository_what_it_renders_from_the_checkout(chart: Chart, address: str):
    """The same objects; passwords of the trial database are drawn anew by each rendering."""

    def objects(*source: str) -> list[tuple[str, str]]:
        rendered = yaml.safe_load_all(chart.run("template", RELEASE, *source, "-n", "system", "--include-crds"))
        return [(item["kind"], item["metadata"]["name"]) for item in rendered if item]

    fetched = objects("metagate", "--repo", address)
    assert fetched == objects(str(ROOT / "charts" / "metagate"))
    assert len(fetched) > 20


def test_an_archive_is_named_by_the_address_that_is_asked_for(tmp_path: Path, chart: Chart):
    assert chart.helm
    command = [
        sys.executable,
        ROOT / "charts" / "package.py",
        "--directory",
        tmp_path,
        "--url",
        "https://charts.example/v1",
    ]
    subprocess.run(command, check=True, capture_output=True)
    entries = yaml.safe_load((tmp_path / "index.yaml").read_text())["entries"]
    assert entries["metagate"][0]["urls"] == [
        f"https://charts.example/v1/metagate-{described('metagate')['version']}.tgz"
    ]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_annotations_are_those_of_artifact_hub(name: str):
    annotations = described(name)["annotations"]
    assert annotations["artifacthub.io/category"] in CATEGORIES
    assert annotations["artifacthub.io/license"] == "MIT"
    assert {change["kind"] for change in yaml.safe_load(annotations["artifacthub.io/changes"])} <= {
        "added", "changed", "deprecated", "removed", "fixed", "security",
    }  # fmt: skip


def test_the_described_kinds_are_those_of_the_chart():
    listed = yaml.safe_load(described("metagate")["annotations"]["artifacthub.io/crds"])
    kinds = [yaml.safe_load(path.read_text()) for path in (ROOT / "charts" / "metagate" / "crds").glob("*.yaml")]
    assert {(entry["name"], entry["kind"], entry["version"]) for entry in listed} == {
        (kind["metadata"]["name"], kind["spec"]["names"]["kind"], version["name"])
        for kind in kinds
        for version in kind["spec"]["versions"]
    }
    assert all(entry["displayName"] and entry["description"] for entry in listed)


def test_the_examples_are_valid(tmp_path: Path):
    """`metagate validate` says so."""
    examples = yaml.safe_load(described("metagate")["annotations"]["artifacthub.io/crdsExamples"])
    (tmp_path / "examples.yaml").write_text(yaml.safe_dump_all(examples))
    done = subprocess.run(
        [sys.executable, "-m", "metagate_cli.main", "validate", tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(examples) >= 4


def test_what_artifact_hub_reads_of_the_repository(repository: Path):
    settings = yaml.safe_load((repository / "artifacthub-repo.yml").read_text())
    assert {entry["name"] for entry in settings["ignore"]} == CHARTS - set(APPLICATIONS)
