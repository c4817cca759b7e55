"""A row of the outbox as the ledger gets it: ids that never change, times and ids in the one form of the wire (D-64)."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from metagate_operator.ledger.witness_receipts import receipt_of, startup_receipt_id
from metagate_store.rows import OutboxRow

STARTUP_ID = UUID("01936d2e-0000-7000-8000-00000000abcd")
TENANT = UUID(int=7)
BODY = {
    "principal_key": "indexer",
    "component_key": "indexer_1",
    "digest": "d" * 64,
    "opened_at": "2026-11-28T02:07:56.12+01:00",  # as a session in another time zone writes it
    "deadline_at": "2026-11-28T01:09:56+00:00",
    "acknowledged_at": "2026-11-28T01:08:00.5+00:00",
}
WIRE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
WIRE_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def row(event: str, **changes: Any) -> OutboxRow:
    facts = {
        "seq": 1,
        "event": event,
        "tenant": None if event == "PUBLISHED" else TENANT,
        "startup_id": None if event == "PUBLISHED" else STARTUP_ID,
        "revision": 3,
        "attempts": 0,
        "body": BODY,
        "created_at": datetime(2026, 11, 28, 2, 8, tzinfo=timezone(timedelta(hours=1))),
    }
    return OutboxRow(**{**facts, **changes})


@pytest.mark.parametrize("event", ["OPEN", "READY", "FAILED", "PUBLISHED"])
def test_times_and_ids_have_one_form(event: str) -> None:
    """RFC 3339 in UTC with Z and microseconds, whatever the database's session wrote; ULIDs in upper case."""
    receipt = receipt_of(row(event))
    times = {
        name: value for part in (receipt, receipt["metadata"]) for name, value in part.items() if name[-3:] == "_at"
    }
    assert times
    assert all(WIRE_TIME.fullmatch(value) for value in times.values()), times
    ids = [value for name, value in receipt.items() if name.endswith("receipt_id")]
    assert all(WIRE_ULID.fullmatch(value) for value in ids), ids


def test_the_moment_stays_the_same() -> None:
    """Another zone is another spelling, not another time."""
    opened, published = receipt_of(row("OPEN")), receipt_of(row("PUBLISHED"))
    assert opened["created_at"] == "2026-11-28T01:07:56.120000Z"
    assert opened["metadata"]["deadline_at"] == "2026-11-28T01:09:56.000000Z"
    assert published["created_at"] == "2026-11-28T01:08:00.000000Z"
    assert datetime.fromisoformat(published["created_at"]) == datetime(2026, 11, 28, 1, 8, tzinfo=UTC)


def test_a_row_is_the_same_receipt_whenever_it_is_sent() -> None:
    """Its id is the startup's and the phase's; what ends it is caused by what opened it."""
    opened, ready = receipt_of(row("OPEN")), receipt_of(row("READY"))
    assert receipt_of(row("OPEN", created_at=datetime.now(UTC))) == opened
    assert ready["caused_by_receipt_id"] == opened["receipt_id"] == startup_receipt_id(STARTUP_ID, "accepted")
    assert ready["receipt_id"] != opened["receipt_id"]
