"""What pages say in passing is what the reference says."""

import re
from pathlib import Path

import pytest
from tests.docs.test_links import PAGES, ROOT

ROW = re.compile(r"^\| (\d{3}) \| `([A-Z_]+)` \|", re.MULTILINE)
STATUSES: dict[str, set[str]] = {}
for status, code in ROW.findall((ROOT / "docs" / "errors.md").read_text()):
    STATUSES.setdefault(code, set()).add(status)
# `CODE` (403), 403 `CODE`, (403 CODE)
BESIDE = re.compile(r"`([A-Z][A-Z_]{4,})` \((\d{3})\)|\b(\d{3}) `?([A-Z][A-Z_]{4,})\b`?")


def mentions(text: str) -> list[tuple[str, str]]:
    """Every code that stands beside a status."""
    return [(code or code_, status or status_) for code, status, status_, code_ in BESIDE.findall(text)]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_code_has_the_status_that_the_reference_gives_it(page: Path) -> None:
    wrong = [
        f"{status} {code}: {sorted(STATUSES[code])}"
        for code, status in mentions((ROOT / page).read_text())
        if code in STATUSES and status not in STATUSES[code]
    ]
    assert wrong == []


def test_codes_are_seen_in_every_form() -> None:
    text = "| `NO_BINDING` (403) | 409 `BINDING_INCOMPLETE` | refused (403 PRINCIPAL_MISMATCH) |"
    assert mentions(text) == [("NO_BINDING", "403"), ("BINDING_INCOMPLETE", "409"), ("PRINCIPAL_MISMATCH", "403")]
    assert STATUSES["PRINCIPAL_MISMATCH"] == {"409"}
