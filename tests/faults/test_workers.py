"""F35, F36: the gate's own processes killed, drained, and paused with everything else."""

import asyncio
import signal
import time

import pytest
from tests.faults import signals
from tests.faults.fairness import fairly
from tests.faults.fault_harness import Bounds, FaultHarness, Trial, wait_until_known
from tests.faults.gate import ready, serving, through
from tests.faults.history import HUNG
from tests.faults.wire import KeptConnections
from tests.integration.api.gate_fixture import SHARED_SECRET

pytestmark = [pytest.mark.timeout(170), pytest.mark.invariant("INV-016", "INV-025")]

LEEWAY = 30


@fairly
async def test_f35_worker_killed(shared: FaultHarness) -> None:
    """kill -9 of a worker: its connections break, the other one answers, nothing acknowledged is lost; it is replaced."""

    async def fault(_trial: Trial) -> None:
        signals.kill([shared.gate.workers[0].pid])
        await asyncio.sleep(1)

    trial = await shared.trial("F35", fault, bounds=Bounds(breaks=True))
    trial.add_figures(broken_connections=sum(call.status == 0 for call in trial.history.calls))
    await ready(shared.gate, 2)
    await wait_until_known(shared, shared.gate)


@fairly
async def test_f35_every_worker_killed(shared: FaultHarness) -> None:
    """kill -9 of all workers at once: nobody answers until they are replaced, by themselves; nothing acknowledged is lost."""

    async def fault(_trial: Trial) -> None:
        killed = [worker.pid for worker in shared.gate.workers]
        signals.kill(killed)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if len([worker for worker in shared.gate.workers if worker.pid not in killed]) == len(killed):
                return

    trial = await shared.trial("F35", fault, bounds=Bounds(breaks=True, deadline=None))
    assert not [call for call in trial.history.calls if call.status == HUNG]
    most = max(call.end - call.start for call in trial.history.calls)
    trial.add_figures(
        longest_wait_for_a_worker=round(most, 2),
        broken_when_all_were_killed=sum(call.status == 0 for call in trial.history.calls),
    )
    await ready(shared.gate, 2)
    await wait_until_known(shared, shared.gate)


@fairly
async def test_f35_rolling(shared: FaultHarness) -> None:
    """SIGTERM of one of two replicas: what it took it answers, the clients go on at the other."""
    dsn = through(shared.database.api, shared.proxy.port)
    async with serving(dsn, workers=1) as item, serving(dsn, workers=1) as other:
        await wait_until_known(shared, item)
        await wait_until_known(shared, other)

        async def fault(_trial: Trial) -> None:
            item.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(item.process.wait, 15) == 0

        trial = await shared.trial("F35", fault, gates=(item, other), bounds=Bounds(breaks=True, connections=40))
        answered_by_half = [
            call for call in trial.during() if call.status == 0 and call.answer.get("error") == "ValueError"
        ]
        assert not answered_by_half


@fairly
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
async def test_f36_everything_paused(shared: FaultHarness, seconds: int) -> None:
    """Gate, database and clients stand still and go on: no manual step, and a token that expired meanwhile is told so."""
    principal = shared.principals[0]
    lifetime = 300
    token = SHARED_SECRET.mint(principal.subject, now=time.time() - lifetime - LEEWAY + 12, lifetime=lifetime)
    until = time.time() + 13
    codes: list[tuple[int, str]] = []

    async def boot() -> None:
        line = KeptConnections(shared.gate.address)
        headers = {"authorization": f"Bearer {token}"}
        answer = await line.ask("POST", "/v1/bootstrap", headers=headers, body=b'{"component_key":"t"}', keep=False)
        codes.append((answer.status, answer.json().get("code", "")))

    async def fault(trial: Trial) -> None:
        await boot()
        trial.load.held = True
        await asyncio.sleep(0.7)
        with signals.stopped([*shared.gate.everything, *signals.family(shared.postgres.pid)]):
            await asyncio.sleep(max(seconds, until - time.time()))
        trial.load.held = False

    # A connection that was kept over the pause may have outlived its keep-alive time.
    trial = await shared.trial("F36", fault, publishing=False, bounds=Bounds(breaks=True))
    await boot()
    assert codes[0][0] == 200
    assert codes[1][0] == 401
    trial.add_figures(expired_token=codes[1][1], paused=seconds)
