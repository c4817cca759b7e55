"""Policy never runs backwards (IG-06), and each policy is kept with its first decision."""

import asyncio
import json

import asyncpg
import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, begin, decide_one, record_of
from tests.integration.memorygate.conftest import rows

from interrogate.database import InterrogateDatabase


@pytest.mark.invariant("INV-107")
async def test_nothing_is_decided_under_an_older_policy_than_before(admissions: InterrogateDatabase):
    """A lagging replica is told so, with the revision it needs; another profile and another tenant have revisions of their own."""
    tree, other = AdmissionTree(), AdmissionTree()
    await begin(admissions, tree)
    assert (await decide_one(admissions, tree.request(), policy_revision=7)).outcome == "STORED"
    assert (await decide_one(admissions, tree.request(), policy_revision=6)).outcome == "POLICY_BEHIND"
    [answer] = await admissions.observe([tree.request()])
    assert answer.observed.policy_revision == 7
    assert (await decide_one(admissions, tree.request(), policy_revision=7)).outcome == "STORED"
    assert (await decide_one(admissions, tree.request(profile="lax"), policy_revision=1)).outcome == "STORED"
    assert (await decide_one(admissions, other.request(other.root), policy_revision=1)).outcome == "STORED"


@pytest.mark.invariant("INV-107")
async def test_a_profile_that_is_gone_is_a_newer_policy(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """Denied as not found at revision 9: nobody admits under 8 any more. Of a name that never was one, nothing is kept."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    await decide_one(admissions, tree.request(), policy_revision=8)
    missing = {"allowed": False, "policy_hash": None, "ruleset": None}
    assert (await decide_one(admissions, tree.request(), policy_revision=5, **missing)).outcome == "POLICY_BEHIND"
    assert (await decide_one(admissions, tree.request(), policy_revision=9, **missing)).outcome == "STORED"
    assert (await decide_one(admissions, tree.request(), policy_revision=8)).outcome == "POLICY_BEHIND"
    assert (
        await decide_one(admissions, tree.request(profile="never"), policy_revision=9, **missing)
    ).outcome == "STORED"
    profiles = await rows(
        admission_database.superuser, "SELECT profile, revision FROM interrogate.profile WHERE tenant = $1", tree.tenant
    )
    assert profiles == [("strict", 9)]


@pytest.mark.invariant("INV-107")
async def test_within_a_batch_too(admissions: InterrogateDatabase):
    """The second uses an older revision than the first."""
    trees = [AdmissionTree() for _ in range(2)]
    tenant = trees[0].tenant
    requests = [tree.request(tree.root, tenant=tenant) for tree in trees]
    answers = await admissions.observe(requests)
    records = [
        record_of(request, answer.observed, policy_revision=revision)
        for request, answer, revision in zip(requests, answers, (2, 1), strict=True)
    ]
    assert [recorded.outcome for recorded in await admissions.record(records)] == ["STORED", "POLICY_BEHIND"]


@pytest.mark.invariant("INV-107")
async def test_a_newer_policy_waits_for_those_that_store_under_the_old_one(
    admissions: InterrogateDatabase, admission_database: AdmissionDatabase
):
    """A decision under revision 1 is stored but not committed: revision 2 is stored after it, and revision 1 no more."""
    tree, other = AdmissionTree(), AdmissionTree()
    other = AdmissionTree(tree.tenant, other.root)
    await begin(admissions, tree)
    open_transaction = await asyncpg.connect(admission_database.superuser)
    try:
        transaction = open_transaction.transaction()
        await transaction.start()
        # What a decision under the known revision holds until it commits.
        await open_transaction.execute(
            "SELECT pg_advisory_xact_lock_shared(interrogate.lock_key($1::text || 'P' || 'strict'))", str(tree.tenant)
        )
        assert (await decide_one(admissions, other.request(other.root), policy_revision=1)).outcome == "STORED"
        newer = asyncio.create_task(decide_one(admissions, tree.request(), policy_revision=2))
        blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not newer.done() and not await open_transaction.fetchval(blocked):
            await asyncio.sleep(0.005)
        assert not newer.done()
        await transaction.rollback()
        assert (await newer).outcome == "STORED"
    finally:
        await open_transaction.close()
    assert (
        await decide_one(admissions, other.request(parent_task_id=None), policy_revision=1)
    ).outcome == "POLICY_BEHIND"


async def test_a_policy_is_kept_with_its_first_decision_and_only_with_one(admissions: InterrogateDatabase):
    """The body of the first stays; a decision that moved leaves none."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request()
    [answer] = await admissions.observe([request])
    await decide_one(admissions, tree.request())
    moved = record_of(request, answer.observed, policy_hash="sha256:moved", ruleset=json.dumps({"a": 1}))
    assert [recorded.outcome for recorded in await admissions.record([moved])] == ["MOVED"]
    assert await admissions.ruleset("sha256:moved") is None
    kept = {"policy_hash": "sha256:kept", "ruleset": json.dumps({"a": 1})}
    await decide_one(admissions, tree.request(), **kept)
    await decide_one(admissions, tree.request(), **kept)
    assert await admissions.ruleset("sha256:kept") == json.dumps({"a": 1})


async def test_users_of_one_policy_do_not_wait_for_each_other(admission_database: AdmissionDatabase):
    """One is stored but not committed: another root of the tenant is decided meanwhile under the same policy."""
    tree = AdmissionTree()
    other = AdmissionTree(tree.tenant)
    database = await InterrogateDatabase.connect(admission_database.writer, size=1, query_timeout=10)
    slot = await database._pool.fetchval("SELECT pg_backend_pid() % 16")
    await begin(database, tree)
    await begin(database, other)
    connection = await asyncpg.connect(admission_database.writer)
    while await connection.fetchval("SELECT pg_backend_pid() % 16") == slot:
        # The ledger counts in as many rows as this: two sessions with the same one would wait for each other there.
        await connection.close()
        connection = await asyncpg.connect(admission_database.writer)
    transaction = connection.transaction()
    await transaction.start()
    assert (await decide_one(InterrogateDatabase(connection), tree.request())).outcome == "STORED"
    assert (await decide_one(database, other.request())).outcome == "STORED"
    await transaction.rollback()
    await connection.close()
    await database.close()
