"""The locking form (IG-01): who holds the locks decides on what nobody changes, and loses them when it stops."""

import asyncio
from dataclasses import replace

import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, begin, decide_one, record_of
from tests.integration.memorygate.conftest import new_id, rows

from interrogate.database import InterrogateDatabase
from interrogate.observation import ObservationRequest
from legivellum.postgres.errors import Unavailable


async def waiting_for_locks(database: AdmissionDatabase, number: int = 1) -> None:
    """Until so many sessions of the gate wait for an advisory lock."""
    async with asyncio.timeout(10):
        while True:
            query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            if (await rows(database.superuser, query)) == [(number,)]:
                return
            await asyncio.sleep(0.005)


@pytest.mark.invariant("INV-105")
async def test_what_is_observed_under_locks_does_not_move(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """A second decision on the root waits for the first one's commit, then sees what it changed. Both are stored at once."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    first, second = tree.request(rate_keys=("bucket",)), tree.request(rate_keys=("bucket",))

    async def decided_later() -> tuple[int, tuple[int, ...], str]:
        async with admissions.locked() as locked:
            [answer] = await locked.observe([second], [1])
            [recorded] = await locked.record([record_of(second, answer.observed, rate_tats=(20,))])
            return answer.observed.version, answer.observed.rate_tats, recorded.outcome

    async with admissions.locked() as locked:
        [answer] = await locked.observe([first], [1])
        later = asyncio.create_task(decided_later())
        await waiting_for_locks(admission_database)
        [recorded] = await locked.record([record_of(first, answer.observed, rate_tats=(10,))])
        assert (answer.observed.version, recorded.outcome) == (1, "STORED")
    assert await later == (2, (10,), "STORED")


async def test_a_decision_without_locks_waits_too_and_moves(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Both forms take the same locks: whoever holds them is not overtaken by a decision that was observed before."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    first, second = tree.request(), tree.request()
    [early] = await admissions.observe([second])
    async with admissions.locked() as locked:
        [answer] = await locked.observe([first], [1])
        overtaking = asyncio.create_task(admissions.record([record_of(second, early.observed)]))
        await waiting_for_locks(admission_database)
        [recorded] = await locked.record([record_of(first, answer.observed)])
        assert recorded.outcome == "STORED"
    assert [result.outcome for result in await overtaking] == ["MOVED"]


async def test_nothing_is_stored_where_the_block_does_not_end(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """What a rolled back transaction stored is not remembered either: the next decision brings the policy again."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request, policy = tree.request(), f"sha256:{new_id()}"

    async def stopped() -> None:
        async with admissions.locked() as locked:
            [answer] = await locked.observe([request], [1])
            [recorded] = await locked.record([record_of(request, answer.observed, policy_hash=policy)])
            assert recorded.outcome == "STORED"
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        await stopped()
    admitted = "SELECT count(*) FROM interrogate.admitted WHERE tenant = $1"
    assert await rows(admission_database.superuser, admitted, tree.tenant) == [(1,)]
    assert (await decide_one(admissions, request, policy_hash=policy)).outcome == "STORED"
    assert await admissions.ruleset(policy) == "{}"


async def test_a_process_that_stops_while_it_holds_locks_loses_them(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Others wait for a third of a second at most; what it would have recorded is not stored."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request()

    async def stopped() -> None:
        async with admissions.locked() as locked:
            [answer] = await locked.observe([request], [1])
            async with asyncio.timeout(10):
                while (await decide_one(admissions, tree.request())).outcome != "STORED":
                    pass
            await locked.record([record_of(request, answer.observed)])

    with pytest.raises(Unavailable):
        await stopped()
    [answer] = await admissions.observe([request])
    assert (answer.observed.version, answer.observed.task_admitted) == (2, False)


async def test_who_cannot_get_the_locks_observes_nothing(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """After the role's lock timeout there is no row, and no error that would fail other requests of the batch."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    holder = await InterrogateDatabase.connect(admission_database.ledger.owner, size=1, query_timeout=20)
    try:
        async with holder.locked() as locked:
            await locked.observe([tree.request()], [1])
            await locked._transaction.fetch("SET LOCAL idle_in_transaction_session_timeout = 0")
            async with admissions.locked() as waiting:
                assert await waiting.observe([tree.request()], [1]) == []
    finally:
        await holder.close()


async def test_under_locks_no_decision_is_stored_under_an_older_policy(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """A newer revision waits for whoever decides by the old one, and whoever comes after it is behind: neither waits in a circle."""
    tree, other = AdmissionTree(), AdmissionTree()
    other = replace(other, tenant=tree.tenant)
    for root in (tree, other):
        await begin(admissions, root)

    async def decided(request: ObservationRequest, revision: int) -> str:
        async with admissions.locked() as locked:
            [answer] = await locked.observe([request], [revision])
            [recorded] = await locked.record([record_of(request, answer.observed, policy_revision=revision)])
            return recorded.outcome

    async with admissions.locked() as locked:
        request = tree.request()
        [answer] = await locked.observe([request], [1])
        newer = asyncio.create_task(decided(other.request(), 2))
        await waiting_for_locks(admission_database)
        [recorded] = await locked.record([record_of(request, answer.observed)])
        assert recorded.outcome == "STORED"
    assert await newer == "STORED"
    assert await decided(tree.request(), 1) == "POLICY_BEHIND"
