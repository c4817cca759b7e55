"""Everything at once on the same roots: no deadlock, nothing after a lease's end, and nobody is left asleep (§3's table of locks)."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from tests.databases import Server
from tests.integration.asyncgate.conftest import Tenant, append, make_tasks, receipt_body, task_of
from tests.integration.memorygate.conftest import new_id, rows

from asyncgate.database import AsyncGateDatabase
from asyncgate.task import Task
from memorygate.verifying import verify

SECONDS = 8.0
PATIENT = "{}&lock_timeout=20000&statement_timeout=20000"
"""Longer than a deadlock needs to be found, so that one is an error and no timeout."""
ROOTS = 20


class Bustle:
    """Clients of AsyncGate, of the ledger and of another gate, each with a connection of its own."""

    def __init__(self, tenant: Tenant, seed: int) -> None:
        self.tenant = tenant
        self.randomness = random.Random(seed)
        self.roots = [new_id() for _ in range(ROOTS)]
        self.minted: list[Task] = []
        self.leases: list[str] = []
        self.counts: Counter[str] = Counter()

    def new_task(self) -> Task:
        needs = (
            {self.randomness.choice(self.minted).task_id for _ in range(self.randomness.randrange(4))}
            if self.minted
            else set()
        )
        return task_of(self.tenant.uid, parent_task_id=self.randomness.choice(self.roots), needs=tuple(sorted(needs)))

    async def park(self, own: Tenant) -> None:
        tasks = [self.new_task() for _ in range(self.randomness.randint(1, 8))]
        await own.mint(*tasks)
        self.minted += tasks
        self.randomness.shuffle(tasks)
        for outcome in await own.enqueue(*tasks, all_or_none=self.randomness.random() < 0.2):
            self.counts[outcome.name] += 1

    async def work(self, own: Tenant) -> None:
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
                outcome = await own.database_revoke(lease.task_id)
            elif draw < 0.9:
                outcome = await own.escalate(lease.lease_id)
            else:
                await own.expire(lease.lease_id)
                outcome = await own.complete(lease.lease_id)
            self.counts[outcome.name] += 1

    async def hold(self, own: Tenant) -> None:
        """Another gate stores under leases: it holds them and then emits on their roots, in one transaction."""
        connection = await asyncpg.connect(own.dsn, server_settings={"lock_timeout": "20000"})
        try:
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
        finally:
            await connection.close()

    async def use_the_ledger(self, own: Tenant) -> None:
        """Open and close obligations on the same roots, shuffled."""
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
        assert set(await append(own.dsn, opened)) == {"STORED"}
        self.randomness.shuffle(names)
        closed = [
            receipt_body(own.uid, "alice", phase="complete", task_id=name, principal_ai="alice", status="success", outcome_kind="none",
                         completed_at="2027-01-01T00:00:00Z")
            for name in names
        ]  # fmt: skip
        assert set(await append(own.dsn, closed, "custodian")) == {"STORED"}
        self.counts["ledger"] += 10

    async def keep_books(self, own: Tenant) -> None:
        await own.keep_books()
        await asyncio.sleep(0.1)


class BusyTenant(Tenant):
    async def database_revoke(self, task_id: str):
        [outcome] = await self.database.revoke([self.revocation(task_id)])
        return outcome


@pytest.mark.slow
@pytest.mark.invariant("INV-066", "INV-068")
async def test_no_two_verbs_wait_for_each_other(postgres: Server):
    made = await make_tasks(postgres)
    connection = await asyncpg.connect(made.superuser)
    await connection.execute("ALTER ROLE asyncgate_broker SET deadlock_timeout = '100ms'")
    await connection.close()
    databases = [
        await AsyncGateDatabase.connect(PATIENT.format(made.broker), size=1, query_timeout=25) for _ in range(9)
    ]
    tenants = [BusyTenant(database, made.superuser) for database in databases]
    for tenant in tenants:
        tenant.uid = tenants[0].uid
    bustle = Bustle(tenants[0], 20270017)
    until = asyncio.get_running_loop().time() + SECONDS

    async def repeatedly(step: Callable[[Tenant], Awaitable[None]], own: Tenant) -> None:
        while asyncio.get_running_loop().time() < until:
            await step(own)

    steps = [
        bustle.park,
        bustle.park,
        bustle.work,
        bustle.work,
        bustle.work,
        bustle.work,
        bustle.hold,
        bustle.use_the_ledger,
        bustle.keep_books,
    ]
    try:
        await asyncio.gather(*(repeatedly(step, own) for step, own in zip(steps, tenants, strict=True)))
        # What is left goes its way; what waits for an escalated task is let go by its new custodian.
        own = tenants[0]
        async with asyncio.timeout(60):
            while (await rows(own.dsn, "SELECT count(*) FROM asyncgate.task"))[0][0]:
                escalated = await rows(
                    own.dsn,
                    "SELECT obligation_id FROM memorygate.obligation WHERE state = 'open' AND custodian = 'alice'",
                )
                for (name,) in escalated:
                    await own.close_elsewhere(name, "alice")
                unparked = await rows(
                    own.dsn,
                    "SELECT o.obligation_id FROM memorygate.obligation AS o WHERE state = 'open' AND custodian = 'svc:asyncgate' AND NOT EXISTS (SELECT FROM asyncgate.task AS t WHERE t.task_id = o.task_id)",
                )
                if unparked:
                    await own.database.revoke([own.revocation(name) for (name,) in unparked])
                await own.keep_books()
                while leases := await own.lease(most=32):
                    assert {
                        outcome.name
                        for outcome in await own.database.complete([own.claim(lease.lease_id) for lease in leases])
                    } == {"ENDED"}
                await own.execute(
                    "UPDATE asyncgate.task SET lease_until = clock_timestamp() WHERE lease_id IS NOT NULL"
                )
        assert await rows(own.dsn, "SELECT count(*) FROM asyncgate.need") == [(0,)]
        assert await rows(
            own.dsn, "SELECT deadlocks::integer FROM pg_stat_database WHERE datname = current_database()"
        ) == [(0,)]
        assert (await verify(made.ledger.auditor)).bad is None
        assert {"PARKED", "ENDED", "RELEASED", "REVOKED", "held", "ledger"} <= set(bustle.counts), bustle.counts
        assert "REFUSED" not in bustle.counts
    finally:
        for database in databases:
            await database.close()
        connection = await asyncpg.connect(made.superuser)
        await connection.execute("ALTER ROLE asyncgate_broker RESET deadlock_timeout")
        await connection.close()
        await postgres.drop(made.database)
