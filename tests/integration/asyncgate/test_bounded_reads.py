"""A verb reads a bounded number of rows, in a queue of any size (§6.6, EXT-23): counted by the database itself."""

from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar, cast

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, make_tasks, task_of

from asyncgate.database import LOOKED_AT, AsyncGateDatabase

Read = TypeVar("Read")
UNRELATED = 400_000
MOST_ROWS = 60
"""Of a task that is parked with a need, leased, renewed and returned, in the gate's tables and the ledger's obligations."""

FILL = f"""
INSERT INTO asyncgate.task (
    tenant, task_id, obligation_id, principal_ai, capability, minter, root_task_id, depth, escalation_to, document, ttl_seconds,
    max_ttl_seconds, max_renewals, max_lifetime_seconds, max_leases, accepted_by, accepted_at, available_at, seq, waits, evidence, cause,
    number, lease_id, holder, issued_by, issued_at, lease_until, latest_expiry, renewals_left)
SELECT CASE n % 5 WHEN 0 THEN '00000000-0000-4000-8000-000000000001' ELSE $1::uuid END, 'big-' || n, 'big-' || n, 'alice',
       CASE n % 5 WHEN 1 THEN 'other' ELSE 'default' END, 'planner', 'big-' || n, 0, '{{}}', '{{}}', 60, 900, 10, 7200, 32, 'r', now(),
       now() + CASE n % 5 WHEN 2 THEN interval '1 day' ELSE interval '0' END, nextval('asyncgate.line'), (n % 5 = 3)::integer, '{{}}', 'r',
       0, l.id, l.holder, l.holder, l.at, l.until, l.until, l.left
FROM generate_series(1, {UNRELATED}) AS n
LEFT JOIN LATERAL (SELECT 'lease-' || n AS id, 'holder' AS holder, now() AS at, now() + interval '1 day' AS until, 3 AS left) AS l ON n % 5 = 4
"""
"""One task in five: another tenant's, of another mailbox, before its time, with a need, leased."""
NEEDS = "INSERT INTO asyncgate.need SELECT tenant, 'never', task_id, true FROM asyncgate.task WHERE waits = 1 ORDER BY task_id LIMIT 1000"
ARCHIVE = """
INSERT INTO asyncgate.archive (tenant, task_id, obligation_id, principal_ai, capability, how, ended_by, ended_at, lease_id, holder, claim_digest)
SELECT $1, 'old-' || n, 'old-' || n, 'alice', 'default', 'returned', 'r', now(), 'old-lease-' || n, 'worker', sha256('')
FROM generate_series(1, 100000) AS n
"""
READS = """
SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint, sum(coalesce(seq_scan, 0))::bigint FROM pg_stat_user_tables
WHERE schemaname = 'asyncgate' OR (schemaname = 'memorygate' AND relname = 'obligation')
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def large_tenant(postgres: Server) -> AsyncIterator[tuple[Tenant, TaskDatabase]]:
    """Never analyzed, as after a restore; and every plan was made while the tables were empty, as by a process that started first."""
    made = await make_tasks(postgres)
    database = await AsyncGateDatabase.connect(made.broker, size=1, query_timeout=20)
    tenant = Tenant(database, made.superuser)
    connection = await asyncpg.connect(made.superuser)
    for table in ("task", "need", "archive"):
        await connection.execute(f"ALTER TABLE asyncgate.{table} SET (autovacuum_enabled = off)")
    await tenant.park(task_of(tenant.uid))
    [lease] = await tenant.lease()
    await tenant.renew(lease.lease_id)
    await tenant.complete(lease.lease_id)
    assert await tenant.lease() == ()
    await connection.execute(FILL, tenant.uid)
    await connection.execute(NEEDS)
    await connection.execute(ARCHIVE, tenant.uid)
    await connection.close()
    yield tenant, made
    await database.close()
    await postgres.drop(made.database)


async def rows_read(tenant: Tenant, made: TaskDatabase, reading: Awaitable[Read]) -> tuple[Read, int]:
    """What `reading` gives, and how many rows of any table it read."""
    counting = await asyncpg.connect(made.superuser)
    counts = []
    result = None
    for step in (None, reading):
        result = None if step is None else await step
        await tenant.database._pool.fetch("SELECT pg_stat_force_next_flush()")
        await tenant.database._pool.fetch("SELECT 1")
        await counting.execute("SELECT pg_stat_clear_snapshot()")
        counts.append((await counting.fetchrow(READS))[0])
    await counting.close()
    return cast("Read", result), counts[1] - counts[0]


@pytest.mark.slow
@pytest.mark.invariant("EXT-23", "INV-072")
async def test_no_verb_reads_more_for_a_longer_queue(large_tenant: tuple[Tenant, TaskDatabase]):
    """Twenty tasks go through their lives beside those that cannot be leased; no table is scanned."""
    tenant, made = large_tenant
    counting = await asyncpg.connect(made.superuser)
    await tenant.mint_elsewhere("open")

    async def reads() -> tuple[int, int]:
        await tenant.database._pool.fetch("SELECT pg_stat_force_next_flush()")
        await tenant.database._pool.fetch("SELECT 1")
        await counting.execute("SELECT pg_stat_clear_snapshot()")
        return tuple(await counting.fetchrow(READS))  # type: ignore[return-value]

    tasks = [task_of(tenant.uid) for _ in range(20)]
    waiting = [task_of(tenant.uid, needs=(task.task_id, "open"), capability="other") for task in tasks]
    await tenant.mint(*tasks, *waiting)
    rows_before, scans_before = await reads()
    for task, needing in zip(tasks, waiting, strict=True):
        assert [outcome.name for outcome in await tenant.enqueue(task, needing)] == ["PARKED", "PARKED"]
        [lease] = await tenant.lease()
        assert lease.task_id == task.task_id
        assert await tenant.lease() == ()
        assert (await tenant.renew(lease.lease_id)).name == "RENEWED"
        assert (await tenant.complete(lease.lease_id)).name == "ENDED"
    rows_after, scans_after = await reads()
    await counting.close()
    assert scans_after == scans_before
    assert (rows_after - rows_before) / 20 <= MOST_ROWS


@pytest.mark.slow
async def test_looking_at_a_long_queue_reads_a_page_of_it(large_tenant: tuple[Tenant, TaskDatabase]):
    tenant, made = large_tenant
    depths, _ = await tenant.database.depth(tenant.uid)
    assert {depth.capability: depth.capped for depth in depths} == {"default": True, "other": True}
    page = await tenant.database.tasks(tenant.uid, capability=None, state=None, after=None, limit=50)
    assert len(page.items) == 50
    assert page.next_after == page.items[-1].task_id
    for state in ("waiting", "held_back", "leased"):
        # A state of which few tasks or none are: so many are looked at, and the page goes on behind them.
        page, read = await rows_read(tenant, made, tenant.database.tasks(
            tenant.uid, capability="other", state=state, after=None, limit=50))  # fmt: skip
        assert (len(page.items) == 50) is (state == "waiting")
        assert page.next_after is not None
        assert read <= LOOKED_AT + 200
    totals = await tenant.database.totals()
    assert totals.leased > 0
