"""F21, F23, F24: more at once than there is room for."""

import asyncio
import time
from dataclasses import replace

import pytest
from tests.faults.fairness import fairly
from tests.faults.fault_harness import Bounds, FaultHarness, Trial, wait_until_known
from tests.faults.gate import serving, through
from tests.faults.history import percentile
from tests.faults.load import at_once
from tests.faults.wire import KeptConnections

pytestmark = [pytest.mark.timeout(170), pytest.mark.invariant("INV-016", "INV-025", "INV-026")]


@fairly
async def test_f21_pool_exhausted(shared: FaultHarness) -> None:
    """500 at once, 8 connections, 50 ms away: what the queue cannot hold is told so at once, all are served in the end."""
    dsn = through(shared.database.api, shared.proxy.port)
    async with serving(dsn, METAGATE_QUEUE="32") as gate:
        await wait_until_known(shared, gate)

        async def fault(trial: Trial) -> None:
            shared.proxy.latency = 0.025
            try:
                lives = [trial.load.life() for _ in range(500)]
                await asyncio.gather(*[trial.load.live(life) for life in lives])
            finally:
                shared.proxy.latency = 0.0
            assert all(life.done for life in lives)

        bounds = Bounds(files=1_200)
        trial = await shared.trial("F21", fault, gates=(gate,), bounds=bounds)
        excess = [call.seconds for call in trial.history.calls if call.answer.get("code") == "OVERLOADED"]
        median = percentile(excess, 0.5)
        trial.add_figures(overloaded=len(excess), told_in=round(median, 3))
        assert excess
        assert median < 0.1


@fairly
@pytest.mark.parametrize("size", [2_000, pytest.param(5_000, marks=pytest.mark.slow)])
async def test_f23_herd(shared: FaultHarness, size: int) -> None:
    """A cluster restarts: everybody boots within 2 s by a fresh connection; all are served, once each, soon."""
    dsn = through(shared.database.api, shared.proxy.port)
    async with serving(dsn, workers=1) as item, serving(dsn, workers=1) as other:
        await wait_until_known(shared, item)
        await wait_until_known(shared, other)
        drained = 0.0

        async def fault(trial: Trial) -> None:
            nonlocal drained
            sides = [replace(trial.load, line=KeptConnections(gate.address), keep=False) for gate in (item, other)]
            lives = [trial.load.life() for _ in range(size)]

            async def boots(at: int) -> None:
                await asyncio.sleep(2 * at / size)
                attempt = 0
                while not await sides[at % 2].step(lives[at]):
                    await asyncio.sleep(trial.load.pause(attempt))
                    attempt += 1

            began = time.monotonic()
            await asyncio.gather(*[boots(at) for at in range(size)])
            drained = time.monotonic() - began
            for life in lives:
                life.done = True

        trial = await shared.trial("F23", fault, gates=(item, other), bounds=Bounds(files=6_000, connections=40))
        trial.add_figures(herd=size, drained_in=round(drained, 1))
        assert drained < 30


@fairly
async def test_f24_retry_storm(shared: FaultHarness) -> None:
    """Clients that retry at once while the database is away: when it is back, so is success."""

    async def fault(_trial: Trial) -> None:
        await shared.proxy.refuse()
        await asyncio.sleep(2)
        await shared.proxy.start()

    await shared.trial("F24", fault, pause=at_once)
