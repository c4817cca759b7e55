"""The tables of the documentation say what the code does: regenerate with `python -m tests.unit.http.test_documents`."""

from pathlib import Path

import pytest

from legivellum.http.problem_codes import MEANINGS, Code
from metagate_api import metrics
from metagate_api.endpoints import ENDPOINTS
from metagate_api.settings import Settings, names

DOCS = Path(__file__).resolve().parents[3] / "docs"
BEGIN, END = "<!-- table: from the code -->", "<!-- end of table -->"


def errors() -> list[str]:
    rows = sorted(MEANINGS.items(), key=lambda item: item[1].status)
    return [
        "| Status | Code | Title | When |",
        "|---|---|---|---|",
        *[f"| {says.status} | `{code}` | {says.title} | {says.when} |" for code, says in rows],
    ]


def endpoints() -> list[str]:
    lines = ["| Endpoint | Who | Purpose | Answers | Codes |", "|---|---|---|---|---|"]
    for one in ENDPOINTS:
        replies = ", ".join(str(reply.status) for reply in one.replies)
        codes = " ".join(f"`{code}`" for code in dict.fromkeys(one.codes)) or "–"
        lines.append(f"| `{one.method} {one.path}` | {one.auth} | {one.summary} | {replies} | {codes} |")
    return lines


def settings() -> list[str]:
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        default = field.default
        shown = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        shown = "(unset)" if shown is None else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
        lines.append(f"| {', '.join(f'`{name}`' for name in names(field))} | {shown} | {field.description} |")
    return lines


def counted() -> list[str]:
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in sorted(
        (value for value in vars(metrics).values() if hasattr(value, "_documentation")), key=lambda one: one._name
    ):
        name = family._name + ("_total" if family._type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in family._labelnames) or "–"
        lines.append(f"| `{name}` | {family._type} | {labels} | {family._documentation} |")
    return lines


TABLES = {"errors.md": errors, "api.md": endpoints, "settings.md": settings, "metrics.md": counted}


def split(page: str) -> tuple[str, str, str]:
    before, rest = page.split(BEGIN)
    table, after = rest.split(END)
    return before, table.strip(), after


@pytest.mark.parametrize("name", TABLES)
def test_table_is_the_codes(name: str) -> None:
    """The page's table is exactly what the code says."""
    assert split((DOCS / name).read_text())[1].splitlines() == TABLES[name]()


def test_every_code_has_one_meaning() -> None:
    """The enumeration is closed: each code has a status, a title and a use; 500 is never documented as an answer."""
    assert set(MEANINGS) == set(Code)
    documented = {code for one in ENDPOINTS for code in one.all_codes}
    assert Code.INTERNAL_ERROR not in documented
    assert {says.status for says in MEANINGS.values() if says.status >= 500} == {500, 503}


if __name__ == "__main__":
    for name, table in TABLES.items():
        path = DOCS / name
        before, _, after = split(path.read_text())
        path.write_text(f"{before}{BEGIN}\n" + "\n".join(table()) + f"\n{END}{after}")
