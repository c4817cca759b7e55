"""AsyncGate without the database that it holds tasks in, and without the one that it follows: F01 to F12, F15, F21, F24.

The ledger's database away is a 503 in time and nothing stored: no task is parked, leased or ended that nobody was told
of for good, and no task has two leases. MetaGate's database away is nothing that a request notices.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.faults import table
from tests.faults.database_faults import CLOSED, LONG, SIDES, refused
from tests.faults.database_sides import GateTrial
from tests.faults.fairness import fairly
from tests.faults.load import at_once, backing_off
from tests.faults.promises import Bounds
from tests.faults.task_harness import TaskHarness, task_harness
from tests.integration.asyncgate.conftest import Tenant, task_of
from tests.integration.memorygate.conftest import rows

from asyncgate.database import AsyncGateDatabase
from asyncgate.rebuilding import rebuild
from memorygate.verifying import verify

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-066", "INV-068", "INV-069", "INV-073")]

WORK = ("enqueue", "lease", "complete", "escalate")
ROW = "AG {} {}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness() -> AsyncIterator[TaskHarness]:
    async with task_harness() as made:
        yield made


async def played(harness: TaskHarness, name: str, side: str) -> GateTrial:
    fault, _ = CLOSED[name]
    trial = await harness.trial(ROW.format(name, side), lambda trial: fault(trial, harness.sides[side]))
    if trial.extra:
        trial.add_figures(**trial.extra)
    return trial


@fairly
@pytest.mark.parametrize("name", CLOSED)
async def test_ledger(harness: TaskHarness, name: str) -> None:
    """Where tasks are held: 503 in time while it is away, every answer stored, once, and on by itself."""
    trial = await played(harness, name, "ledger")
    if CLOSED[name][1]:
        inside = trial.inside(*WORK, after=0.5)
        assert inside
        assert {call.status for call in inside} == {503}


@fairly
@pytest.mark.parametrize(
    "name",
    [
        name if name in table.ALSO_OF_METAGATE_BY_ASYNCGATE else pytest.param(name, marks=pytest.mark.slow)
        for name in CLOSED
    ],
)
async def test_metagate(harness: TaskHarness, name: str) -> None:
    """What is followed: tasks move as before, because no request asks it."""
    trial = await played(harness, name, "metagate")
    refusals = [call for call in trial.history.calls if call.status == 503]
    # Two servers share the disk, and one that recovers may keep the other one waiting for longer than the deadline.
    assert {call.answer["code"] for call in refusals} <= {"DEADLINE_EXCEEDED"}
    assert len(refusals) <= 0.2 * len(trial.history.calls)


@fairly
@pytest.mark.parametrize("side", SIDES)
async def test_f10_latency_in_steps(harness: TaskHarness, side: str) -> None:
    """The way gets longer: all work while a statement fits its time, none beyond, and on by itself."""
    proxy = harness.sides[side].proxy
    steps: dict[int, tuple[float, float]] = {}

    async def fault(trial: GateTrial) -> None:
        try:
            for milliseconds in (5, 25, 50, 100, 250) if LONG else (5, 250):
                proxy.latency = milliseconds / 1_000
                began = trial.load.now
                await asyncio.sleep(1.5)
                steps[milliseconds] = (began, trial.load.now)
        finally:
            proxy.latency = 0.0

    trial = await harness.trial(ROW.format("F10", side), fault)
    share: dict[int, float] = {}
    for milliseconds, (began, ended) in steps.items():
        calls = [call for call in trial.history.calls if call.operation in WORK]
        # Without those that met the step before or after their own.
        calls = [call for call in calls if began + 0.4 <= call.start < ended - 0.6]
        share[milliseconds] = round(sum(call.acked for call in calls) / len(calls), 3)
    trial.add_figures(success_by_one_way_ms=share)
    assert share[5] >= 0.8
    assert share[250] == 0.0 if side == "ledger" else share[250] >= 0.8


@fairly
async def test_f21_more_than_the_queue_holds(harness: TaskHarness) -> None:
    """200 at once, the database 25 ms away: what the queue cannot hold is refused at once, all are done in the end."""

    async def fault(trial: GateTrial) -> None:
        harness.proxy.latency = 0.025
        try:
            lives = [trial.load.life() for _ in range(200)]
            await asyncio.gather(*(trial.load.live(life) for life in lives))
        finally:
            harness.proxy.latency = 0.0
        assert all(life.done for life in lives)

    trial = await harness.trial(ROW.format("F21", "ledger"), fault, bounds=Bounds(files=1_200))
    excess = [call.seconds for call in trial.history.calls if call.answer.get("code") == "OVERLOADED"]
    trial.add_figures(overloaded=len(excess))
    assert excess


@fairly
async def test_f24_retry_storm(harness: TaskHarness) -> None:
    """Clients retry at once while the database is away: no overload is left when it is back."""

    async def fault(trial: GateTrial) -> None:
        await refused(trial, harness.sides["ledger"])
        trial.load.pause = backing_off

    await harness.trial(ROW.format("F24", "ledger"), fault, pause=at_once)


TASKS = "SELECT tenant, task_id, number, lease_id, holder FROM asyncgate.task ORDER BY task_id, tenant"


async def test_what_is_left_is_whole(harness: TaskHarness) -> None:
    """After all faults: the ledger's chain is whole, and the receipts alone make the same tasks and leases again."""
    assert (await verify(harness.database.ledger.auditor)).bad is None
    gate = await AsyncGateDatabase.connect(harness.database.broker, size=1, query_timeout=10)
    tenant = Tenant(gate, harness.database.superuser)
    await tenant.park(*(task_of(tenant.uid) for _ in range(3)))
    [lease] = await tenant.lease()
    await gate.close()
    before = await rows(harness.database.superuser, TASKS)
    report = await rebuild(harness.database.superuser)
    after = await rows(harness.database.superuser, TASKS)
    assert (report.tasks, report.leased >= 1) == (len(before), True)
    assert [row for row in after if row[0] == tenant.uid] == [row for row in before if row[0] == tenant.uid]
    assert {row[1] for row in after} == {row[1] for row in before}
    assert lease.lease_id in {row[3] for row in after}
