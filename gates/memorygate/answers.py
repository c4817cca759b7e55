"""Receipts as they leave the ledger: the stored bytes as they are, with what the ledger adds spliced in."""

import json
from datetime import datetime
from typing import Any

from memorygate.ledger import Appended, Entry, Open, Outcome, Stored

_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def rendered(value: Any) -> bytes:
    return _ENCODE(value).encode()


def clock(moment: datetime) -> str:
    """RFC 3339 in UTC, always with microseconds: as text it sorts like the time."""
    return f"{moment.isoformat(timespec='microseconds')[:26]}Z"


def shown(stored: Stored) -> bytes:
    """One receipt: its canonical form, and behind it the fields that only the ledger writes."""
    added: dict[str, Any] = {
        "stored_at": clock(stored.stored_at),
        "sha256": stored.digest.hex(),
        "root_task_id": stored.root_task_id,
        "position": stored.position,
        "chain_sha256": stored.chain.hex(),
    }
    if stored.signature is not None:
        key_id, _, value = stored.signature.rpartition(":")
        added["signature"] = {"key_id": key_id, "value": value}
    return stored.body.encode()[:-1] + b"," + rendered(added)[1:]


def shown_open(held: Open) -> bytes:
    facts = {
        "obligation_id": held.obligation_id,
        "kind": held.kind,
        "task_id": held.task_id,
        "principal_ai": held.principal_ai,
        "opened_at": clock(held.opened_at),
        "opened_by": held.opened_by,
        "custody_at": clock(held.custody_at),
        "custody_by": held.moved_by,
        "deadline_at": None if held.due_at is None else clock(held.due_at),
    }
    return rendered(facts)[:-1] + b',"receipt":' + held.body.encode() + b"}"


def listed(items: list[bytes], next_cursor: str | None, **more: Any) -> bytes:
    rest = rendered({"next_cursor": next_cursor, **more})[1:]
    return b'{"items":[' + b",".join(items) + b"]," + rest


def acknowledged(entry: Entry, answer: Appended) -> bytes:
    """What the emitter hears. For a replay under a dedupe_key `receipt_id` is the first receipt's.

    Written by hand, because it is written for every receipt: ids, digests and times need no escape, names do.
    """
    replayed = "true" if answer.outcome is Outcome.REPLAYED else "false"
    return (
        f'{{"receipt_id":"{answer.receipt_id}","tenant_id":"{entry.tenant}","task_id":{_ENCODE(entry.task_id)},'
        f'"obligation_id":{_ENCODE(entry.obligation_id)},"root_task_id":{_ENCODE(answer.root_task_id)},'
        f'"position":{answer.position},"stored_at":"{clock(answer.stored_at)}","sha256":"{entry.digest.hex()}",'
        f'"replayed":{replayed}}}'
    ).encode()
