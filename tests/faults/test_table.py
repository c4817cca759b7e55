"""The table of rows tells the truth: each row has a test that exists, and what is told of a run is what was found."""

import ast
import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.faults import page, plot, table
from tests.faults.results import FaultResults
from tests.syntax_trees import parse_module

ROOT = Path(__file__).parents[2]


def test_every_row_is_there_once() -> None:
    """F01 to F36, in order."""
    assert [row.name for row in table.ROWS] == [f"F{number:02}" for number in range(1, 37)]


@pytest.mark.parametrize("row", table.EVERY, ids=lambda row: row.name)
def test_every_row_has_a_test(row: table.FaultRow) -> None:
    """Whoever renames a row's test is told."""
    for test in row.tests:
        path, _, name = test.partition("[")[0].partition("::")
        tree = parse_module(ROOT / path)
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        assert any(function.startswith(name or "test_") for function in functions), test


def test_a_run_is_told_as_it_was() -> None:
    """One failed test fails its row, a skipped one says why, and sums are sums."""
    figures = {"acked": 9, "refused": 1, "lost": 2, "duplicate": 0, "mixed": 0, "unacked": 0, "replayed": 0}
    good = FaultResults(figures | {"lost": 0, "worst": 0.2, "recovery": 1.0}, {"a": "passed"})
    bad = FaultResults(figures | {"worst": 0.7, "recovery": 1.0}, {"a": "passed", "b": "failed"})
    away = FaultResults({}, {"a": "skipped"}, ["there is no strace here"])
    printed = table.lines({"F01": good, "F02": bad, "F18": away})
    assert "passed" in printed[0]
    assert "FAILED" in printed[1]
    assert "skipped" in printed[2]
    assert "(there is no strace here)" in printed[2]
    assert printed[-1] == "Faults: 1/36 passed, lost 2, duplicate 0, mixed 0"
    about = {"date": "2026-01-01", "machine": "two processors", "python": "3.11", "rows": {"F01": asdict(good)}}
    written = page.page(json.loads(json.dumps(about)), [], {"interrogate": about})
    assert "| F01 | Database crash |" in written
    assert "1 of 36 passed." in written
    assert page.missing(about) == [row.name for row in table.ROWS if row.name != "F01"]
    for rows in (table.ADMISSION_ROWS, table.TASK_ROWS, table.DEPOT_ROWS, table.PLAN_ROWS):
        assert page.missing(about, rows) == [row.name for row in rows]


def test_the_page_is_what_was_measured() -> None:
    """docs/faults.md is generated from the JSON beside it: `python -m tests.faults.page`."""
    record, runs = json.loads(page.FILE.read_text(encoding="utf-8")), page.kept()
    gates = page.kept_gates()
    assert page.PAGE.read_text(encoding="utf-8") == page.page(record, runs, gates, page.kept_chaos())
    assert record["whole"]
    assert all(measured["whole"] for measured in gates.values())
    for run in runs:
        drawn = page.KEPT / f"random-{run['seed']}.svg"
        assert drawn.read_text(encoding="utf-8") == plot.svg(run)


def test_guards_exist() -> None:
    """Each test that docs/faults.md names as a promise's guard is there."""
    text = (Path(page.__file__).parent / "faults.guards.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 8
    for path, name in named:
        assert re.search(rf"def {name}\(", (ROOT / path).read_text(encoding="utf-8")), f"{path}::{name}"
