"""A verb that dies inside its statement leaves state and receipts, or neither (§6.1): it is one commit."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.databases import patient
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, task_of
from tests.integration.memorygate.conftest import rows

from asyncgate.database import AsyncGateDatabase
from asyncgate.task import Task
from legivellum.postgres.errors import Unavailable

TABLES = ("task", "need", "archive", "admission", "request")
VERBS: dict[str, Callable[[Tenant, Task, str], Awaitable[Any]]] = {
    "enqueue": lambda tenant, task, _lease_id: tenant.enqueue(task_of(tenant.uid, "parked-now", needs=(task.task_id,))),
    "lease": lambda tenant, _task, _lease_id: tenant.lease("second", "other", idempotency_key="k"),
    "release": lambda tenant, _task, lease_id: tenant.release(lease_id),
    "complete": lambda tenant, _task, lease_id: tenant.complete(lease_id),
    "escalate": lambda tenant, _task, lease_id: tenant.escalate(lease_id),
    "revoke": lambda tenant, task, _lease_id: tenant.database.revoke([tenant.revocation(task.task_id)]),
}


async def state(tenant: Tenant) -> list[Any]:
    """Every row of the tenant, here and in the ledger."""
    return [
        sorted(map(repr, await rows(tenant.dsn, f"SELECT * FROM {table} WHERE tenant = $1", tenant.uid)))
        for table in (
            *(f"asyncgate.{name}" for name in TABLES),
            "memorygate.receipt",
            "memorygate.obligation",
            "memorygate.task",
        )
    ]


async def waiting_backend(connection: asyncpg.Connection, pids: set[int]) -> int:
    """The backend of the verb, once it waits for the ledger's lock, with everything of its own locked."""
    async with asyncio.timeout(5):
        while True:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncgate' AND wait_event_type = 'Lock' AND pid = ANY ($1)",
                list(pids),
            )
            if rows:
                return int(rows[0]["pid"])
            await asyncio.sleep(0.005)


@pytest.mark.invariant("INV-069")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("end", ["terminated", "let go"])
async def test_a_verb_that_dies_leaves_nothing(tenant: Tenant, task_database: TaskDatabase, verb: str, end: str):
    """Killed while it waits for the ledger's locks; the same call after that does all of it."""
    task, other = task_of(tenant.uid), task_of(tenant.uid, capability="other")
    await tenant.park(task, other, task_of(tenant.uid, needs=(task.task_id,)))
    await tenant.mint(task_of(tenant.uid, "parked-now"))
    [lease] = await tenant.lease()
    before = await state(tenant)
    dying_database = await AsyncGateDatabase.connect(patient(task_database.broker), size=1, query_timeout=20)
    dying = Tenant(dying_database, tenant.dsn, tenant.uid)
    connection = await asyncpg.connect(tenant.dsn)
    try:
        pids = {
            row[0]
            for row in await rows(tenant.dsn, "SELECT pid FROM pg_stat_activity WHERE application_name = 'asyncgate'")
        }
        async with connection.transaction():
            # The roots of all its tasks: the last locks of the ledger before it writes.
            await connection.execute(
                "SELECT pg_advisory_xact_lock(memorygate.lock_key($1::uuid || 'R' || root_task_id) | x'4000000000000000'::bigint) "
                "FROM memorygate.task WHERE tenant = $1",
                tenant.uid,
            )
            call = asyncio.ensure_future(VERBS[verb](dying, task, lease.lease_id))
            pid = await waiting_backend(connection, pids)
            assert await state(tenant) == before
            if end == "terminated":
                await connection.fetchval("SELECT pg_terminate_backend($1)", pid)
                with pytest.raises(Unavailable):
                    await call
        if end == "terminated":
            assert await state(tenant) == before
            await VERBS[verb](tenant, task, lease.lease_id)
        else:
            await call
        assert await state(tenant) != before
    finally:
        await connection.close()
        await dying_database.close()
