"""What the witness record looks like at the ledger (D-04, D-34, D-50). Pure: a row of the outbox in, a receipt out.

Ids and content come from the row alone, so that sending a row twice sends the same receipt twice, which the ledger
answers with the first one. A release that changes what is sent of a row must keep the form of the release before, and
the relay tries it where the ledger has another receipt under the id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from ulid import ULID

from legivellum.base.timestamps import rfc3339
from metagate_store.rows import OutboxRow

STARTUP = "startup"


TimeSpelling = Callable[[str], str]
"""How a time of an outbox row is written in its receipt."""


def wire_time(text: str) -> str:
    """PostgreSQL writes a time into JSON in the session's zone and without trailing zeros; on the wire there is one
    form (D-64).
    """
    return rfc3339(datetime.fromisoformat(text))


def time_as_written(text: str) -> str:
    """As releases before D-64 sent it. The ledger may have a receipt of this form whose row is still in the outbox,
    when the relay of such a release ended between the ledger's answer and its own commit.
    """
    return text


def receipt_of(row: OutboxRow, time: TimeSpelling = wire_time) -> dict[str, Any]:
    """The receipt of one outbox row. Emitter, and tenant where it is not named, are the credential's."""
    if row.event == "PUBLISHED":
        return _published(row, time)
    assert row.startup_id is not None
    assert row.tenant is not None
    about = {
        "kind": STARTUP,
        "tenant_id": str(row.tenant),
        "task_id": str(row.startup_id),
        "principal_ai": row.body["principal_key"],
        "recipient_ai": row.body["principal_key"],
        "task_type": STARTUP,
    }
    return {**about, **(_opened if row.event == "OPEN" else _ended)(row, row.startup_id, time)}


def startup_receipt_id(startup_id: UUID, phase: str) -> str:
    """The receipt of a startup's phase has one id for ever: the startup's own time, and a digest of both."""
    digest = hashlib.sha256(f"{startup_id}/{phase}".encode()).digest()
    return str(ULID.from_bytes(startup_id.bytes[:6] + digest[:10]))


def _opened(row: OutboxRow, startup_id: UUID, time: TimeSpelling) -> dict[str, Any]:
    return {
        "receipt_id": startup_receipt_id(startup_id, "accepted"),
        "phase": "accepted",
        "task_summary": f"{row.body['component_key']} starts"[:500],
        "created_at": time(row.body["opened_at"]),
        "metadata": {**_metadata(row), "deadline_at": time(row.body["deadline_at"])},
    }


def _ended(row: OutboxRow, startup_id: UUID, time: TimeSpelling) -> dict[str, Any]:
    report: Mapping[str, Any] = row.body.get("report") or {}
    ended = {
        "receipt_id": startup_receipt_id(startup_id, "complete"),
        "phase": "complete",
        "caused_by_receipt_id": startup_receipt_id(startup_id, "accepted"),
        "created_at": time(row.body["acknowledged_at"]),
        "completed_at": time(row.body["acknowledged_at"]),
        "metadata": {**_metadata(row), "late": bool(row.body.get("late"))},
        "body": dict(report) or None,
    }
    if row.event == "READY":
        return {**ended, "status": "success", "outcome_kind": "none"}
    return {
        **ended,
        "status": "failure",
        "outcome_kind": "response_text",
        "outcome_text": report.get("error") or "no error was told",
    }


def _metadata(row: OutboxRow) -> dict[str, Any]:
    body = row.body
    pod = {"pod": body["pod"]} if "pod" in body else {}
    return {
        "component_key": body["component_key"],
        "packet_digest": body["digest"],
        "revision": row.revision,
        **pod,
    }


def _published(row: OutboxRow, time: TimeSpelling) -> dict[str, Any]:
    digest = hashlib.sha256(f"revision/{row.revision}".encode()).digest()
    moment = int(row.created_at.timestamp() * 1000).to_bytes(6, "big")
    return {
        "receipt_id": str(ULID.from_bytes(moment + digest[:10])),
        "kind": "lifecycle",
        "phase": "published",
        "task_id": f"revision-{row.revision}",
        "principal_ai": "metagate",
        "task_type": "publish",
        "created_at": time(row.created_at.isoformat()),
        "metadata": {"revision": row.revision},
        "body": dict(row.body) or None,
    }
