"""What the run found, by row: kept while pytest runs, written as JSON, printed as lines, rendered as docs/faults.md."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.promises import FaultFigures

FILE = Path(__file__).parents[2] / "build" / "faults.json"


@dataclass(slots=True)
class FaultResults:
    figures: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


FOUND: dict[str, FaultResults] = {}


def of(row: str) -> FaultResults:
    return FOUND.setdefault(row, FaultResults())


def record(row: str, figures: FaultFigures | None = None, *, timed: bool = True, **extra: Any) -> None:
    """Figures of one trial; of several trials of a row the worst are kept. Not `timed`: nobody was there to answer."""
    kept = of(row).figures
    for name, value in (asdict(figures) if figures else {}).items():
        if timed or name not in {"worst", "worst_wall"}:
            kept[name] = max(kept.get(name, value), value)
    kept.update(extra)


def write(path: Path = FILE, **about: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {row: asdict(result) for row, result in sorted(FOUND.items())}
    path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
