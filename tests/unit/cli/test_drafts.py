"""Files of `legivellum plan`: their three forms, and the line on which a finding stands."""

from pathlib import Path

import pytest

from metagate_cli.drafts import read_plan_file
from metagate_cli.terminal import Stop

DRAFT = """\
dispatch: Held
approver: mara
steps:
- id: read
  capability: document.read
  job: {instruction: "Read."}
- id: merge
  capability: document.merge
  dependsOn:
  - raed
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


@pytest.mark.parametrize(
    ("before", "prefix"),
    [("", "draft."), ("draft:\n", "draft."), ("intent:\n  draft:\n", "draft.")],
    ids=["draft", "intent", "body"],
)
def test_a_finding_stands_on_its_line(tmp_path: Path, before: str, prefix: str) -> None:
    """Whether the file holds a draft, an intent or a body: all become the same body, and lines are those of the file."""
    text = DRAFT
    for _ in range(before.count("\n")):
        text = indented(text)
    plan = read_plan_file(written(tmp_path, before + text))
    assert plan.body["intent"]["draft"]["approver"] == "mara"
    first = before.count("\n")
    assert plan.line_of(f"{prefix}steps[1].dependsOn[0]") == first + 10
    assert plan.line_of(f"{prefix}steps[0].job.inputs[3].name") == first + 6


def test_json_is_read(tmp_path: Path) -> None:
    """A body with an id, as a program writes it."""
    plan = read_plan_file(written(tmp_path, '{"plan_id": "X", "intent": {"template": "t", "parameters": {"a": 1}}}'))
    assert plan.body == {"plan_id": "X", "intent": {"template": "t", "parameters": {"a": 1}}}


@pytest.mark.parametrize("text", ["- a\n- b\n", "steps: [\n", "steps: 1\nsteps: 2\n"])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    """A list, broken YAML, a key twice: each with what is wrong."""
    with pytest.raises(Stop):
        read_plan_file(written(tmp_path, text))
