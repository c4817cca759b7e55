"""The workflows of GitHub Actions: they run what a developer runs, read the repository only, and know no secret."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.docs.test_commands import judge, programs
from tests.docs.test_links import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
SAMPLE = (
    ROOT / "docs" / "ci" / "github-actions.yaml"
)  # for a repository of declared resources; it comments on pull requests
ACTION = re.compile(r"[\w.-]+/[\w./-]+@v\d+")


def read(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(workflow: dict[Any, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_change_runs_the_whole_suite():
    workflow = read(ROOT / ".github" / "workflows" / "ci.yaml")
    assert set(workflow[True]) >= {"push", "pull_request"}  # YAML 1.1 reads `on` so
    assert [step["run"] for step in steps(workflow) if "run" in step][-1] == ".ci/run"
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_reads_only(path: Path):
    assert read(path)["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize("path", [*WORKFLOWS, SAMPLE], ids=lambda path: path.stem)
def test_a_workflow_can_be_run(path: Path):
    """Every action has a version, every job a runner, and every command of ours exists."""
    workflow = read(path)
    assert all(job["runs-on"] == "ubuntu-latest" for job in workflow["jobs"].values())
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
        assert "uses" not in step or ACTION.fullmatch(step["uses"]), step
        for line in re.findall(r"^(?:make|metagate) .*$", step.get("run", ""), re.MULTILINE):
            for words in programs(line.split(" > ")[0]):
                judge(words)
