"""Everything at once on the same roots: no deadlock, nothing after a lease's end, and nobody is left asleep (§3's table of locks)."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server, patient
from tests.integration.asyncgate.conftest import (
    TaskDatabase,
    Tenant,
    append,
    make_tasks,
    receipt_body,
    task_of,
)
from tests.integration.memorygate.conftest import new_id, rows

from asyncgate.database import AsyncGateDatabase
from asyncgate.lease import Revocation
from asyncgate.outcomes import RevokeOutcome, VerbOutcome
from asyncgate.task import Task
from legivellum.postgres.errors import Unavailable
from memorygate.verifying import verify

SECONDS = float(os.environ.get("ASYNCGATE_TEST_SECONDS", "8"))  # noqa: TID251 - for a longer run
ROOTS = 20
TASKS = 2_000
"""Obligations that are minted at once."""


async def execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


class BusyTenant(Tenant):
    async def revoke(self, task_id: str) -> VerbOutcome[RevokeOutcome, Revocation]:
        [outcome] = await self.database.revoke([self.revocation(task_id)])
        return outcome


class Bustle:
    """Clients of AsyncGate, of the ledger and of another gate, each with a connection of its own."""

    def __init__(self, tenant: Tenant, seed: int) -> None:
        self.tenant = tenant
        self.randomness = random.Random(seed)
        self.roots = [new_id() for _ in range(ROOTS)]
        self.minted: list[Task] = []
        self.unparked: list[Task] = []
        self.leases: list[str] = []
        self.counts: Counter[str] = Counter()
        self.connections: dict[str, asyncpg.Connection] = {}

    async def connection(self, client: str) -> asyncpg.Connection:
        if client not in self.connections:
            self.connections[client] = await asyncpg.connect(self.tenant.dsn, server_settings={"lock_timeout": "20000"})
        return self.connections[client]

    async def mint(self) -> None:
        for _ in range(TASKS):
            # Of the newest, so that two tasks that end have dependants in common.
            newest = [task.task_id for task in self.minted[-16:]]
            needs = self.randomness.sample(newest, min(len(newest), self.randomness.choice((0, 0, 1, 2, 3, 6))))
            self.minted.append(
                task_of(self.tenant.uid, parent_task_id=self.randomness.choice(self.roots), needs=tuple(needs))
            )
        fresh = self.minted[-TASKS:]
        await self.tenant.mint(*fresh)
        self.unparked = fresh[::-1] + self.unparked

    async def park(self, own: BusyTenant) -> None:
        tasks = [self.unparked.pop() for _ in range(min(len(self.unparked), self.randomness.randint(1, 8)))]
        if not tasks:
            await asyncio.sleep(0.1)
            return
        self.randomness.shuffle(tasks)
        for outcome in await own.enqueue(*tasks, all_or_none=self.randomness.random() < 0.2):
            self.counts[outcome.name] += 1

    async def work(self, own: BusyTenant) -> None:
        leases = list(await own.lease(most=self.randomness.randint(1, 6)))
        self.leases = [*self.leases[-30:], *(lease.lease_id for lease in leases)]
        self.randomness.shuffle(leases)
        draw = self.randomness.random()
        if draw < 0.6:
            outcomes = await own.database.complete([own.claim(lease.lease_id) for lease in leases]) if leases else []
            self.counts.update(outcome.name for outcome in outcomes)
            return
        for lease in leases:
            if draw < 0.75:
                outcome = await own.release(lease.lease_id)
            elif draw < 0.85:
                outcome = await own.revoke(lease.task_id)
            elif draw < 0.9:
                outcome = await own.escalate(lease.lease_id)
            else:
                await own.expire(lease.lease_id)
                outcome = await own.complete(lease.lease_id)
            self.counts[outcome.name] += 1

    async def hold(self, own: BusyTenant) -> None:
        """Another gate stores under leases: it holds them and then emits on their roots, in one transaction."""
        connection = await self.connection("holder")
        async with connection.transaction():
            await connection.execute("SET LOCAL ROLE interrogate_owner")
            chosen = self.randomness.sample(self.leases, min(len(self.leases), 6))
            held = await connection.fetch(
                "SELECT * FROM asyncgate.hold_leases($1, $2, $3)",
                [own.uid] * len(chosen),
                chosen,
                ["worker"] * len(chosen),
            )
            bodies = [
                receipt_body(own.uid, "svc:interrogate", kind="admission", phase="accepted", task_id=new_id(), principal_ai="alice",
                             parent_task_id=row["root_task_id"])
                for row in held
            ]  # fmt: skip
            await connection.execute("SELECT memorygate.emit_interrogate($1, NULL)", bodies)
            for row in held:
                # Still live, and nobody's end of it is stored before this commit.
                assert (
                    await connection.fetchval(
                        "SELECT count(*) FROM memorygate.custody($1, $2) WHERE state = 'open'",
                        [own.uid],
                        [row["obligation_id"]],
                    )
                    == 1
                )
            self.counts["held"] += len(held)

    async def use_the_ledger(self, own: BusyTenant) -> None:
        """Open and close obligations on the same roots, shuffled."""
        connection = await self.connection("ledger")
        names = [new_id() for _ in range(10)]
        opened = [
            receipt_body(
                own.uid,
                "alice",
                phase="accepted",
                task_id=name,
                principal_ai="alice",
                parent_task_id=self.randomness.choice(self.roots),
            )
            for name in names
        ]
        assert set(await append(connection, opened)) == {"STORED"}
        self.randomness.shuffle(names)
        closed = [
            receipt_body(own.uid, "alice", phase="complete", task_id=name, principal_ai="alice", status="success", outcome_kind="none",
                         completed_at="2027-01-01T00:00:00Z")
            for name in names
        ]  # fmt: skip
        assert set(await append(connection, closed, "custodian")) == {"STORED"}
        self.counts["ledger"] += 10

    async def keep_books(self, own: BusyTenant) -> None:
        await own.keep_books()
        await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class BusyQueue:
    bustle: Bustle
    tenants: list[BusyTenant]
    tasks: TaskDatabase

    async def run(self) -> None:
        """All clients at once; the first error ends it."""
        bustle = self.bustle
        until = asyncio.get_running_loop().time() + SECONDS

        async def repeatedly(step: Callable[[BusyTenant], Awaitable[None]], own: BusyTenant) -> None:
            while asyncio.get_running_loop().time() < until:
                await step(own)

        others = (bustle.hold, bustle.use_the_ledger, bustle.keep_books)
        steps = (bustle.park, bustle.park, bustle.work, bustle.work, bustle.work, bustle.work, *others)
        running = [asyncio.ensure_future(repeatedly(step, own)) for step, own in zip(steps, self.tenants, strict=True)]
        try:
            await asyncio.gather(*running)
        finally:
            for client in running:
                client.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def run_until_error(self) -> None:
        """A busy machine may need more than one run."""
        while True:
            await self.run()
            await self.bustle.mint()

    async def drain(self) -> None:
        """What is left goes its way; what waits for an escalated task is let go by its new custodian."""
        own = self.tenants[0]
        held = "SELECT o.obligation_id FROM memorygate.obligation AS o WHERE o.state = 'open' AND o.custodian = $1"
        unparked = f"{held} AND NOT EXISTS (SELECT FROM asyncgate.task AS t WHERE t.task_id = o.task_id)"
        while (await rows(own.dsn, "SELECT count(*) FROM asyncgate.task"))[0][0]:
            for (name,) in await rows(own.dsn, held, "alice"):
                await own.close_elsewhere(name, "alice")
            if minted := await rows(own.dsn, unparked, "svc:asyncgate"):
                await own.database.revoke([own.revocation(name) for (name,) in minted])
            await own.keep_books()
            while leases := await own.lease(most=32):
                outcomes = await own.database.complete([own.claim(lease.lease_id) for lease in leases])
                assert {outcome.name for outcome in outcomes} == {"ENDED"}
            await own.execute("UPDATE asyncgate.task SET lease_until = clock_timestamp() WHERE lease_id IS NOT NULL")


@pytest_asyncio.fixture(loop_scope="session")
async def busy_queue(postgres: Server) -> AsyncIterator[BusyQueue]:
    made = await make_tasks(postgres)
    # Shorter than the wait for a lock, or a deadlock looks like a timeout.
    await execute(made.superuser, "ALTER ROLE asyncgate_broker SET deadlock_timeout = '100ms'")
    dsn = patient(made.broker)
    databases = [await AsyncGateDatabase.connect(dsn, size=1, query_timeout=25) for _ in range(9)]
    tenant_id = uuid4()
    tenants = [BusyTenant(database, made.superuser, tenant_id) for database in databases]
    bustle = Bustle(tenants[0], 20270017)
    for _ in range(1 + int(SECONDS) // 10):
        await bustle.mint()
    yield BusyQueue(bustle, tenants, made)
    for connection in bustle.connections.values():
        await connection.close()
    for database in databases:
        await database.close()
    await execute(made.superuser, "ALTER ROLE asyncgate_broker RESET deadlock_timeout")
    await postgres.drop(made.database)


@pytest.mark.slow
@pytest.mark.invariant("INV-066", "INV-068")
async def test_no_two_verbs_wait_for_each_other(busy_queue: BusyQueue):
    await busy_queue.run()
    async with asyncio.timeout(100 + 4 * SECONDS):
        await busy_queue.drain()
    dsn, counts = busy_queue.tasks.superuser, busy_queue.bustle.counts
    assert await rows(dsn, "SELECT count(*) FROM asyncgate.need") == [(0,)]
    deadlocks = "SELECT deadlocks::integer FROM pg_stat_database WHERE datname = current_database()"
    assert await rows(dsn, deadlocks) == [(0,)]
    assert (await verify(busy_queue.tasks.ledger.auditor)).bad is None
    assert {"PARKED", "ENDED", "RELEASED", "REVOKED", "held", "ledger"} <= set(counts), counts
    assert "REFUSED" not in counts


@pytest.mark.slow
async def test_rows_in_any_order_wait_for_each_other(busy_queue: BusyQueue):
    """The naive twin: the same run with the rows of a verb locked as they come finds a deadlock."""
    dsn = busy_queue.tasks.superuser
    [(definition,)] = await rows(dsn, "SELECT pg_get_functiondef('asyncgate.lock_tasks'::regproc)")
    by_chance = ") AS r CROSS JOIN LATERAL (SELECT random() AS place WHERE r.task_id IS NOT NULL) AS chance;"
    unordered = definition.replace('r.task_id COLLATE "C", r.tenant', "chance.place").replace(") AS r;", by_chance)
    assert unordered.count("chance.place") == 2
    await execute(dsn, unordered)
    async with asyncio.timeout(120):
        with pytest.raises(Unavailable, match="40P01"):  # deadlock_detected
            await busy_queue.run_until_error()
