"""The library chart: what the gates' charts have in common stands once, and their output is what it was."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.chart.golden import FILE, VALUES, all_digests, rendered
from tests.chart.rendering import ROOT, Chart

CHARTS = ROOT / "charts"


def test_the_output_is_what_it_was(chart: Chart) -> None:
    """Object by object, for every set of values; `python -m tests.chart.golden` accepts a change."""
    assert all_digests(chart, CHARTS) == json.loads(FILE.read_text())


def test_every_copy_is_the_library() -> None:
    """`make crds` copies it; Helm would not notice an old one."""
    done = subprocess.run([sys.executable, CHARTS / "library.py", "--check"], check=False)
    assert done.returncode == 0


def test_an_old_copy_is_noticed(tmp_path: Path) -> None:
    """A file that the library does not have, and one that is missing."""
    shutil.copytree(CHARTS, tmp_path / "charts")
    script = tmp_path / "charts" / "library.py"
    check = [sys.executable, script, "--check"]
    copy = tmp_path / "charts" / "memorygate" / "charts" / "gate-lib" / "templates"
    for change in ((copy / "_old.tpl").touch, (copy / "_pod.tpl").unlink):
        change()
        assert subprocess.run(check, check=False).returncode == 1
        assert subprocess.run([sys.executable, script], check=False).returncode == 0
        assert subprocess.run(check, check=False).returncode == 0


@pytest.mark.parametrize("name", VALUES)
def test_a_packaged_chart_renders_the_same(chart: Chart, name: str, tmp_path: Path) -> None:
    """From an archive, far from this checkout, and without any repository."""
    chart.run("package", str(CHARTS / name), "-d", str(tmp_path))
    [archive] = tmp_path.glob("*.tgz")
    form = next(iter(VALUES[name]))
    assert rendered(chart, archive, VALUES[name][form]) == json.loads(FILE.read_text())[name][form]


@pytest.mark.parametrize("name", VALUES)
def test_the_dependency_is_the_copy(name: str) -> None:
    """The versions that Chart.yaml asks for are those of the charts beside it; Helm accepts nothing else."""
    dependencies = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())["dependencies"]
    gates = set(VALUES) - {"legivellum"} if name == "legivellum" else set()
    assert {dependency["name"] for dependency in dependencies} == {"gate-lib", *gates}
    for dependency in dependencies:
        original = yaml.safe_load((CHARTS / dependency["name"] / "Chart.yaml").read_text())
        assert (dependency["name"], dependency["version"]) == (original["name"], original["version"])
        assert (original["type"] == "library") == (dependency["name"] == "gate-lib")
        condition = f"{dependency['name']}.enabled" if dependency["name"] in gates else None
        assert dependency.get("condition") == condition


def test_the_library_documents_its_templates() -> None:
    """Its README names each template, and none that does not exist."""
    text = (CHARTS / "gate-lib" / "README.md").read_text()
    defined = {
        line.split('"')[1]
        for path in (CHARTS / "gate-lib" / "templates").glob("*.tpl")
        for line in path.read_text().splitlines()
        if line.startswith("{{- define ")
    }
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `gate-lib.")]
    named = {name for row in rows for name in row.replace("`", "").replace(" ", "").split(",")}
    assert named == defined
