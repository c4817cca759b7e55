"""What `legivellum usage` sums, and what it refuses to take for a count."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer

from metagate_cli.output import OutputFormat
from metagate_cli.usage import UsageReport, moment, show_report


def receipt(usage: Any, **members: Any) -> dict[str, Any]:
    return {"phase": "complete", "principal_ai": "alice", "metadata": {"usage": usage}, **members}


def report_of(*receipts: dict[str, Any]) -> dict[str, Any]:
    report = UsageReport()
    for item in receipts:
        report.add(item)
    return report.document()


def test_sums_by_principal_and_model() -> None:
    document = report_of(
        receipt({"model": "small", "calls": 2, "prompt_tokens": 100, "seconds": 0.1, "tools": {"docs/read": 2}}),
        receipt({"model": "small", "calls": 1, "completion_tokens": 7, "seconds": 0.2, "tools": {"docs/read": 1}}),
        receipt({"model": "large", "calls": 1}),
        receipt({"calls": 1}, principal_ai="bob"),
    )
    assert [(item["principal_ai"], item["model"], item["ends"], item["calls"]) for item in document["items"]] == [
        ("alice", "large", 1, 1),
        ("alice", "small", 2, 3),
        ("bob", None, 1, 1),
    ]
    assert document["items"][1]["tools"] == {"docs/read": 3}
    assert document["total"] == {
        "ends": 4, "calls": 5, "prompt_tokens": 100, "cached_tokens": 0, "completion_tokens": 7, "seconds": 0.3,
        "tools": {"docs/read": 3},
    }  # fmt: skip
    assert (document["receipts"], document["unclear"]) == (4, 0)


@pytest.mark.parametrize("value", [-1, True, "7", None, [1], 10**13, float("nan"), float("inf")], ids=repr)
def test_what_is_no_count_is_not_summed(value: object) -> None:
    """The rest of that usage is; the receipt is counted among the unclear."""
    document = report_of(receipt({"calls": value, "prompt_tokens": 5}), receipt({"calls": 1, "tools": {"a/b": value}}))
    assert (document["total"]["calls"], document["total"]["prompt_tokens"]) == (1, 5)
    assert document["total"]["tools"] == {}
    assert document["unclear"] == 2


def test_receipts_that_say_no_cost() -> None:
    """Other phases, no metadata, and a usage that is no object."""
    document = report_of(
        receipt({"calls": 1}, phase="escalate"),
        {"phase": "complete", "principal_ai": "alice"},
        receipt([1]),
        receipt({"calls": 1, "tools": 5}),
    )
    assert (document["receipts"], document["total"]["ends"], document["unclear"]) == (4, 1, 2)


def test_a_time_or_a_length() -> None:
    assert moment("2027-01-31T12:00:00+02:00") == datetime(2027, 1, 31, 10, tzinfo=UTC)
    assert abs(datetime.now(UTC) - timedelta(days=7) - moment("7d")) < timedelta(minutes=1)
    for text in ("2027-01-31T12:00:00", "yesterday", "0d", ""):
        with pytest.raises(typer.BadParameter):
            moment(text)


def test_the_table_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines fit 80 columns."""
    report = UsageReport()
    for number, model, calls in ((2, "builtin/extract-1", 1), (2, "small", 2), (1, "small", 1)):
        for _ in range(number):
            costs = {"prompt_tokens": 4_100, "cached_tokens": 700, "completion_tokens": 300, "seconds": 10.5}
            free = {"seconds": 0.125}
            report.add(receipt({"model": model, "calls": calls, **(costs if model == "small" else free)}))
    show_report(report, OutputFormat.TABLE)
    lines = capsys.readouterr().out.splitlines()
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
    assert "\n".join(lines) in page
    assert max(map(len, lines)) <= 80
