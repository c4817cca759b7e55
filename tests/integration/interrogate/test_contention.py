"""Many requests for one tree at two gates: never one more than a limit, and the ledger proves each decision (IG-01)."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import (
    PublishedWorld,
    Requesting,
    serving_interrogate,
)

from interrogate.replaying import replay
from interrogate.verifying import verify

POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 3, "maxTotalDescendants": 40, "maxRepeatsPerCapability": 30},
    "surfaces": [
        {
            "surfaceId": "public",
            "principals": ["*"],
            "parentage": "Tenant",
            "capabilities": {"allow": ["doc.*"]},
            "rateLimits": [{"name": "slow", "capabilities": ["doc.slow"], "requests": 5, "per": "100h"}],
        }
    ],
}


@pytest_asyncio.fixture(loop_scope="session")
async def two_gates(admission_database: AdmissionDatabase) -> AsyncIterator[list[Requesting]]:
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": POLICY})
    async with serving_interrogate(world) as first, serving_interrogate(world) as second:
        yield [await gate.awaited(gate.requesting(principal)) for gate in (first, second)]


async def admitted_root(alice: Requesting) -> dict[str, Any]:
    answer = await alice.evaluate(alice.envelope(causality={"capability_id": "doc.root"}))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def reasons(answers: list[httpx.Response]) -> Counter[str]:
    assert {answer.status_code for answer in answers} <= {200, 403, 429}, [answer.text for answer in answers]
    return Counter(answer.json()["reason_code"] or "ALLOW" for answer in answers)


async def proven(database: AdmissionDatabase) -> None:
    """Every decision follows from the ledger again, and every counter is what the receipts add up to."""
    report = await replay(database.ledger.auditor)
    assert (report.mismatches, report.mismatch_count) == ([], 0)
    assert (await verify(database.ledger.auditor)).bad is None


@pytest.mark.invariant("INV-101", "INV-105", "INV-108")
async def test_no_more_descendants_than_permitted(
    two_gates: list[Requesting], admission_database: AdmissionDatabase
) -> None:
    root = await admitted_root(two_gates[0])
    envelopes = [
        two_gates[number % 2].child(root, causality={"capability_id": f"doc.{number % 4}"}) for number in range(120)
    ]
    answers = await asyncio.gather(
        *(two_gates[number % 2].evaluate(envelope) for number, envelope in enumerate(envelopes))
    )
    assert reasons(answers) == {"ALLOW": 40, "DESCENDANTS_EXCEEDED": 80}
    receipt_ids = [answer.json()["receipt_id"] for answer in answers]
    assert len(set(receipt_ids)) == 120
    await proven(admission_database)


@pytest.mark.invariant("INV-101")
async def test_no_more_repeats_and_no_more_tokens_than_permitted(
    two_gates: list[Requesting], admission_database: AdmissionDatabase
) -> None:
    root = await admitted_root(two_gates[0])
    for capability, permitted, reason in (("doc.slow", 5, "RATE_LIMITED"), ("doc.often", 30, "REPEATS_EXCEEDED")):
        envelopes = [gate.child(root, causality={"capability_id": capability}) for gate in two_gates for _ in range(20)]
        answers = await asyncio.gather(
            *(two_gates[number % 2].evaluate(envelope) for number, envelope in enumerate(envelopes))
        )
        assert reasons(answers) == {"ALLOW": permitted, reason: 40 - permitted}
    await proven(admission_database)


@pytest.mark.invariant("INV-108")
async def test_of_many_with_one_key_or_one_task_all_hear_one_decision(
    two_gates: list[Requesting], admission_database: AdmissionDatabase
) -> None:
    """A racer waits and gets the first one's answer; another envelope under that key is a conflict."""
    root = await admitted_root(two_gates[0])
    child = two_gates[0].child(root)
    keyed = await asyncio.gather(*(two_gates[number % 2].evaluate(child, Idempotency_Key="k1") for number in range(32)))
    assert {answer.status_code for answer in keyed} == {200}
    assert len({answer.json()["receipt_id"] for answer in keyed}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in keyed) == 1

    other = two_gates[0].child(root, payload={"text": "another"})
    conflict = await two_gates[1].evaluate(other, Idempotency_Key="k1")
    assert (conflict.status_code, conflict.json()["code"]) == (409, "IDEMPOTENCY_CONFLICT")

    named = two_gates[0].child(root, causality={"task_id": f"{root['task_id']}-named"})
    answers = await asyncio.gather(*(two_gates[number % 2].evaluate(named) for number in range(32)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["receipt_id"] for answer in answers}) == 1
    await proven(admission_database)


async def test_a_tree_that_is_built_in_one_breath(
    two_gates: list[Requesting], admission_database: AdmissionDatabase
) -> None:
    """A parent and its children arrive together: a child that comes too early is denied, never half admitted."""
    root = await admitted_root(two_gates[0])
    names = [f"{root['task_id']}-{number}" for number in range(6)]
    chain = [
        two_gates[0].envelope(
            causality={
                "root_task_id": root["root_task_id"],
                "parent_task_id": above,
                "caused_by_receipt_id": root["receipt_id"],
                "spawn_depth": None,
                "task_id": name,
            }
        )
        for above, name in zip([root["task_id"], *names], names, strict=False)
    ]
    answers = await asyncio.gather(*(two_gates[0].evaluate(envelope) for envelope in chain))
    # The cause of all but the first is no receipt of their parent, whether it was admitted by then or not.
    assert [answer.json()["reason_code"] for answer in answers] == [None, *["CAUSALITY_MISMATCH"] * 5]
    await proven(admission_database)
