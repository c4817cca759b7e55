"""Deposits, retirements and the verbs of leases at once on the same tasks and the same bytes: no deadlock, nothing stored late (D-58)."""

import asyncio
import itertools
import random
from collections.abc import Iterator

import pytest
from tests.integration.asyncgate.conftest import Tenant, task_of
from tests.integration.depotgate.conftest import LOCATION, DepotDatabase, upload_of
from tests.integration.memorygate.conftest import rows

from asyncgate.database import AsyncGateDatabase
from depotgate.artifact import Artifact
from depotgate.database import DepotGateDatabase
from memorygate.verifying import verify

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROUNDS = 12
TASKS = 6


@pytest.mark.invariant("INV-074", "EXT-26")
async def test_deposits_beside_retirement_and_ends_of_leases(
    depot_database: DepotDatabase, depot: DepotGateDatabase
) -> None:
    """Each statement takes its items in another order; a deadlock would be an error of one of them."""
    choice = random.Random(18)
    broker = await AsyncGateDatabase.connect(depot_database.tasks.broker, size=4, query_timeout=10)
    tenant = Tenant(broker, depot_database.superuser)
    kept: list[Artifact] = []
    outcomes: set[str] = set()
    freed: set[str] = set()

    async def deposit(lease_ids: list[str], contents: Iterator[bytes]) -> None:
        chosen = choice.sample(lease_ids, len(lease_ids))
        uploads = [
            upload_of(tenant.uid, next(contents), depositor="worker", role="output", task_id=task_ids[lease_id], lease_id=lease_id)
            for lease_id in chosen
        ]  # fmt: skip
        for result in await depot.store(uploads, location=LOCATION):
            outcomes.add(result.name)
            if result.artifact is not None:
                kept.append(result.artifact)

    async def retire(artifacts: list[Artifact]) -> None:
        shuffled = choice.sample(artifacts, len(artifacts))
        results = await depot.retire([(tenant.uid, artifact) for artifact in shuffled], by="ops")
        freed.update(result.freed_key for result in results if result.freed_key is not None)

    async def end(lease_ids: list[str]) -> None:
        await asyncio.sleep(choice.random() / 50)
        for lease_id in choice.sample(lease_ids, len(lease_ids)):
            await tenant.complete(lease_id)

    try:
        for number in range(ROUNDS):
            # Two contents that all rounds share, and two of this one, which are let go while the next round deposits.
            contents = itertools.cycle([b"a", b"b", b"c%d" % number, b"d%d" % number])
            await tenant.park(*(task_of(tenant.uid) for _ in range(TASKS)))
            leases = await tenant.lease(most=TASKS)
            task_ids = {lease.lease_id: lease.task_id for lease in leases}
            lease_ids = list(task_ids)
            await asyncio.gather(
                *(deposit(lease_ids, contents) for _ in range(4)), retire(kept[:]), retire(kept[-30:]), end(lease_ids)
            )
            await deposit(lease_ids, contents)
    finally:
        await broker.close()
    assert outcomes == {"STORED", "LEASE_LOST"}
    # In the ledger's order nothing of a task is stored after its completion.
    late = """SELECT count(*) FROM memorygate.receipt AS s JOIN memorygate.receipt AS e USING (tenant, task_id)
              WHERE tenant = $1 AND s.body::json ->> 'phase' = 'stored' AND e.body::json ->> 'phase' = 'complete'
                AND (s.stored_at, s.position) > (e.stored_at, e.position)"""
    assert await rows(depot_database.superuser, late, tenant.uid) == [(0,)]
    # Whatever is kept has its bytes: nobody was told to remove them.
    lost = """SELECT count(*) FROM depotgate.artifact AS a LEFT JOIN depotgate.blob AS b USING (tenant, sha256)
              WHERE tenant = $1 AND a.retired_at IS NULL AND (b.key IS NULL OR b.key = ANY ($2::text[]))"""
    assert await rows(depot_database.superuser, lost, tenant.uid, list(freed)) == [(0,)]
    assert freed
    assert (await verify(depot_database.tasks.ledger.auditor)).bad is None
