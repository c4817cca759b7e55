#!/usr/bin/env python3
"""Write each alert's severity, text and expression into its page of docs/runbooks; `--check` only compares."""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
ALERTS = tuple(
    ROOT / "charts" / chart / "files" / "alerts.yaml"
    for chart in ("metagate", "interrogate", "asyncgate", "depotgate", "delegate", "cognigate")
)
BEGIN, END = "<!-- alert: written by charts/runbooks.py -->\n", "<!-- /alert -->\n"


def rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in ALERTS]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def section(rule: dict[str, Any]) -> str:
    """Severity, what the notification says, and the expression that was true."""
    notes = rule["annotations"]
    lasting = f", after {rule['for']}" if "for" in rule else ""
    return (
        f"{BEGIN}**Severity:** {rule['labels']['severity']}{lasting}.\n\n"
        f"**The notification says:** {notes['summary']} {notes['description']}\n\n"
        f"```promql\n{rule['expr'].strip()}\n```\n{END}"
    )


def written(page: str, rule: dict[str, Any]) -> str:
    """The page with its section, which stands below the title."""
    if BEGIN in page:
        before, rest = page.split(BEGIN)
        return before + section(rule) + rest.split(END)[1]
    title, rest = page.split("\n", 1)
    return f"{title}\n\n{section(rule)}{rest}"


def main() -> int:
    drifted = {}
    for rule in rules():
        path = ROOT / "docs" / "runbooks" / f"{rule['alert']}.md"
        page = path.read_text(encoding="utf-8")
        if (new := written(page, rule)) != page:
            drifted[path] = new
    if "--check" in sys.argv:
        return int(bool(drifted))
    for path, new in drifted.items():
        path.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
