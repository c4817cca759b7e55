"""POST /v1/evaluate over HTTP: one decision, one receipt, one answer."""

import hashlib
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import (
    OPEN_POLICY,
    GateClient,
    PublishedWorld,
    Requesting,
    serving_interrogate,
)


@pytest_asyncio.fixture(loop_scope="session")
async def gate(admission_database: AdmissionDatabase) -> AsyncIterator[GateClient]:
    """A gate with a tenant of this test's own."""
    async with serving_interrogate(PublishedWorld(admission_database)) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def alice(gate: GateClient) -> Requesting:
    principal = gate.world.principal("alice")
    await gate.world.publish(principal, policies={"strict": OPEN_POLICY})
    return await gate.awaited(gate.requesting(principal))


@pytest.mark.invariant("INV-098", "INV-108")
async def test_a_root_and_its_child_are_admitted_and_each_is_one_receipt(gate: GateClient, alice: Requesting) -> None:
    body = alice.envelope()
    answer = await alice.evaluate(body)
    assert answer.status_code == 200, answer.text
    root = answer.json()
    assert (root["outcome"], root["task_id"], root["depth"]) == ("ALLOW", body["causality"]["root_task_id"], 0)
    answer = await alice.evaluate(alice.child(root))
    assert answer.status_code == 200, answer.text
    child = answer.json()
    assert (child["parent_task_id"], child["depth"]) == (root["task_id"], 1)
    receipts = await gate.receipts()
    assert [receipt["receipt_id"] for receipt in receipts] == [root["receipt_id"], child["receipt_id"]]
    assert {receipt["phase"] for receipt in receipts} == {"accepted"}
    payload = json.dumps(body["payload"]).encode()
    assert receipts[0]["body"]["payload_sha256"] == hashlib.sha256(payload).hexdigest()
    assert "hello" not in json.dumps(receipts)


async def test_a_refusal_is_a_decision_with_a_receipt(gate: GateClient, alice: Requesting) -> None:
    answer = await alice.evaluate(alice.envelope(causality={"capability_id": "mail.send"}))
    assert answer.status_code == 403
    decision = answer.json()
    assert (decision["outcome"], decision["reason_code"]) == ("DENY", "CAPABILITY_DENIED")
    [receipt] = await gate.receipts()
    assert (receipt["phase"], receipt["receipt_id"]) == ("rejected", decision["receipt_id"])
    assert receipt["task_id"] == receipt["receipt_id"]
