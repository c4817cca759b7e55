"""Receipts of the LegiVellum schema 1.1, with all of its 43 fields, over HTTP (D-69)."""

import hashlib
from typing import Any

import pytest
from tests.integration.memorygate.conftest import LedgerDatabase, RunningLedger, new_id

from legivellum.base.canonical_json import canonical
from memorygate.verifying import verify


def receipt_of_schema_v1(gate: RunningLedger, **fields: Any) -> dict[str, Any]:
    receipt = {
        "schema_version": "1.1", "tenant_id": str(gate.tenant), "receipt_id": new_id(), "task_id": "t", "obligation_id": "o",
        "parent_task_id": "NA", "caused_by_receipt_id": "NA", "dedupe_key": "NA", "attempt": 0, "from_principal": "alice",
        "for_principal": "bob", "source_system": "alice", "recipient_ai": "alice", "trust_domain": "NA", "phase": "accepted",
        "status": "NA", "realtime": False, "task_type": "NA", "task_summary": "Draft it", "task_body": "NA", "inputs": {},
        "expected_outcome_kind": "artifact_pointer", "expected_artifact_mime": "application/json", "outcome_kind": "NA",
        "outcome_text": "NA", "artifact_location": "NA", "artifact_pointer": "NA", "artifact_checksum": "NA",
        "artifact_size_bytes": 0, "artifact_mime": "NA", "artifact_refs": ["depot:1"], "escalation_class": "NA",
        "escalation_reason": "NA", "escalation_to": "NA", "retry_requested": False, "body": {"note": "x"},
        "created_at": "2026-01-04T17:00:00Z", "stored_at": None, "started_at": None, "completed_at": None, "read_at": None,
        "archived_at": None, "metadata": {},
    }  # fmt: skip
    assert len(receipt) == 43
    return {**receipt, **fields}


COMPLETION = {
    "phase": "complete", "status": "success", "outcome_kind": "artifact_pointer", "artifact_location": "s3",
    "artifact_pointer": "bucket/draft.json", "artifact_mime": "application/json", "artifact_size_bytes": 12,
    "completed_at": "2026-01-04T18:00:00Z", "body": None,
}  # fmt: skip
ADDED_BY_THE_LEDGER = {"stored_at", "sha256", "root_task_id", "position", "chain_sha256"}


@pytest.mark.invariant("INV-043")
async def test_an_obligation_of_schema_v1_is_opened_and_closed(gate: RunningLedger, ledger_database: LedgerDatabase):
    """Accepted as they are, stored once in the ledger's form, shown with their own fields, and the chain verifies."""
    alice = gate.peer()
    opened = receipt_of_schema_v1(gate)
    answer = await alice.post(opened)
    assert (answer.status_code, answer.json()["receipt_id"]) == (201, opened["receipt_id"]), answer.text
    assert await alice.inbox() == ["o"]
    again = await alice.post(opened)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    shown = (await alice.get(f"/receipts/{opened['receipt_id']}")).json()
    form = {name: value for name, value in shown.items() if name not in ADDED_BY_THE_LEDGER}
    assert hashlib.sha256(canonical(form)).hexdigest() == shown["sha256"] == answer.json()["sha256"]
    assert (form["emitter"], form["principal_ai"], form["for_principal"]) == ("alice", "alice", "bob")
    assert form["created_at"] == "2026-01-04T17:00:00Z"  # what is sent is kept as it was sent
    assert form["body"] == {
        "note": "x", "schema_version": "1.1", "realtime": False, "expected_outcome_kind": "artifact_pointer",
        "expected_artifact_mime": "application/json", "artifact_refs": ["depot:1"],
    }  # fmt: skip
    assert not form.keys() & {"source_system", "from_principal", "schema_version", "parent_task_id", "read_at"}
    # The form that is shown is the same receipt too.
    assert (await alice.post(form)).status_code == 200

    closed = receipt_of_schema_v1(gate, caused_by_receipt_id=opened["receipt_id"], **COMPLETION)
    answer = await alice.post({"receipts": [closed]}, "/receipts/batch")
    assert [item["status"] for item in answer.json()["items"]] == [201], answer.text
    assert await alice.inbox() == []
    assert (await verify(ledger_database.auditor)).bad is None


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"source_system": "bob"}, 403, "EMITTER_MISMATCH"),
        ({"emitter": "bob"}, 422, "INVALID_RECEIPT"),
        ({"principal_ai": "bob"}, 422, "INVALID_RECEIPT"),
        ({"schema_version": "2.0"}, 422, "INVALID_RECEIPT"),
        ({"read_at": "2026-01-04T17:00:00Z"}, 422, "INVALID_RECEIPT"),
        ({"body": "text"}, 422, "INVALID_RECEIPT"),
        ({"body": {"artifact_refs": []}}, 422, "INVALID_RECEIPT"),
        ({"recipient_ai": "NA"}, 422, "INVALID_RECEIPT"),
        ({"surprise": 1}, 422, "INVALID_RECEIPT"),
    ],
)
async def test_a_contradiction_in_schema_v1_is_refused(
    gate: RunningLedger, changed: dict[str, Any], status: int, code: str
):
    """As anywhere (D-07), alone and in a batch, and nothing is stored."""
    alice = gate.peer()
    receipt = receipt_of_schema_v1(gate, **changed)
    answer = await alice.post(receipt)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    [item] = (await alice.post({"receipts": [receipt]}, "/receipts/batch")).json()["items"]
    assert (item["status"], item["code"]) == (status, code)
    assert (await alice.get("/receipts/task/t")).json()["items"] == []
