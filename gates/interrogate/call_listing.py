"""`interrogate calls`: the rows of `GET /v1/calls` as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Final

COLUMNS: Final = (
    "at",
    "principal_key",
    "problemata",
    "tool",
    "outcome",
    "reason_code",
    "duration_us",
    "task_id",
    "admission_receipt_id",
    "outcome_receipt_id",
    "arguments_sha256",
    "arguments_bytes",
    "result_sha256",
    "result_bytes",
)
_SHOWN: Final = ("at", "principal_key", "problemata", "tool", "outcome", "duration_us", "admission_receipt_id")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class CallFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def listing(calls: Iterable[Mapping[str, Any]], form: CallFormat) -> Iterator[str]:
    """The lines to print."""
    if form is CallFormat.JSON:
        yield json.dumps(list(calls), indent=2)
    elif form is CallFormat.CSV:
        yield _csv(COLUMNS)
        for call in calls:
            yield _csv([_cell(call[name]) for name in COLUMNS])
    else:
        yield from _table(list(calls))


def _table(calls: list[Mapping[str, Any]]) -> Iterator[str]:
    rows = [[name.upper() for name in _SHOWN], *([_printable(call[name]) for name in _SHOWN] for call in calls)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _printable(value: object) -> str:
    """Names come from declarations: no escape sequence of one reaches a terminal."""
    text = "-" if value is None else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def _cell(value: object) -> str:
    """A spreadsheet would run what begins like a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(values: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()
