"""An hour in which nobody asks for anything: what the gate does by itself writes nothing, but for a lease whose time is over (§6.7)."""

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, task_of

from asyncgate.bookkeeping import Bookkeeping
from asyncgate.database import AsyncGateDatabase
from asyncgate.settings import Settings

HOUR = 3_600
POLLS = 400
"""A worker that waits asks four times a second: so many stand for the hour."""
WRITES = """
SELECT relname, n_tup_ins::bigint, n_tup_upd::bigint, n_tup_del::bigint FROM pg_stat_user_tables
WHERE schemaname IN ('asyncgate', 'memorygate') AND n_tup_ins + n_tup_upd + n_tup_del > 0 ORDER BY schemaname, relname
"""
Writes = dict[str, tuple[int, int, int]]


@pytest_asyncio.fixture(loop_scope="session")
async def one_connection(task_database: TaskDatabase):
    """Its statistics are flushed by its own next statement, so that nothing is missed."""
    made = await AsyncGateDatabase.connect(task_database.broker, size=1, query_timeout=10)
    yield made
    await made.close()


async def writes(database: AsyncGateDatabase, dsn: str) -> Writes:
    await database._pool.fetch("SELECT pg_stat_force_next_flush()")
    await database._pool.fetch("SELECT 1")
    connection = await asyncpg.connect(dsn)
    try:
        return {name: tuple(counts) for name, *counts in await connection.fetch(WRITES)}
    finally:
        await connection.close()


async def an_hour(database: AsyncGateDatabase, tenant: Tenant) -> None:
    """As many rounds of the pass as there are in an hour, and workers that wait at an empty mailbox."""
    bookkeeping = Bookkeeping(lambda: database, seconds=1, archive_days=30, on_change=lambda: None)
    for number in range(round(HOUR / Settings().pass_seconds)):
        await bookkeeping.once()
        if number < POLLS:
            assert await tenant.lease("worker", "empty") == ()


@pytest.mark.invariant("INV-067", "INV-123")
async def test_an_idle_hour_writes_nothing_but_an_expiry(
    one_connection: AsyncGateDatabase, task_database: TaskDatabase
):
    """With tasks that wait, are held back by time and by a need, are leased, and with one that is over."""
    tenant = Tenant(one_connection, task_database.superuser)
    await tenant.mint_elsewhere("open")
    await tenant.park(
        task_of(tenant.uid),
        task_of(tenant.uid, not_before=datetime.now(UTC) + timedelta(days=1)),
        task_of(tenant.uid, needs=("open",)),
        *(task_of(tenant.uid, capability="leased") for _ in range(2)),
    )
    ended, leased = await tenant.lease("worker", "leased", most=2, ttl_seconds=900)
    await tenant.complete(ended.lease_id)
    before = await writes(one_connection, tenant.dsn)
    await an_hour(one_connection, tenant)
    assert await writes(one_connection, tenant.dsn) == before
    await tenant.expire(leased.lease_id)
    moved = await writes(one_connection, tenant.dsn)
    await an_hour(one_connection, tenant)
    after = await writes(one_connection, tenant.dsn)
    partition = next(name for name in after if name.startswith("receipt") and after[name] != moved[name])
    assert after[partition] == (moved[partition][0] + 1, *moved[partition][1:])
    assert after["task"] == (moved["task"][0], moved["task"][1] + 1, moved["task"][2])
    assert (await tenant.phases(leased.task_id))[-1] == "expired"
