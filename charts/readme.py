#!/usr/bin/env python3
"""Write the table of values into each chart's README.md from the comments in values.yaml; `--check` only compares."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHARTS = tuple(
    Path(__file__).parent / name
    for name in (
        "legivellum",
        "metagate",
        "memorygate",
        "interrogate",
        "asyncgate",
        "depotgate",
        "delegate",
        "cognigate",
    )
)
BEGIN, END = "<!-- values: written by charts/readme.py -->\n", "<!-- /values -->\n"


class ValueRow(NamedTuple):
    path: str
    default: str
    says: str


def rows(text: str) -> list[ValueRow]:
    """One row per leaf: a scalar, a list, or a mapping without any comment inside."""
    return list(_leaves(yaml.compose(text), text.splitlines(), ""))


def _leaves(node: yaml.Node | None, lines: list[str], prefix: str) -> Iterator[ValueRow]:
    assert isinstance(node, yaml.MappingNode)
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        if _is_section(value, lines):
            yield from _leaves(value, lines, f"{path}.")
        else:
            default = json.dumps(yaml.safe_load(yaml.serialize(value)), separators=(", ", ": "))
            yield ValueRow(path, default, _comment(lines, key))


def _is_section(node: yaml.Node, lines: list[str]) -> bool:
    return isinstance(node, yaml.MappingNode) and any(
        _comment(lines, key) or _is_section(value, lines) for key, value in node.value
    )


def _comment(lines: list[str], key: yaml.Node) -> str:
    """The comment lines right above a key that stands at the start of its line."""
    at = key.start_mark.line
    if lines[at][: key.start_mark.column].strip():
        return ""
    found: list[str] = []
    while at and (match := re.match(r"\s*# (.*)", lines[at - 1])):
        found.insert(0, match[1])
        at -= 1
    return " ".join(found)


def table(found: list[ValueRow]) -> str:
    parts = []
    for section in dict.fromkeys(row.path.split(".")[0] if "." in row.path else "" for row in found):
        inside = [row for row in found if (row.path.split(".")[0] if "." in row.path else "") == section]
        parts.append(f"### {f'`{section}`' if section else 'General'}\n\n| Value | Default | |\n|---|---|---|\n")
        parts += [f"| `{row.path}` | `{row.default}` | {row.says.replace('|', '&#124;')} |\n" for row in inside]
        parts.append("\n")
    return "".join(parts)


def written(chart: Path) -> str:
    """What the chart's README.md has to be."""
    before, rest = (chart / "README.md").read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + table(rows((chart / "values.yaml").read_text(encoding="utf-8"))) + END + after


def main() -> int:
    drifted = [chart for chart in CHARTS if (chart / "README.md").read_text(encoding="utf-8") != written(chart)]
    if "--check" in sys.argv:
        return int(bool(drifted))
    for chart in drifted:
        (chart / "README.md").write_text(written(chart), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
