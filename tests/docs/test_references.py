"""Whatever is cited can be read in this repository: decisions, invariants, pages."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from memorygate.main import app as memorygate
from metagate_cli.main import _across_gates, _app

ROOT = Path(__file__).resolve().parents[2]
CITED = re.compile(r"\b(?:D-\d{2}|(?:INV|EXT)-\d{2,3})\b")
# Documents that a reader of this repository does not have: a number of a founding document, an unnamed specification.
ELSEWHERE = re.compile(r"\b00\d:\d+|\b(?:SPEC|DESIGN|FAULTS|COMMON|STYLE|VOCABULARY)(?:\.md\b|\b *§|\b(?=[),;:]))")
PAGE = re.compile(r"\bdocs/[\w/-]+\.md\b")


def texts() -> dict[Path, str]:
    """Every text file of the repository, but generated pins and what this test itself says."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    paths = (
        Path(line) for line in listed.splitlines()
        if not line.endswith((".png", ".svg", ".lock", ".sum", ".mod")) and line != "tests/docs/test_references.py"
    )  # fmt: skip
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths if (ROOT / path).is_file()}


def cited(pattern: re.Pattern[str], files: dict[Path, str]) -> Iterator[tuple[str, str]]:
    for path, text in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            for match in pattern.finditer(line):
                yield f"{path}:{number}", match[0]


FILES = texts()
DECISIONS = re.findall(r"^### (D-\d{2}): \S", FILES[Path("docs/decisions.md")], re.MULTILINE)
INVARIANTS = re.findall(r"^\| ((?:INV|EXT)-\d+) \| \S", FILES[Path("docs/invariants.md")], re.MULTILINE)


def test_each_is_declared_once() -> None:
    assert len(DECISIONS) == len(set(DECISIONS)) > 0
    assert len(INVARIANTS) == len(set(INVARIANTS))
    assert {f"INV-{number:03d}" for number in range(1, 129)} <= set(INVARIANTS)


def test_every_decision_and_invariant_that_is_cited_can_be_read() -> None:
    known = {*DECISIONS, *INVARIANTS}
    assert [f"{place} {name}" for place, name in cited(CITED, FILES) if name not in known] == []


def test_nothing_refers_to_a_document_that_is_not_here() -> None:
    assert [f"{place} {name}" for place, name in cited(ELSEWHERE, FILES)] == []


def test_no_merge_was_left_unresolved() -> None:
    conflict = re.compile(r"^(?:<{7}|={7}|>{7}|\|{7})(?: .*)?$")
    assert [place for place, _ in cited(conflict, FILES)] == []


def test_every_page_that_is_named_exists() -> None:
    assert [f"{place} {page}" for place, page in cited(PAGE, FILES) if not (ROOT / page).is_file()] == []


@pytest.mark.parametrize(
    "text", ["as decided (001:109)", "see SPEC §1.2", "DESIGN §3 rule 6", "all of FAULTS.md", "(FAULTS)"]
)
def test_such_references_are_seen(text: str) -> None:
    assert ELSEWHERE.search(text)


def _helps(command: Any, path: str) -> Iterator[tuple[str, str]]:
    yield path, command.help or ""
    for parameter in command.params:
        yield f"{path} {parameter.name}", getattr(parameter, "help", None) or ""
    if hasattr(command, "commands"):
        for name, child in command.commands.items():
            yield from _helps(child, f"{path} {name}")


def test_the_command_line_explains_itself_without_numbers() -> None:
    """Whoever types --help has no list of decisions at hand."""
    helps = (
        dict(_helps(get_command(_app()), "metagate"))
        | dict(_helps(get_command(_across_gates()), "legivellum"))
        | dict(_helps(get_command(memorygate), "memorygate"))
    )
    assert len(helps) > 50
    assert [path for path, text in helps.items() if CITED.search(text)] == []


def _descriptions(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(output := node.get("description"), str):
            yield output
        for child in node.values():
            yield from _descriptions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _descriptions(child)


def test_kubectl_explain_and_the_charts_values_speak_without_numbers() -> None:
    """Descriptions of the kinds and of every chart's values: read by people who have neither list."""
    kinds = [
        *ROOT.glob("crds/generated/*.yaml"),
        *ROOT.glob("charts/*/crds/*.yaml"),
        *ROOT.glob("charts/*/values.schema.json"),
    ]
    answer = {path: " ".join(_descriptions(yaml.safe_load(path.read_text()))) for path in kinds}
    answer |= {
        path: path.read_text() for name in ("values.yaml", "README.md") for path in ROOT.glob(f"charts/*/{name}")
    }
    assert len(answer) > 15
    assert [str(path) for path, text in answer.items() if CITED.search(text)] == []
