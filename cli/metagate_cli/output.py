"""How answers are printed: as a table, a wide table, JSON or YAML; the same four words at every command.

What other people declared is printed as text and as nothing else: no escape sequence reaches the terminal, and no mark
that reverses the direction of text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from metagate_cli.terminal import colored

VALUE_LIMIT: Final = 400
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def structured(self) -> bool:
        """Whether a program reads it."""
        return self in {Output.JSON, Output.YAML}


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="wide leaves nothing out; json and yaml are for programs.")
]
_COLUMN_GAP: Final = "  "


def structured(value: Any, output: Output) -> str:
    """JSON or YAML. YAML is kept to ASCII, so that no name or value does anything but be read."""
    if output is Output.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False)).rstrip("\n")
    return json.dumps(value, indent=2)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest cell. Cells must be plain text already (`safe_text`)."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        return _COLUMN_GAP.join(padded).rstrip()

    return "\n".join([colored(line(headings), "bold"), *map(line, rows)])


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
