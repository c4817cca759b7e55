"""The tables of `docs/kinds` and `docs/reasons.md`, made from the code. Run as a module, it writes them there."""

import json
import re
from pathlib import Path
from typing import Any

from metagate_crds import reasons
from metagate_crds.kinds import KINDS
from metagate_crds.models import SPECS
from metagate_crds.structural_schema import structural_schema

DOCS = Path(__file__).parents[3] / "docs"


def page_of(kind: str) -> Path:
    return DOCS / "kinds" / f"{KINDS[kind].singular}.md"


def field_table(kind: str) -> str:
    lines = ["| Field | Type | Default | Meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{path}` | {type_} | {default} | {about} |"
        for path, type_, default, about in _fields(structural_schema(SPECS[kind]))
    ]
    return "\n".join(lines)


def condition_table() -> str:
    lines = [f"| `{name}` | {about} |" for name, about in reasons.CONDITIONS.items()]
    return "\n".join(["| Condition | Meaning |", "|---|---|", *lines])


def reason_table() -> str:
    lines = [f"| `{name}` | {about} |" for name, about in reasons.REASONS.items()]
    return "\n".join(["| Reason | Meaning |", "|---|---|", *lines])


def _fields(node: dict[str, Any], prefix: str = "") -> list[tuple[str, str, str, str]]:
    rows: list[tuple[str, str, str, str]] = []
    for name, part in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = "required" if name in node.get("required", []) else _default(part)
        rows.append((path, _type(part), default, part["description"].replace("|", "\\|")))
        if part.get("type") == "array":
            rows += _fields(part["items"], f"{path}[].")
        elif "additionalProperties" in part:
            rows += _fields(part["additionalProperties"], f"{path}.*.")
        else:
            rows += _fields(part, f"{path}.")
    return rows


def _default(part: dict[str, Any]) -> str:
    return f"`{json.dumps(part['default'])}`" if "default" in part else ""


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return " \\| ".join(f"`{item}`" for item in part["enum"])
    if "type" not in part:
        return "any JSON"
    if part["type"] == "array":
        return f"list of {_type(part['items'])}"
    if part.get("x-kubernetes-preserve-unknown-fields"):
        return "free form"
    if "additionalProperties" in part:
        return "map of objects"
    if part["type"] == "integer" and "minimum" in part:
        return f"integer {part['minimum']}…{part['maximum']}"
    return {"string": "text", "boolean": "true or false"}.get(part["type"], part["type"])


def replaced(text: str, table: str) -> str:
    """The text with the table that starts like this one exchanged for it."""
    head = re.escape(table.splitlines()[0])
    return re.sub(rf"{head}\n(\|.*\n)*", lambda _: table + "\n", text)


if __name__ == "__main__":
    for kind in KINDS:
        page = page_of(kind)
        page.write_text(replaced(page.read_text(), field_table(kind)))
    page = DOCS / "reasons.md"
    page.write_text(replaced(replaced(page.read_text(), condition_table()), reason_table()))
