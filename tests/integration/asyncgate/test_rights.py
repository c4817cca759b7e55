"""What AsyncGate's roles may do in the database: its process executes functions, other gates ask for leases, nobody touches a row."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, task_of
from tests.integration.memorygate.conftest import rows

from asyncgate.schema import BROKER, LEASE_READERS
from legivellum.postgres.errors import Unavailable

FOR_THE_PROCESS = {
    "state", "enqueue", "lease", "lease_tasks", "renew", "end_leases", "revoke", "revoke_minted", "owner_of", "expire_overdue", "meet_needs", "purge",
    "tasks", "depth", "totals", "held_lease", "task_view", "admission_receipt",
    "tasks_in_state", "admission_receipts",
}  # fmt: skip
FOR_OTHER_GATES = {"live_lease", "hold_leases"}


@pytest.mark.invariant("INV-069")
async def test_each_role_may_call_its_functions_and_no_other(task_database: TaskDatabase):
    granted = await rows(
        task_database.superuser,
        """SELECT r.rolname::text, p.proname::text FROM pg_roles AS r CROSS JOIN pg_proc AS p
           WHERE p.pronamespace = 'asyncgate'::regnamespace AND r.rolname = ANY ($1) AND has_function_privilege(r.oid, p.oid, 'EXECUTE')""",
        [BROKER, *LEASE_READERS],
    )
    may = {role: {name for owner, name in granted if owner == role} for role in (BROKER, *LEASE_READERS)}
    assert may == {BROKER: FOR_THE_PROCESS, **dict.fromkeys(LEASE_READERS, FOR_OTHER_GATES)}


@pytest.mark.invariant("INV-069")
@pytest.mark.parametrize("schema", ["asyncgate", "memorygate"])
async def test_the_process_touches_no_table(task_database: TaskDatabase, schema: str):
    tables = await rows(
        task_database.superuser,
        f"""SELECT c.relname::text FROM pg_class AS c
            WHERE c.relnamespace = '{schema}'::regnamespace AND c.relkind IN ('r', 'p', 'v')
              AND has_table_privilege('{BROKER}', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')""",
    )
    assert tables == []
    connection = await asyncpg.connect(task_database.broker)
    try:
        for statement in ("SELECT * FROM asyncgate.task", "UPDATE memorygate.receipt SET body = ''",
                          "SELECT * FROM memorygate.emit_asyncgate('{}', NULL)", "SELECT * FROM asyncgate.live_lease(NULL, '', '')"):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(statement)
    finally:
        await connection.close()


async def as_reader(database: TaskDatabase, reader: str, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(f"SET ROLE {reader}")
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


@pytest.mark.parametrize("reader", LEASE_READERS)
async def test_other_gates_see_a_live_lease_of_its_holder(tenant: Tenant, task_database: TaskDatabase, reader: str):
    """By both functions alike: its task, whose it is, what it may do, its number and the receipt that issued it."""
    task = task_of(tenant.uid, authority='{"spawn":{"max":2}}', principal_ai="alice")
    await tenant.park(task)
    [lease] = await tenant.lease()
    issued = (await tenant.receipts())[-1]
    expected = (
        task.task_id,
        task.obligation_id,
        "alice",
        task.authority,
        0,
        task.task_id,
        1,
        issued["receipt_id"],
        lease.expires_at,
    )
    ask = "SELECT * FROM asyncgate.live_lease($1, $2, $3)"
    assert [
        tuple(row) for row in await as_reader(task_database, reader, ask, tenant.uid, lease.lease_id, "worker")
    ] == [expected]
    for other in (
        (tenant.uid, lease.lease_id, "bob"),
        (tenant.uid, "none", "worker"),
        (uuid4(), lease.lease_id, "worker"),
    ):
        assert await as_reader(task_database, reader, ask, *other) == []
    hold = "SELECT * FROM asyncgate.hold_leases($1, $2, $3)"
    columns = ([tenant.uid] * 3, ["none", lease.lease_id, lease.lease_id], ["worker", "worker", "bob"])
    assert [tuple(row) for row in await as_reader(task_database, reader, hold, *columns)] == [(2, *expected)]
    await tenant.expire(lease.lease_id)
    assert await as_reader(task_database, reader, ask, tenant.uid, lease.lease_id, "worker") == []
    assert await as_reader(task_database, reader, hold, *columns) == []


async def test_while_a_lease_is_held_no_verb_ends_it_and_renewing_goes_on(tenant: Tenant, task_database: TaskDatabase):
    """What another gate stores under a lease is stored before the lease's end, or not at all (D-62)."""
    task = task_of(tenant.uid)
    await tenant.park(task)
    [lease] = await tenant.lease()
    connection = await asyncpg.connect(task_database.superuser)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("SET LOCAL ROLE interrogate_owner")
        [held] = await connection.fetch(
            "SELECT * FROM asyncgate.hold_leases($1, $2, $3)", [tenant.uid], [lease.lease_id], ["worker"]
        )
        assert held["task_id"] == task.task_id
        assert (await tenant.renew(lease.lease_id)).name == "RENEWED"
        endings = (
            lambda: tenant.complete(lease.lease_id),
            lambda: tenant.release(lease.lease_id),
            lambda: tenant.escalate(lease.lease_id),
            lambda: tenant.database.revoke([tenant.revocation(task.task_id)]),
        )
        for ending in endings:
            with pytest.raises(Unavailable, match="55P03"):  # lock_not_available: it waited for the other gate
                await ending()
    finally:
        await transaction.commit()
        await connection.close()
    assert (await tenant.complete(lease.lease_id)).name == "ENDED"


@pytest.mark.invariant("INV-066")
async def test_two_live_leases_on_a_task_cannot_be_stored(tenant: Tenant):
    """Not even by somebody who owns the table: half a lease and the same lease twice are refused by the database."""
    await tenant.park(task_of(tenant.uid), task_of(tenant.uid))
    first, _ = await tenant.lease(most=2)
    with pytest.raises(asyncpg.CheckViolationError):
        await tenant.execute("UPDATE asyncgate.task SET holder = NULL WHERE tenant = $1", tenant.uid)
    with pytest.raises(asyncpg.UniqueViolationError):
        await tenant.execute("UPDATE asyncgate.task SET lease_id = $2 WHERE tenant = $1", tenant.uid, first.lease_id)
