"""The pages on calls name every way in which one ends, and no other."""

import re
from pathlib import Path
from typing import get_args

from interrogate.tool_call import AnsweredState, EscalateReason

DOCS = Path(__file__).resolve().parents[4] / "docs" / "interrogate"


def test_the_reasons_of_the_page_are_the_codes() -> None:
    """docs/interrogate/mcp-servers.md has a row for each reason."""
    page = (DOCS / "mcp-servers.md").read_text()
    table = page.partition("<!-- table: reasons of a call without an outcome -->")[2].partition(
        "<!-- end of table -->"
    )[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(get_args(EscalateReason))


def test_the_outcomes_of_the_page_are_the_codes() -> None:
    """docs/interrogate/calls.md names each outcome of a row."""
    table = (DOCS / "calls.md").read_text().partition("| `outcome` | What happened |")[2].partition("\n\n")[0]
    named = {
        name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    assert named == {"denied", "pending", *get_args(AnsweredState), *get_args(EscalateReason)}
