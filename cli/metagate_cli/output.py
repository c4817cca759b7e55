"""How answers are printed: as a table, a wide table, JSON or YAML; the same four words at every command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Final

import typer

from metagate_cli.terminal import painted


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def structured(self) -> bool:
        """Whether a program reads it."""
        return self in {Output.JSON, Output.YAML}


Printed = Annotated[
    Output, typer.Option("--output", "-o", help="wide leaves nothing out; json and yaml are for programs.")
]
_BETWEEN: Final = "  "


def structured(value: Any, output: Output) -> str:
    """JSON or YAML. YAML is kept to ASCII, so that no name or value does anything but be read."""
    if output is Output.YAML:
        import yaml

        return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=False)).rstrip("\n")
    return json.dumps(value, indent=2)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what stands in them. Cells must be plain text already (`metagate_cli.plain`)."""
    from rich.cells import cell_len

    widths = [max(map(cell_len, column)) for column in zip(headings, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        return _BETWEEN.join(padded).rstrip()

    return "\n".join([painted(line(headings), "bold"), *map(line, rows)])
