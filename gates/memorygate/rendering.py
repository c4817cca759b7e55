"""Receipts as they leave the ledger: the stored bytes as they are, with what the ledger adds spliced in."""

from json.encoder import encode_basestring
from typing import Any

from legivellum.base.timestamps import rfc3339
from legivellum.http import strict_json
from memorygate.ledger import Appended, Entry, Open, Outcome, Stored


def render_receipt(stored: Stored) -> bytes:
    """One receipt: its canonical form, and behind it the fields that only the ledger writes."""
    added: dict[str, Any] = {
        "stored_at": rfc3339(stored.stored_at),
        "sha256": stored.digest.hex(),
        "root_task_id": stored.root_task_id,
        "position": stored.position,
        "chain_sha256": stored.chain.hex(),
    }
    if stored.signature is not None:
        key_id, _, value = stored.signature.rpartition(":")
        added["signature"] = {"key_id": key_id, "value": value}
    return stored.body.encode()[:-1] + b"," + strict_json.encode(added)[1:]


def render_obligation(obligation: Open) -> bytes:
    facts = {
        "obligation_id": obligation.obligation_id,
        "kind": obligation.kind,
        "task_id": obligation.task_id,
        "principal_ai": obligation.principal_ai,
        "opened_at": rfc3339(obligation.opened_at),
        "opened_by": obligation.opened_by,
        "custody_at": rfc3339(obligation.custody_at),
        "custody_by": obligation.moved_by,
        "deadline_at": None if obligation.due_at is None else rfc3339(obligation.due_at),
    }
    return strict_json.encode(facts)[:-1] + b',"receipt":' + obligation.body.encode() + b"}"


def render_acknowledgement(entry: Entry, answer: Appended) -> bytes:
    """What the emitter hears. For a replay under a dedupe_key `receipt_id` is the first receipt's.

    Written by hand, because it is written for every receipt: ids, digests and times need no escape, names do.
    """
    replayed = "true" if answer.outcome is Outcome.REPLAYED else "false"
    return (
        f'{{"receipt_id":"{answer.receipt_id}","tenant_id":"{entry.tenant}","task_id":{encode_basestring(entry.task_id)},'
        f'"obligation_id":{encode_basestring(entry.obligation_id)},"root_task_id":{encode_basestring(answer.root_task_id)},'
        f'"position":{answer.position},"stored_at":"{rfc3339(answer.stored_at)}","sha256":"{entry.digest.hex()}",'
        f'"replayed":{replayed}}}'
    ).encode()
