"""The same request again: by its key, by its task, by its receipt id; and what is not the same request (IG-07)."""

from dataclasses import replace

import asyncpg
import pytest
from tests.integration.interrogate.conftest import (
    AdmissionDatabase,
    AdmissionTree,
    begin,
    decide_one,
    receipt_of,
    record_of,
)
from tests.integration.memorygate.conftest import new_id, rows
from tests.integration.memorygate.test_emitting import mint

from interrogate.database import InterrogateDatabase
from interrogate.observation import ObservationRequest


def again(request: ObservationRequest, **fields: object) -> ObservationRequest:
    """The same envelope, which gets a receipt id of its own."""
    return replace(request, receipt_id=new_id(), **fields)


async def receipt_count(database: AdmissionDatabase, tree: AdmissionTree) -> int:
    [(count,)] = await rows(
        database.superuser, "SELECT count(*) FROM memorygate.receipt WHERE tenant = $1", tree.tenant
    )
    return int(count)


@pytest.mark.invariant("INV-108")
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_key_answers_its_envelope_and_refuses_another(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase, allowed: bool
):
    """Seen by observe, and by a record that was decided before the first was stored; another principal's key is another key."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request(idempotency_key="key")
    [unknown] = await admissions.observe([request])
    first = await decide_one(admissions, request, allowed=allowed)
    same, other = again(request), again(request, digest=b"o" * 32)
    [seen, refused] = await admissions.observe([same, other])
    assert (seen.replay, seen.conflict) == (first.stored, False)
    assert (refused.replay, refused.conflict) == (None, True)
    late = await admissions.record([record_of(same, unknown.observed), record_of(other, unknown.observed)])
    assert [(r.outcome, r.stored) for r in late] == [("REPLAYED", first.stored), ("KEY_CONFLICT", None)]
    [strange] = await admissions.observe([again(request, principal_key="bob", task_id=new_id())])
    assert (strange.replay, strange.conflict) == (None, False)
    assert await receipt_count(admission_database, tree) == 2


async def test_a_key_holds_for_a_day(admissions: InterrogateDatabase, admission_database: AdmissionDatabase):
    """After it the key is free, also before it is purged; the purge takes the old and leaves the new."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request(idempotency_key="key")
    await decide_one(admissions, request, allowed=False)
    await rows(
        admission_database.superuser,
        "UPDATE interrogate.request SET stored_at = stored_at - interval '24 hours 1 second' WHERE tenant = $1 RETURNING 1",
        tree.tenant,
    )  # fmt: skip
    other = again(request, digest=b"o" * 32)
    assert (await decide_one(admissions, other, allowed=False)).outcome == "STORED"
    [answer] = await admissions.observe([again(request)])
    assert (answer.replay, answer.conflict) == (None, True)
    await rows(
        admission_database.superuser,
        "UPDATE interrogate.request SET stored_at = stored_at - interval '25 hours' WHERE tenant = $1 RETURNING 1", tree.tenant,
    )  # fmt: skip
    await decide_one(admissions, tree.request(idempotency_key="young"), allowed=False)
    assert (await admissions.purge()).requests >= 1
    keys = await rows(
        admission_database.superuser, "SELECT idempotency_key FROM interrogate.request WHERE tenant = $1", tree.tenant
    )
    assert keys == [("young",)]


@pytest.mark.invariant("INV-108")
async def test_without_a_key_an_admitted_task_answers_its_envelope_for_its_principal(admissions: InterrogateDatabase):
    """Another principal, another envelope or a new key is another request: the task is admitted already."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request()
    first = await decide_one(admissions, request)
    answers = await admissions.observe([
        again(request), again(request, principal_key="bob"), again(request, digest=b"o" * 32), again(request, idempotency_key="new"),
    ])  # fmt: skip
    assert [answer.replay for answer in answers] == [first.stored, None, None, None]
    assert all(answer.observed.task_admitted for answer in answers)
    [late] = await admissions.record([record_of(again(request), replace(answers[0].observed, task_admitted=False))])
    assert (late.outcome, late.stored) == ("REPLAYED", first.stored)
    [late] = await admissions.record(
        [record_of(again(request, principal_key="bob"), replace(answers[0].observed, task_admitted=False))]
    )
    assert (late.outcome, late.stored) == ("MOVED", None)


@pytest.mark.invariant("INV-108")
@pytest.mark.parametrize("allowed", [True, False])
async def test_a_batch_whose_answer_was_lost_finds_its_own_rows(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase, allowed: bool
):
    """The same records again, or decided anew under the same receipt id with another outcome: the first one's receipt, once."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = replace(tree.request(), task_id=None)
    [answer] = await admissions.observe([request])
    record = record_of(request, answer.observed, allowed=allowed)
    [first] = await admissions.record([record])
    assert first.outcome == "STORED"
    [second] = await admissions.record([record])
    assert (second.outcome, second.stored) == ("REPLAYED", first.stored)
    [answer] = await admissions.observe([request])
    if allowed:
        assert answer.replay == first.stored
    [third] = await admissions.record([record_of(request, answer.observed, allowed=not allowed)])
    assert (third.outcome, third.stored) == ("REPLAYED", first.stored)
    assert await receipt_count(admission_database, tree) == 2
    counts = await rows(
        admission_database.superuser, "SELECT version FROM interrogate.root WHERE tenant = $1", tree.tenant
    )
    assert counts == [(1 + allowed,)]


async def test_what_is_refused_by_the_ledger_counts_nothing_and_spoils_nobody(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """A body that is no receipt, between two good ones of the same root: the first is stored, what counted on it moved."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    requests = [tree.request() for _ in range(3)]
    answers = await admissions.observe(requests)
    records = [
        record_of(request, replace(answer.observed, version=1 + place))
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
    ]
    records[1] = replace(records[1], body="{}")
    recorded = await admissions.record(records)
    assert [(r.outcome, r.detail) for r in recorded] == [("STORED", ""), ("REFUSED", "INVALID_RECEIPT"), ("MOVED", "")]
    assert await receipt_count(admission_database, tree) == 2
    counts = await rows(
        admission_database.superuser, "SELECT version, descendants FROM interrogate.root WHERE tenant = $1", tree.tenant
    )
    assert counts == [(2, 1)]


async def test_a_task_that_the_ledger_learns_under_another_root_meanwhile_is_not_admitted(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Posted before record looks: the mark moved. Posted between its look and the ledger's own locks: nothing of it is stored either."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request()
    [answer] = await admissions.observe([request])
    await mint(admission_database.ledger, tree.tenant, request.task_id)
    [recorded] = await admissions.record([record_of(request, answer.observed)])
    assert (recorded.outcome, await receipt_count(admission_database, tree)) == ("MOVED", 2)
    [answer] = await admissions.observe([request])
    assert answer.observed.task_root_id == request.task_id
    # The receipt of the second is filed under a root of which the gate is not told: as if somebody had come in between.
    stranger = tree.request(parent_task_id=None)
    [answer] = await admissions.observe([stranger])
    [recorded] = await admissions.record([record_of(stranger, answer.observed)])
    assert (recorded.outcome, await receipt_count(admission_database, tree)) == ("MOVED", 2)
    counts = await rows(
        admission_database.superuser, "SELECT version FROM interrogate.root WHERE tenant = $1", tree.tenant
    )
    assert counts == [(1,)]


async def test_custody_and_cause_are_the_ledgers(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """The custodian of the parent's open obligation is observed; another tenant's receipt is no cause."""
    tree, other = AdmissionTree(), AdmissionTree()
    await begin(admissions, tree)
    foreign = await begin(admissions, other)
    assert foreign.stored is not None
    await mint(admission_database.ledger, tree.tenant, tree.root, recipient="bob")
    [answer] = await admissions.observe([tree.request(caused_by_receipt_id=foreign.stored.receipt_id)])
    parent = answer.observed.parent
    assert parent is not None
    assert (parent.custodian, parent.open, answer.observed.cause_task_id) == ("bob", True, None)
    [hers] = await admissions.observe([other.request(root_task_id=tree.root, parent_task_id=tree.root)])
    assert (hers.observed.parent, hers.observed.version) == (None, 0)


@pytest.mark.invariant("INV-106")
async def test_whoever_speaks_for_a_batch_of_many_tenants_gets_each_its_own(admissions: InterrogateDatabase):
    """Sixty-four requests of as many trees in one statement, each answered in its place."""
    trees = [AdmissionTree() for _ in range(64)]
    requests = [
        tree.request(tree.root, rate_keys=tuple(f"rate-{n}" for n in range(place % 3)))
        for place, tree in enumerate(trees)
    ]
    answers = await admissions.observe(requests)
    records = [
        record_of(request, answer.observed, rate_tats=tuple(range(1, len(request.rate_keys) + 1)))
        for request, answer in zip(requests, answers, strict=True)
    ]
    recorded = await admissions.record(records)
    assert [r.stored and r.stored.receipt_id for r in recorded] == [request.receipt_id for request in requests]
    answers = await admissions.observe(requests)
    assert [answer.observed.rate_tats for answer in answers] == [tuple(range(1, place % 3 + 1)) for place in range(64)]
    assert all(answer.replay is not None for answer in answers)


async def test_a_receipt_whose_body_nobody_could_parse_cannot_be_stored(admission_database: AdmissionDatabase):
    """`observe` reads the task of a cause from its body: what is no JSON to PostgreSQL never came in."""
    request = AdmissionTree().request()
    body = receipt_of(request, allowed=False).replace('"root":"', '"root":"\\u0000')
    connection = await asyncpg.connect(admission_database.superuser)
    try:
        await connection.execute("SET ROLE interrogate_owner")
        outcome = await connection.fetchval("SELECT outcome FROM memorygate.emit_interrogate(ARRAY[$1], NULL)", body)
    finally:
        await connection.close()
    assert outcome == "INVALID_RECEIPT"
