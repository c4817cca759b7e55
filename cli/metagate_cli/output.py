"""How answers are printed: as a table, a wide table, JSON or YAML; the same four words at every command.

What other people declared is printed as text and as nothing else: no escape sequence reaches the terminal, and no mark
that reverses the direction of text.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from itertools import zip_longest
from typing import Annotated, Any, Final

import typer

from metagate_cli.terminal import colored

VALUE_LIMIT: Final = 400
NO_LIMIT: Final = sys.maxsize
"""The width of a table that is not folded: `-o wide`, which is made to be searched."""
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class OutputFormat(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def structured(self) -> bool:
        """Whether a program reads it."""
        return self in {OutputFormat.JSON, OutputFormat.YAML}


OutputOption = Annotated[
    OutputFormat, typer.Option("--output", "-o", help="wide leaves nothing out; json and yaml are for programs.")
]
_COLUMN_GAP: Final = "  "


def structured(value: Any, output: OutputFormat) -> str:
    """JSON or YAML. YAML is kept to ASCII, so that no name or value does anything but be read."""
    if output is OutputFormat.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False)).rstrip("\n")
    return json.dumps(value, indent=2)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns as wide as their longest cell. Cells must be plain text already (`safe_text`).

    On a terminal, or with a `width`, no line is longer than that: cells go on in the next line between two words, and
    where even that does not fit, each row is a block with a line for every cell. So the terminal has no word to break.
    """
    if width is None and sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
    widths = [max(map(_cell_width, column)) for column in zip(headings, *rows, strict=True)]
    if width is not None and _total(widths) > width:
        fitting = _fit(widths, [max(map(_word_width, column)) for column in zip(headings, *rows, strict=True)], width)
        if fitting is None:
            return "\n\n".join("\n".join(_block(headings, row)) for row in rows)
        columns = zip(zip(headings, *rows, strict=True), fitting, strict=True)
        widths = [max(_cell_width(part) for cell in cells for part in _wrap_cell(cell, fit)) for cells, fit in columns]
    first, *rest = [_wrap(row, widths) for row in (headings, *rows)]
    return "\n".join([*(colored(line, "bold") for line in first), *(line for lines in rest for line in lines)])


def _cell_width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _word_width(text: str) -> int:
    return max(map(_cell_width, text.split() or [""]))


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + len(_COLUMN_GAP) * (len(widths) - 1)


def _fit(widths: Sequence[int], narrowest: Sequence[int], width: int) -> list[int] | None:
    """Take from the widest column that has something to give until the line fits; None when no word may be broken."""
    fitting = list(widths)
    while (excess := _total(fitting) - width) > 0:
        column = max(range(len(fitting)), key=lambda index: (fitting[index] - narrowest[index], fitting[index]))
        if fitting[column] == narrowest[column]:
            return None
        fitting[column] -= min(excess, max(1, (fitting[column] - narrowest[column]) // 2))
    return fitting


def _wrap(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    """One row as the lines it takes."""
    cells = [_wrap_cell(cell, width) for cell, width in zip(row, widths, strict=True)]
    return [
        _COLUMN_GAP.join(
            part + " " * (width - _cell_width(part)) for part, width in zip(parts, widths, strict=True)
        ).rstrip()
        for parts in zip_longest(*cells, fillvalue="")
    ]


def _wrap_cell(text: str, width: int) -> list[str]:
    if _cell_width(text) <= width:
        return [text]
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines[-1] else word
        if _cell_width(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines


def _block(headings: Sequence[str], row: Sequence[str]) -> list[str]:
    """A row of a table that is too wide: its cells below each other."""
    widest = max(map(len, headings))
    return [f"{colored(f'{heading:{widest}}', 'bold')}  {cell}" for heading, cell in zip(headings, row, strict=True)]


def safe_text(text: object) -> str:
    """One line in which everything that a terminal could obey is spelt as an escape."""
    return "".join(
        char if char.isprintable() and unicodedata.category(char) not in _UNSAFE else _escape(char)
        for char in str(text)
    )


def json_line(value: Any, limit: int | None = VALUE_LIMIT) -> str:
    """A value as JSON in one line, cut when it is longer; None: never."""
    text = safe_text(json.dumps(value, ensure_ascii=False))
    return text if limit is None or len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"


def code_block(lines: Sequence[str], language: str) -> list[str]:
    """Lines as a block of Markdown that they cannot leave."""
    runs = [len(run) for line in lines for run in "".join(c if c == "`" else " " for c in line).split()]
    fence = "`" * max(3, *(run + 1 for run in runs), 3)
    return [f"{fence}{language}", *lines, fence]


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
