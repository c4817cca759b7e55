"""What a benchmark says while it runs: a line for each step, a table when a part is done."""

import sys
import time
from collections.abc import Sequence

STARTED = time.perf_counter()


def step(text: str) -> None:
    """Progress, on stderr, with the seconds since the start."""
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {text}", file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], note: str = "") -> None:
    """On stdout; the first column is text, the others are figures."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    print(f"\n{title}")
    for number, row in enumerate(cells):
        print("  " + "  ".join(_justified(text, widths[at], at) for at, text in enumerate(row)).rstrip())
        if number == 0:
            print("  " + "  ".join("─" * width for width in widths))
    if note:
        print(f"  {note}")
    print(flush=True)


def _justified(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column == 0 else text.rjust(width)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
