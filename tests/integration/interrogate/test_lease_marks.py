"""Leases as AsyncGate's functions show them (IG-05): its own schema in the same database, leases by its own verbs."""

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
from tests.integration.interrogate.leases import LeaseIssuer, issuing
from tests.integration.interrogate.racers import racers

from asyncgate.lease import Lease
from interrogate.database import InterrogateDatabase
from interrogate.observation import ObservedLease


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=["live_lease", "live_lease and hold_leases"])
async def leased_database(postgres: Server, request: pytest.FixtureRequest) -> AsyncIterator[AdmissionDatabase]:
    """With AsyncGate in it; also as it would be without the function that keeps a lease from ending."""
    made = await make_admissions(postgres)
    async with issuing(made):
        pass
    if "hold" not in request.param:
        connection = await asyncpg.connect(made.superuser)
        await connection.execute("DROP FUNCTION asyncgate.hold_leases")
        await connection.close()
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def issuer(leased_database: AdmissionDatabase) -> AsyncIterator[LeaseIssuer]:
    async with issuing(leased_database) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leased(leased_database: AdmissionDatabase) -> AsyncIterator[InterrogateDatabase]:
    made = await InterrogateDatabase.connect(leased_database.writer, size=4, query_timeout=10)
    yield made
    await made.close()


async def issue(issuer: LeaseIssuer, tree: AdmissionTree, number: int = 1) -> Lease:
    return await issuer.issue(
        tree.tenant, tree.root, holder="alice", principal="owner", authority={"spawn": {"max": 5}}, number=number
    )


async def test_without_asyncgate_every_lease_is_lost(admissions: InterrogateDatabase):
    tree = AdmissionTree()
    [answer] = await admissions.observe([tree.request(lease_id="lease")])
    assert answer.observed.lease is None


async def test_a_live_lease_is_its_holders(leased: InterrogateDatabase, issuer: LeaseIssuer):
    """With its task, the principal in whose name it is held, and its authority; another's, an expired and an unknown one are none."""
    tree, expired = AdmissionTree(), AdmissionTree()
    lease, old = await issue(issuer, tree, number=3), await issue(issuer, expired)
    await issuer.expire(expired.tenant, old.lease_id)
    answers = await leased.observe([
        tree.request(lease_id=lease.lease_id), tree.request(lease_id=lease.lease_id, principal_key="bob"), tree.request(lease_id="no lease"),
        tree.request(), expired.request(lease_id=old.lease_id), AdmissionTree().request(lease_id=lease.lease_id),
    ])  # fmt: skip
    assert [answer.observed.lease for answer in answers] == [
        ObservedLease(lease.lease_id, tree.root, "owner", 3, {"spawn": {"max": 5}}, 0), *[None] * 5,
    ]  # fmt: skip


async def test_a_lease_that_ends_between_observe_and_record_admits_nothing(
    leased: InterrogateDatabase, issuer: LeaseIssuer
):
    """Revoked is revoked at once; what rested on no lease in the same batch is stored."""
    tree, other = AdmissionTree(), AdmissionTree()
    await begin(leased, tree)
    lease = await issue(issuer, tree)
    requests = [tree.request(lease_id=lease.lease_id), other.request(other.root)]
    answers = await leased.observe(requests)
    await issuer.release(tree.tenant, lease.lease_id, "alice")
    records = [
        record_of(request, answer.observed, spawns_under_lease=request.lease_id is not None)
        for request, answer in zip(requests, answers, strict=True)
    ]
    assert [recorded.outcome for recorded in await leased.record(records)] == ["MOVED", "STORED"]


async def test_what_a_lease_spawned_is_counted_in_the_same_commit(leased: InterrogateDatabase, issuer: LeaseIssuer):
    """Only what was admitted under it, and not what was denied or rests on the principal's own right."""
    tree = AdmissionTree()
    await begin(leased, tree)
    lease_id = (await issue(issuer, tree)).lease_id
    assert (await decide_one(leased, tree.request(lease_id=lease_id), spawns_under_lease=True)).outcome == "STORED"
    assert (await decide_one(leased, tree.request(lease_id=lease_id), allowed=False)).outcome == "STORED"
    assert (await decide_one(leased, tree.request())).outcome == "STORED"
    [answer] = await leased.observe([tree.request(lease_id=lease_id)])
    assert answer.observed.lease is not None
    assert answer.observed.lease.spawned == 1


@pytest.mark.slow
async def test_racers_under_one_lease_spawn_as_many_as_it_may(
    leased: InterrogateDatabase, leased_database: AdmissionDatabase, issuer: LeaseIssuer
):
    """32 clients of 4 processes on `spawn.max` 5, ten times: 5."""
    async with racers(leased_database.writer) as racing:
        for _ in range(10):
            tree = AdmissionTree()
            await begin(leased, tree)
            lease = await issue(issuer, tree)
            assert await racing.race("spawns", tree, limit=5, lease=lease.lease_id) == {"admitted": 5, "denied": 27}
