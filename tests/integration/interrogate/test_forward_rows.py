"""Targets of a decision: pending with the commit, settled once, one escalate receipt for what failed (IG-09)."""

import asyncio
import json
from typing import Any

import pytest
from tests.integration.interrogate.conftest import (
    EMITTER,
    AdmissionDatabase,
    AdmissionTree,
    begin,
    decide_one,
)
from tests.integration.memorygate.conftest import new_id, rows

from interrogate.database import InterrogateDatabase
from interrogate.forwards import ForwardRow, ForwardSettlement
from interrogate.observation import ObservationRequest
from legivellum.receipts.receipt import Receipt, examine


def escalation(request: ObservationRequest, to: str = "alice") -> str:
    sent = {
        "receipt_id": new_id(), "kind": "admission", "phase": "escalate", "task_id": request.task_id, "principal_ai": "alice",
        "escalation_class": "other", "escalation_reason": "A target was not reached.", "escalation_to": to,
        "caused_by_receipt_id": request.receipt_id,
    }  # fmt: skip
    receipt = examine(sent, tenant=str(request.tenant), emitter=EMITTER)
    assert isinstance(receipt, Receipt), receipt
    return receipt.form.decode()


async def admit(database: InterrogateDatabase, *targets: str, **fields: Any) -> ObservationRequest:
    tree = AdmissionTree()
    await begin(database, tree)
    request = tree.request()
    assert (await decide_one(database, request, forwards=targets, **fields)).outcome == "STORED"
    return request


async def escalations(database: AdmissionDatabase, request: ObservationRequest) -> list[str]:
    ids = await rows(
        database.superuser,
        "SELECT receipt_id FROM memorygate.receipt WHERE tenant = $1 AND phase = 'escalate'", request.tenant,
    )  # fmt: skip
    return [receipt_id for (receipt_id,) in ids]


def settlement(request: ObservationRequest, *results: ForwardRow, escalated: str | None = None) -> ForwardSettlement:
    return ForwardSettlement(request.tenant, request.receipt_id, results, escalated)


async def test_targets_are_pending_until_they_are_settled(admissions: InterrogateDatabase):
    """With what they answered; of a purged row the caller's own word is answered."""
    request = await admit(admissions, "b", "a")
    assert await admissions.forwards(request.tenant, request.receipt_id) == [
        ForwardRow("a", "pending"), ForwardRow("b", "pending"),
    ]  # fmt: skip
    delivered = ForwardRow("a", "delivered", 200, None, {"done": [True, None]})
    [settled] = await admissions.settle_forwards([settlement(request, delivered)])
    assert (settled.forwards, settled.escalation_receipt_id, settled.refusal) == ((delivered,), None, None)
    assert await admissions.forwards(request.tenant, request.receipt_id) == [delivered, ForwardRow("b", "pending")]
    unknown = ForwardRow("c", "delivered", 204)
    [settled] = await admissions.settle_forwards([settlement(request, unknown)])
    assert settled.forwards == (unknown,)


@pytest.mark.invariant("INV-118")
async def test_a_decision_is_escalated_once_however_many_targets_fail(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Two together, a third later, and all of it again: one receipt, which all three name."""
    request = await admit(admissions, "a", "b", "c", "d")
    body = escalation(request)
    escalation_id = json.loads(body)["receipt_id"]
    failed = [ForwardRow(name, "failed", None, "TIMEOUT") for name in "abc"]
    first = settlement(request, failed[0], ForwardRow("d", "delivered", 200), failed[1], escalated=body)
    later = settlement(request, failed[2], escalated=escalation(request))
    for again in (first, later, first, later):
        [settled] = await admissions.settle_forwards([again])
        assert settled.escalation_receipt_id == escalation_id
    assert await escalations(admission_database, request) == [escalation_id]
    states = {
        row.target: (row.state, row.escalation_receipt_id)
        for row in await admissions.forwards(request.tenant, request.receipt_id)
    }
    assert states == {**dict.fromkeys("abc", ("failed", escalation_id)), "d": ("delivered", None)}


@pytest.mark.invariant("INV-118")
async def test_what_was_settled_stays(admissions: InterrogateDatabase, admission_database: AdmissionDatabase):
    """A sweep that comes late changes nothing and escalates nothing, and is told what is stored."""
    request = await admit(admissions, "a")
    delivered = ForwardRow("a", "delivered", 200, None, "text")
    await admissions.settle_forwards([settlement(request, delivered)])
    late = settlement(request, ForwardRow("a", "failed", None, "TIMEOUT"), escalated=escalation(request))
    [settled] = await admissions.settle_forwards([late])
    assert (settled.forwards, settled.escalation_receipt_id) == ((delivered,), None)
    assert await escalations(admission_database, request) == []


@pytest.mark.invariant("INV-118")
async def test_of_sweeps_that_race_one_escalates(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Eight at once over the same ten decisions, in different order."""
    requests = [await admit(admissions, "a", "b") for _ in range(10)]
    failed = tuple(ForwardRow(name, "failed", None, "TIMEOUT") for name in "ab")

    async def sweep(number: int) -> list[str | None]:
        order = requests[number:] + requests[:number]
        settled = await admissions.settle_forwards(
            [settlement(request, *failed, escalated=escalation(request)) for request in order]
        )
        ids = [item.escalation_receipt_id for item in settled]
        return ids[len(requests) - number :] + ids[: len(requests) - number]

    answers = await asyncio.gather(*(sweep(number) for number in range(8)))
    stored = [await escalations(admission_database, request) for request in requests]
    assert [len(ids) for ids in stored] == [1] * 10
    assert answers == [[ids[0] for ids in stored]] * 8


@pytest.mark.invariant("INV-118")
async def test_without_its_receipt_nothing_has_failed(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """An escalate receipt that the ledger refuses leaves the target pending, and what was delivered beside it settled."""
    request, other = await admit(admissions, "a", "b"), await admit(admissions, "a")
    bad = escalation(request).replace('"phase":"escalate"', '"phase":"queued"')
    good = escalation(other)
    failed = ForwardRow("a", "failed", None, "REFUSED")
    [refused, settled] = await admissions.settle_forwards([
        settlement(request, failed, ForwardRow("b", "delivered", 200), escalated=bad), settlement(other, failed, escalated=good),
    ])  # fmt: skip
    assert [row.state for row in refused.forwards] == ["pending", "delivered"]
    assert (refused.refusal, refused.escalation_receipt_id) == ("MAY_NOT_EMIT", None)
    assert settled.escalation_receipt_id == json.loads(good)["receipt_id"]
    assert await escalations(admission_database, request) == []


async def test_what_is_pending_too_long_is_given_with_its_receipt(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """With whom to tell; what is younger is not. Counted for the gauge."""
    request = await admit(admissions, "a", "b", escalate_to="boss")
    young = await admit(admissions, "a")
    await rows(
        admission_database.superuser,
        "UPDATE interrogate.forward SET created_at = created_at - interval '61 seconds' WHERE tenant = $1 RETURNING 1", request.tenant,
    )  # fmt: skip
    stale = {item.receipt_id: item for item in await admissions.stale_forwards(60)}
    assert young.receipt_id not in stale
    item = stale[request.receipt_id]
    assert (item.tenant, item.targets, item.escalate_to) == (request.tenant, ["a", "b"], "boss")
    assert json.loads(item.body)["receipt_id"] == request.receipt_id
    before = await admissions.pending_forwards()
    assert before.number >= 3
    assert before.oldest is not None
    assert (await admissions.pending_forwards(request.tenant)).number == 2
    assert await admissions.pending_forwards(AdmissionTree().tenant) == (0, None)
    await admissions.settle_forwards([settlement(young, ForwardRow("a", "delivered", 200))])
    assert (await admissions.pending_forwards()).number == before.number - 1


async def test_the_purge_takes_what_is_over_and_nothing_else(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Settled for three days: gone. Pending as long, or settled yesterday: kept. A bucket that is full is the same as none."""
    settled_long, settled_today, pending = [await admit(admissions, "a") for _ in range(3)]
    for request in (settled_long, settled_today):
        await admissions.settle_forwards([settlement(request, ForwardRow("a", "delivered", 200))])
    await rows(
        admission_database.superuser,
        """UPDATE interrogate.forward SET created_at = created_at - interval '73 hours', settled_at = settled_at - interval '73 hours'
           WHERE receipt_id = ANY ($1) RETURNING 1""",
        [settled_long.receipt_id, pending.receipt_id],
    )  # fmt: skip
    tree = AdmissionTree()
    await begin(admissions, tree)
    far = 2**52
    await decide_one(admissions, tree.request(rate_keys=("full", "spent")), allowed=False, rate_tats=(1, far))
    assert await admissions.purge(0) == (0, 0, 0)
    purged = await admissions.purge()
    assert (purged.forwards, purged.rates) == (1, 1)
    assert await admissions.forwards(settled_long.tenant, settled_long.receipt_id) == []
    assert len(await admissions.forwards(settled_today.tenant, settled_today.receipt_id)) == 1
    assert len(await admissions.forwards(pending.tenant, pending.receipt_id)) == 1
    [answer] = await admissions.observe([tree.request(rate_keys=("full", "spent"))])
    assert answer.observed.rate_tats == (0, far)


async def test_a_decision_is_shown_and_no_other_receipt(admissions: InterrogateDatabase):
    """An escalate receipt, another tenant's decision and an unknown id are no decisions."""
    request = await admit(admissions, "a")
    body = escalation(request)
    [settled] = await admissions.settle_forwards(
        [settlement(request, ForwardRow("a", "failed", 500, "REFUSED"), escalated=body)]
    )
    decision = await admissions.decision(request.tenant, request.receipt_id)
    assert decision is not None
    assert json.loads(decision.body)["phase"] == "accepted"
    assert settled.escalation_receipt_id is not None
    assert await admissions.decision(request.tenant, settled.escalation_receipt_id) is None
    assert await admissions.decision(AdmissionTree().tenant, request.receipt_id) is None
