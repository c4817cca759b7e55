"""DepotGate without the database that its rows are in, without the one that it follows, without room: F01 to F12, F15, F19, F21.

The ledger's database away is a 503 in time, with no row and no receipt; bytes that were written by then are nobody's, and
`sweep` finds them. No receipt ever names bytes that are not there. MetaGate's database away is nothing that a request notices.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.faults import table
from tests.faults.database_faults import CLOSED, SIDES
from tests.faults.database_sides import GateTrial
from tests.faults.depot_harness import DepotHarness, depot_harness
from tests.faults.fairness import fairly
from tests.faults.promises import Bounds
from tests.faults.test_disk import fill

from memorygate.verifying import verify

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-093", "INV-094")]

ROW = "DG {} {}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness() -> AsyncIterator[DepotHarness]:
    async with depot_harness() as made:
        yield made


async def played(harness: DepotHarness, name: str, side: str) -> GateTrial:
    fault, _ = CLOSED[name]
    trial = await harness.trial(ROW.format(name, side), lambda trial: fault(trial, harness.sides[side]))
    if trial.extra:
        trial.add_figures(**trial.extra)
    return trial


@fairly
@pytest.mark.parametrize("name", CLOSED)
async def test_ledger(harness: DepotHarness, name: str) -> None:
    """Where rows and receipts are: 503 in time while it is away, every answer stored, once, and on by itself."""
    trial = await played(harness, name, "ledger")
    if CLOSED[name][1]:
        inside = trial.inside("deposit", after=0.5)
        assert inside
        assert {call.status for call in inside} == {503}


@fairly
@pytest.mark.parametrize(
    "name",
    [
        name if name in table.ALSO_OF_METAGATE_BY_DEPOTGATE else pytest.param(name, marks=pytest.mark.slow)
        for name in CLOSED
    ],
)
async def test_metagate(harness: DepotHarness, name: str) -> None:
    """What is followed: deposits and reads go on, because no request asks it."""
    trial = await played(harness, name, "metagate")
    refusals = [call for call in trial.history.calls if call.status == 503]
    # Two servers share the disk, and one that recovers may keep the other one waiting for longer than the deadline.
    assert {call.answer["code"] for call in refusals} <= {"DEADLINE_EXCEEDED"}
    assert len(refusals) <= 0.2 * len(trial.history.calls)


@fairly
@pytest.mark.parametrize("side", SIDES)
async def test_f10_latency_in_steps(harness: DepotHarness, side: str) -> None:
    """The way gets longer: deposits go on while a statement fits its time, none beyond, and on by themselves."""
    proxy = harness.sides[side].proxy
    steps: dict[int, tuple[float, float]] = {}

    async def fault(trial: GateTrial) -> None:
        try:
            for milliseconds in (5, 250):
                proxy.latency = milliseconds / 1_000
                began = trial.load.now
                await asyncio.sleep(1.5)
                steps[milliseconds] = (began, trial.load.now)
        finally:
            proxy.latency = 0.0

    trial = await harness.trial(ROW.format("F10", side), fault)
    share: dict[int, float] = {}
    for milliseconds, (began, ended) in steps.items():
        calls = [call for call in trial.history.calls if call.operation == "deposit"]
        # Without those that met the step before or after their own.
        calls = [call for call in calls if began + 0.4 <= call.start < ended - 0.6]
        share[milliseconds] = round(sum(call.acked for call in calls) / len(calls), 3)
    trial.add_figures(success_by_one_way_ms=share)
    assert share[5] >= 0.8
    assert share[250] == 0.0 if side == "ledger" else share[250] >= 0.8


@fairly
async def test_f21_more_than_it_takes_at_once(harness: DepotHarness) -> None:
    """200 deposits at once, the database 25 ms away: what does not fit is refused at once, all are done in the end."""

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
async def test_f19_store_full(harness: DepotHarness) -> None:
    """No room for bytes: deposits are 503 and leave no row; reading goes on; with room again they go on by themselves."""
    if not harness.store_is_small:
        pytest.skip("mounting a file system needs root")
    filler = harness.store / "filler"

    async def fault(trial: GateTrial) -> None:
        await asyncio.to_thread(fill, filler)
        try:
            await asyncio.sleep(1.5)
        finally:
            trial.lifting()
            filler.unlink()

    trial = await harness.trial(ROW.format("F19", "store"), fault)
    inside = trial.inside("deposit", after=0.3)
    assert {(call.status, call.answer["code"]) for call in inside} == {(503, "STORE_FULL")}
    assert all(call.acked for call in trial.inside("manifests", after=0.3))


async def test_what_is_left_is_whole(harness: DepotHarness) -> None:
    """After all faults: the ledger's chain is whole, and every artifact has its bytes."""
    assert (await verify(harness.database.tasks.ledger.auditor)).bad is None
    async with harness.sides["ledger"].superuser() as connection:
        rows = await connection.fetch(
            "SELECT blob.key, encode(blob.sha256, 'hex') AS sha256 FROM depotgate.artifact "
            "JOIN depotgate.blob USING (tenant, sha256) WHERE artifact.retired_at IS NULL"
        )
    assert len(rows) > 50
    assert [
        row["key"]
        for row in rows
        if hashlib.sha256((harness.store / row["key"]).read_bytes()).hexdigest() != row["sha256"]
    ] == []
