"""docs/faults.md from what was measured: `python -m tests.faults.page`.

It is written from docs/faults/rows.json (the last whole run of `make faults`), docs/faults/interrogate.json and
asyncgate.json, depotgate.json (the last ones of these gates' rows) and docs/faults/random-*.json (the random schedules that were kept),
and a test compares it with them. `--take`: first take over what `make faults` just found, when it is all of the rows;
`--take-gate interrogate`: only that gate's.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults import plot, results
from tests.faults.results import FaultResults
from tests.faults.table import ADMISSION_ROWS, DEPOT_ROWS, EVERY, PLAN_ROWS, ROWS, TASK_ROWS, FaultRow, extra, outcome

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "faults.md"
KEPT = HERE.parents[1] / "docs" / "faults"
FILE = KEPT / "rows.json"
CHAOS = KEPT / "chaos.json"
GATES: Mapping[str, Sequence[FaultRow]] = {
    "interrogate": ADMISSION_ROWS,
    "asyncgate": TASK_ROWS,
    "depotgate": DEPOT_ROWS,
    "delegate": PLAN_ROWS,
}
"""Gates whose rows are kept beside MetaGate's, each in a file of its name."""

COLUMNS = (
    "#", "Fault", "Injection", "Promises", "Needs", "In CI", "Result", "Acked", "Refused", "Lost", "Duplicate", "Mixed",
    "Unheard", "Worst answer", "Recovery", "And",
)  # fmt: skip


def rows_of(record: Mapping[str, Any]) -> dict[str, FaultResults]:
    return {name: FaultResults(**value) for name, value in record["rows"].items()}


def missing(record: Mapping[str, Any], rows: Sequence[FaultRow] = ROWS) -> list[str]:
    """Rows that did not pass, or were not played."""
    result = rows_of(record)
    return [row.name for row in rows if row.name not in result or outcome(result[row.name]) != "passed"]


def page(
    record: Mapping[str, Any],
    random: Sequence[Mapping[str, Any]],
    gates: Mapping[str, Mapping[str, Any]] | None = None,
    chaos: Mapping[str, Any] | None = None,
) -> str:
    parts = [
        "# Faults that MetaGate survives",
        "",
        f"Written by `make faults` on {record['date']}: {record['machine']}, Python {record['python']}.",
        "",
        _text("head"),
        "",
        *_table(COLUMNS, _rows(ROWS, rows_of(record))),
        "",
        f"{len(ROWS) - len(missing(record))} of {len(ROWS)} passed.",
        "",
        *(line for name in GATES for line in _gate(name, (gates or {}).get(name))),
        _text("random"),
        "",
        *_random(random),
        *_chaos(chaos),
        _text("guards"),
        "",
        "## Where each is proven",
        "",
        *_table(("#", "Test"), ([row.name, _tests_of(row)] for row in EVERY)),
    ]
    return "\n".join(parts) + "\n"


_PART_TITLES = {
    "admitting": "DeleGate", "asyncgate": "AsyncGate", "cognigate": "CogniGate", "another cognigate": "another CogniGate",
    "depotgate": "DepotGate", "interrogate": "InterroGate", "memorygate": "the ledger", "metagate database": "MetaGate's database",
    "ledger database": "the gates' database", "worker": "a worker",
}  # fmt: skip


def _chaos(record: Mapping[str, Any] | None) -> Iterator[str]:
    """What befell the whole system, once it was played."""
    yield from (_text("chaos"), "")
    if record is None:
        return
    counts = ", ".join(f"**{len(record[name])} {name}**" for name in ("lost", "double", "contradicting"))
    yield (
        f"Seed {record['seed']}, {record['date']}, {record['machine']}, Python {record['python']}: {record['faults']} faults in "
        f"{record['seconds']:.0f} s, {record['stories']} stories, {record['receipts']} receipts: {counts}."
    )
    yield ""
    parts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, count in record["played"].items():
        part, _, how = name.partition(": ")
        parts[part]["stopped" if how == "stopped" else "killed" if how == "killed" else "at a point"] += count
    columns = ("killed", "at a point", "stopped")
    yield from _table(
        ("Part", "Killed at any moment", "… at a named point", "Stopped past a lease"),
        (
            [_PART_TITLES.get(part, part), *(str(counted[column]) for column in columns)]
            for part, counted in sorted(parts.items())
        ),
    )
    yield ""


def kept_chaos() -> Mapping[str, Any] | None:
    """The long run of the whole system that was kept."""
    return json.loads(CHAOS.read_text(encoding="utf-8")) if CHAOS.exists() else None


def _gate(name: str, record: Mapping[str, Any] | None) -> Iterator[str]:
    """A gate's rows, once they were measured."""
    rows = GATES[name]
    yield from (_text(name), "")
    if record is None:
        return
    yield f"Measured on {record['date']}: {record['machine']}, Python {record['python']}."
    yield ""
    yield from _table(COLUMNS, _rows(rows, rows_of(record)))
    yield ""
    yield f"{len(rows) - len(missing(record, rows))} of {len(rows)} passed."
    yield ""


def kept_gates() -> dict[str, Any]:
    """What was measured of each gate, where it was."""
    files = {name: KEPT / f"{name}.json" for name in GATES}
    return {name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items() if file.exists()}


def _tests_of(row: FaultRow) -> str:
    """Whole names where the test is one of several with parameters, beginnings otherwise."""
    return ", ".join(f"`{test}{'' if test.endswith(']') else '…'}`" for test in row.tests)


def _text(name: str) -> str:
    return (HERE / f"faults.{name}.md").read_text(encoding="utf-8").strip()


def _table(columns: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def _rows(rows: Sequence[FaultRow], result: Mapping[str, FaultResults]) -> Iterator[Sequence[str]]:
    for row in rows:
        item = result.get(row.name, FaultResults())
        figures = item.figures
        timed = "worst" in figures
        yield [
            row.name,
            row.fault,
            row.injection,
            row.promises,
            row.root,
            row.ci,
            outcome(item) if item.outcomes else "not run",
            *(str(figures.get(name, "")) for name in ("acked", "refused", "lost", "duplicate", "mixed", "unacked")),
            f"{figures['worst'] * 1_000:.0f} ms" if timed else "",
            f"{figures['recovery']:.2f} s" if timed else "",
            extra(figures) + "; ".join(item.reasons),
        ]


def _random(runs: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not runs:
        return
    columns = (
        "Seed", "Minutes", "Turns", "Faults", "Acked", "Refused", "Lost", "Duplicate", "Mixed", "Unheard", "Worst answer",
        "Worst recovery", "Machine kept away", "Promises broken",
    )  # fmt: skip
    yield from _table(columns, (_run(run) for run in runs))
    yield ""
    grown = (
        "Seed",
        "What, at least",
        "First third",
        "Second",
        "Last",
        "Most",
        "A third may begin higher by",
        "Once by",
        "Flat",
    )
    yield from _table(grown, (_growth(run["seed"], item) for run in runs for item in run["growth"]))
    yield ""
    for run in runs:
        yield f"![what the gate held, seed {run['seed']}](faults/random-{run['seed']}.svg)"
        yield ""


def _run(record: Mapping[str, Any]) -> Sequence[str]:
    figures = record["figures"]
    return [
        str(record["seed"]),
        f"{record['minutes']:g}",
        str(len(record["turns"])),
        str(sum(record["faults"].values())),
        *(str(figures[name]) for name in ("acked", "refused", "lost", "duplicate", "mixed", "unacked")),
        f"{figures['worst'] * 1_000:.0f} ms",
        f"{figures['recovery']:.2f} s",
        f"{record['machine_kept_away']:.0%}",
        ", ".join(record["broken"]) or "none",
    ]


def _growth(seed: int, one: Mapping[str, Any]) -> Sequence[str]:
    def shown(value: float) -> str:
        return f"{value / (1 << 20):.1f} MB" if one["what"].startswith("bytes") else f"{value:.0f}"

    what = one["what"].replace("bytes", "memory")
    values = [shown(one[name]) for name in ("first", "second", "last", "most", "allowed", "once")]
    return [str(seed), what, *values, "yes" if one["flat"] else "NO"]


def kept() -> list[dict[str, Any]]:
    """The random schedules that docs/faults shows, by seed."""
    result = [json.loads(path.read_text(encoding="utf-8")) for path in KEPT.glob("random-*.json")]
    return sorted(result, key=lambda one: int(one["seed"]))


def _take(rows: Sequence[FaultRow], file: Path) -> bool:
    """Keep what was found of these rows, when it is all of them; whether it was."""
    record = json.loads(results.FILE.read_text(encoding="utf-8"))
    if left := missing(record, rows):
        print(f"{PAGE.name} stays as it is: without {', '.join(left)}")
        return False
    KEPT.mkdir(exist_ok=True)
    names = {row.name for row in rows}
    kept_rows = {name: result for name, result in record["rows"].items() if name in names}
    file.write_text(json.dumps({**record, "rows": kept_rows}, indent=1) + "\n", encoding="utf-8")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", action="store_true", help="what `make faults` just found")
    parser.add_argument(
        "--take-gate", choices=sorted(GATES), action="append", default=[], help="of that, its rows alone"
    )
    arguments = parser.parse_args()
    if arguments.take and not _take(ROWS, FILE):
        return 1
    for name in GATES if arguments.take else arguments.take_gate:
        if not _take(GATES[name], KEPT / f"{name}.json"):
            return 1
    runs = kept()
    for run in runs:
        (KEPT / f"random-{run['seed']}.svg").write_text(plot.svg(run), encoding="utf-8")
    record = json.loads(FILE.read_text(encoding="utf-8"))
    PAGE.write_text(page(record, runs, kept_gates(), kept_chaos()), encoding="utf-8")
    print(f"{PAGE.name}: {len(ROWS) - len(missing(record))} of {len(ROWS)}, {len(runs)} random schedules")
    return 0


if __name__ == "__main__":
    sys.exit(main())
