"""Leases as AsyncGate's functions show them (IG-05). That gate is to come: a schema of its name with its two functions stands for it."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import (
    AdmissionDatabase,
    AdmissionTree,
    begin,
    decide_one,
    make_admissions,
    record_of,
)
from tests.integration.interrogate.racers import racers

from interrogate.database import InterrogateDatabase
from interrogate.observation import ObservedLease

LIVE_LEASE = """
CREATE SCHEMA asyncgate;
CREATE TABLE asyncgate.lease (
    tenant uuid, lease_id text, holder text, task_id text, principal_ai text, number integer, authority jsonb, expires_at timestamptz
);
CREATE FUNCTION asyncgate.live_lease(tenant uuid, lease_id text, holder text)
RETURNS TABLE (task_id text, obligation_id text, principal_ai text, authority jsonb, depth integer, root_task_id text, number integer,
               issued_by text, expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER AS $$
    SELECT l.task_id, l.task_id, l.principal_ai, l.authority, 0, l.task_id, l.number, '', l.expires_at FROM asyncgate.lease AS l
    WHERE (l.tenant, l.lease_id, l.holder) = ($1, $2, $3) AND l.expires_at > clock_timestamp()
$$;
GRANT USAGE ON SCHEMA asyncgate TO interrogate_owner;
REVOKE ALL ON FUNCTION asyncgate.live_lease FROM PUBLIC;
GRANT EXECUTE ON FUNCTION asyncgate.live_lease TO interrogate_owner;
"""
HOLD_LEASES = """
CREATE FUNCTION asyncgate.hold_leases(tenants uuid[], lease_ids text[], holders text[]) RETURNS TABLE (ordinal integer, task_id text)
LANGUAGE sql SECURITY DEFINER AS $$
    SELECT i.ord::integer, l.task_id FROM unnest(tenants, lease_ids, holders) WITH ORDINALITY AS i(tenant, lease_id, holder, ord)
    CROSS JOIN LATERAL (SELECT x.task_id FROM asyncgate.lease AS x
                        WHERE (x.tenant, x.lease_id, x.holder) = (i.tenant, i.lease_id, i.holder) AND x.expires_at > clock_timestamp()
                        FOR KEY SHARE) AS l
$$;
REVOKE ALL ON FUNCTION asyncgate.hold_leases FROM PUBLIC;
GRANT EXECUTE ON FUNCTION asyncgate.hold_leases TO interrogate_owner;
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["live_lease", "live_lease and hold_leases"])
async def leased_database(postgres: Server, request: pytest.FixtureRequest) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    connection = await asyncpg.connect(made.superuser)
    await connection.execute(LIVE_LEASE + (HOLD_LEASES if "hold" in request.param else ""))
    await connection.close()
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leased(leased_database: AdmissionDatabase) -> AsyncIterator[InterrogateDatabase]:
    made = await InterrogateDatabase.connect(leased_database.writer, size=4, query_timeout=10)
    yield made
    await made.close()


async def execute(database: AdmissionDatabase, statement: str, *values: object) -> None:
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


async def issue(database: AdmissionDatabase, tree: AdmissionTree, holder: str = "alice", seconds: int = 60) -> None:
    await execute(
        database,
        """INSERT INTO asyncgate.lease VALUES ($1, 'lease', $2, $3, 'owner', 3, '{"spawn": {"max": 5}}',
                                               clock_timestamp() + make_interval(secs => $4))""",
        tree.tenant, holder, tree.root, seconds,
    )  # fmt: skip


async def test_without_asyncgate_every_lease_is_lost(admissions: InterrogateDatabase):
    tree = AdmissionTree()
    [answer] = await admissions.observe([tree.request(lease_id="lease")])
    assert answer.observed.lease is None


async def test_a_live_lease_is_its_holders(leased: InterrogateDatabase, leased_database: AdmissionDatabase):
    """With its task, the principal in whose name it is held, and its authority; another's, an expired and an unknown one are none."""
    tree, expired = AdmissionTree(), AdmissionTree()
    await issue(leased_database, tree)
    await issue(leased_database, expired, seconds=-1)
    answers = await leased.observe([
        tree.request(lease_id="lease"), tree.request(lease_id="lease", principal_key="bob"), tree.request(lease_id="no lease"),
        tree.request(), expired.request(lease_id="lease"), AdmissionTree().request(lease_id="lease"),
    ])  # fmt: skip
    assert [answer.observed.lease for answer in answers] == [
        ObservedLease("lease", tree.root, "owner", 3, {"spawn": {"max": 5}}, 0), *[None] * 5,
    ]  # fmt: skip


async def test_a_lease_that_ends_between_observe_and_record_admits_nothing(
    leased: InterrogateDatabase, leased_database: AdmissionDatabase
):
    """Revoked is revoked at once; what rested on no lease in the same batch is stored."""
    tree, other = AdmissionTree(), AdmissionTree()
    await begin(leased, tree)
    await issue(leased_database, tree)
    requests = [tree.request(lease_id="lease"), other.request(other.root)]
    answers = await leased.observe(requests)
    await execute(leased_database, "DELETE FROM asyncgate.lease WHERE tenant = $1", tree.tenant)
    records = [
        record_of(request, answer.observed, spawns_under_lease=request.lease_id is not None)
        for request, answer in zip(requests, answers, strict=True)
    ]
    assert [recorded.outcome for recorded in await leased.record(records)] == ["MOVED", "STORED"]


async def test_what_a_lease_spawned_is_counted_in_the_same_commit(
    leased: InterrogateDatabase, leased_database: AdmissionDatabase
):
    """Only what was admitted under it, and not what was denied or rests on the principal's own right."""
    tree = AdmissionTree()
    await begin(leased, tree)
    await issue(leased_database, tree)
    assert (await decide_one(leased, tree.request(lease_id="lease"), spawns_under_lease=True)).outcome == "STORED"
    assert (await decide_one(leased, tree.request(lease_id="lease"), allowed=False)).outcome == "STORED"
    assert (await decide_one(leased, tree.request())).outcome == "STORED"
    [answer] = await leased.observe([tree.request(lease_id="lease")])
    assert answer.observed.lease is not None
    assert answer.observed.lease.spawned == 1


@pytest.mark.slow
async def test_racers_under_one_lease_spawn_as_many_as_it_may(
    leased: InterrogateDatabase, leased_database: AdmissionDatabase
):
    """32 clients of 4 processes on `spawn.max` 5, ten times: 5."""
    async with racers(leased_database.writer) as racing:
        for _ in range(10):
            tree = AdmissionTree()
            await begin(leased, tree)
            await issue(leased_database, tree)
            assert await racing.race("spawns", tree, limit=5) == {"admitted": 5, "denied": 27}
