"""InterroGate without the database that it decides in, and without the one that it follows: F01 to F12, F15, F21, F24.

The ledger's database away is a 503 in time and nothing stored; every decision that was answered is there afterwards,
once. MetaGate's database away is nothing that a request notices, until what is known of it is too old: then 503, and
not a row. F21 and F24 do not exist on MetaGate's side: no request asks that database.
"""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.faults import signals, table
from tests.faults.admission_harness import AdmissionHarness, admission_harness
from tests.faults.admission_load import EVALUATE, root_envelope
from tests.faults.database_faults import CLOSED, LONG, SIDES, refused
from tests.faults.database_sides import GateTrial
from tests.faults.fairness import fairly
from tests.faults.load import at_once, backing_off
from tests.faults.promises import Bounds
from tests.faults.wire import KeptConnections, WireResponse
from tests.integration.memorygate.conftest import new_id

from interrogate.replaying import replay
from interrogate.verifying import verify
from memorygate.verifying import verify as verify_ledger

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-108", "INV-116")]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def harness() -> AsyncIterator[AdmissionHarness]:
    async with admission_harness() as made:
        yield made


async def played(harness: AdmissionHarness, name: str, side: str) -> GateTrial:
    fault, _ = CLOSED[name]
    trial = await harness.trial(f"{name} {side}", lambda trial: fault(trial, harness.sides[side]))
    if trial.extra:
        trial.add_figures(**trial.extra)
    return trial


@fairly
@pytest.mark.parametrize("name", CLOSED)
async def test_ledger(harness: AdmissionHarness, name: str) -> None:
    """What is decided in: 503 in time while it is away, every answered decision stored, once, and on by itself."""
    trial = await played(harness, name, "ledger")
    if CLOSED[name][1]:
        inside = trial.inside("evaluate", after=0.5)
        assert inside
        assert {call.status for call in inside} == {503}


@fairly
@pytest.mark.parametrize(
    "name", [name if name in table.ALSO_OF_METAGATE else pytest.param(name, marks=pytest.mark.slow) for name in CLOSED]
)
async def test_metagate(harness: AdmissionHarness, name: str) -> None:
    """What is followed: requests are decided as before, because none of them asks it."""
    trial = await played(harness, name, "metagate")
    refused = [call for call in trial.history.calls if call.status == 503]
    # Two servers share the disk, and one that recovers may keep the other one waiting for longer than the deadline.
    assert {call.answer["code"] for call in refused} <= {"DEADLINE_EXCEEDED"}
    assert len(refused) <= 0.2 * len(trial.history.calls)


@fairly
@pytest.mark.parametrize("side", SIDES)
async def test_f10_latency_in_steps(harness: AdmissionHarness, side: str) -> None:
    """The way gets longer: all are decided while two round trips fit the statement's time, none beyond, and on by itself."""
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

    trial = await harness.trial(f"F10 {side}", fault)
    share: dict[int, float] = {}
    for milliseconds, (began, ended) in steps.items():
        calls = [call for call in trial.history.calls if call.operation == "evaluate"]
        # Without those that met the step before or after their own.
        calls = [call for call in calls if began + 0.4 <= call.start < ended - 0.6]
        share[milliseconds] = round(sum(call.acked for call in calls) / len(calls), 3)
    trial.add_figures(success_by_one_way_ms=share)
    assert share[5] >= 0.8
    assert share[250] == 0.0 if side == "ledger" else share[250] >= 0.8


@fairly
async def test_f21_more_than_the_queue_holds(harness: AdmissionHarness) -> None:
    """200 at once, the database 25 ms away: what the queue cannot hold is refused at once, all are decided in the end."""

    async def fault(trial: GateTrial) -> None:
        harness.proxy.latency = 0.025
        try:
            lives = [trial.load.life() for _ in range(200)]
            await asyncio.gather(*(trial.load.live(life) for life in lives))
        finally:
            harness.proxy.latency = 0.0
        assert all(life.done for life in lives)

    trial = await harness.trial("F21 ledger", fault, bounds=Bounds(files=1_200))
    excess = [call.seconds for call in trial.history.calls if call.answer.get("code") == "OVERLOADED"]
    trial.add_figures(overloaded=len(excess))
    assert excess


@fairly
async def test_f24_retry_storm(harness: AdmissionHarness) -> None:
    """Clients retry at once while the database is away: no overload is left when it is back."""

    async def fault(trial: GateTrial) -> None:
        await refused(trial, harness.sides["ledger"])
        trial.load.pause = backing_off

    await harness.trial("F24 ledger", fault, pause=at_once)


async def test_metagate_frozen_for_too_long(harness: AdmissionHarness) -> None:
    """Identity and policies older than `STALE_SECONDS`: 503 to everybody and not a row; on by itself afterwards (§7.7)."""
    metagate = harness.sides["metagate"]
    async with harness.serving(workers=1, INTERROGATE_STALE_SECONDS="1.5") as gate:
        await _until(harness, gate.address, 200)
        with signals.stopped(signals.family(metagate.postgres.pid)):
            await _until(harness, gate.address, 503)
            before = await harness.count_receipts()
            answers = [await _asked(harness, gate.address) for _ in range(20)]
            assert {(answer.status, answer.json()["code"]) for answer in answers} == {(503, "UNAVAILABLE")}
            assert await harness.count_receipts() == before
        await _until(harness, gate.address, 200)


async def _asked(harness: AdmissionHarness, address: tuple[str, int]) -> WireResponse:
    principal = harness.principals[0]
    body = json.dumps(root_envelope(principal, new_id(), "doc.write")).encode()
    return await KeptConnections(address).ask("POST", EVALUATE, headers=principal.headers, body=body, keep=False)


async def _until(harness: AdmissionHarness, address: tuple[str, int], status: int) -> None:
    async with asyncio.timeout(20):
        while (await _asked(harness, address)).status != status:
            await asyncio.sleep(0.05)


async def test_what_is_left_is_whole(harness: AdmissionHarness) -> None:
    """After all faults: the ledger's chain is whole, the counters are the receipts', every decision is made again."""
    auditor = harness.database.ledger.auditor
    assert (await verify_ledger(auditor)).bad is None
    assert (await verify(auditor)).bad is None
    report = await replay(auditor)
    assert report.mismatches == []
    assert report.decisions > 0
