"""F07…F12: the way to the database is a black hole, resets, refuses, is long, loses answers, drips."""

import asyncio

import pytest
from tests.faults import results
from tests.faults.fairness import fairly
from tests.faults.fault_harness import FaultHarness, Trial, wait_until_known
from tests.faults.gate import serving, through
from tests.faults.history import percentile

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-016", "INV-025", "INV-026")]

LONGER = [3, pytest.param(10, marks=pytest.mark.slow)]


@pytest.mark.parametrize("seconds", LONGER)
@fairly
async def test_f07_blackhole(shared: FaultHarness, seconds: int) -> None:
    """Nothing passes and nothing is closed: every answer by the deadline, 503."""

    async def fault(_trial: Trial) -> None:
        shared.proxy.blackhole = True
        await asyncio.sleep(seconds)
        shared.proxy.blackhole = False

    trial = await shared.trial("F07", fault)
    inside = trial.inside("bootstrap", after=0.2)
    assert {call.status for call in inside} == {503}


@pytest.mark.slow
async def test_f07_would_notice_late_answers(shared: FaultHarness) -> None:
    """The proof of the proof: a gate that may take four times as long breaks the promise about time in the black hole."""
    async with serving(through(shared.database.api, shared.proxy.port), METAGATE_DEADLINE_MS="2000") as gate:
        await wait_until_known(shared, gate)

        async def fault(_trial: Trial) -> None:
            shared.proxy.blackhole = True
            await asyncio.sleep(2)
            shared.proxy.blackhole = False

        try:
            with pytest.raises(AssertionError, match="I4"):
                await shared.trial("F07-late", fault, gates=(gate,))
        finally:
            results.FOUND.pop("F07-late", None)


@fairly
async def test_f08_reset_storm(shared: FaultHarness) -> None:
    """Every connection is reset every 300 ms: errors, no leak, and on."""

    async def fault(_trial: Trial) -> None:
        for _ in range(10):
            shared.proxy.abort()
            await asyncio.sleep(0.3)

    await shared.trial("F08", fault)


@fairly
async def test_f09_refused(shared: FaultHarness) -> None:
    """Nobody listens: the refusal is as quick as the kernel's."""

    async def fault(_trial: Trial) -> None:
        await shared.proxy.refuse()
        await asyncio.sleep(3)
        await shared.proxy.start()

    trial = await shared.trial("F09", fault)
    quick = percentile((call.seconds for call in trial.during(after=0.3) if call.status == 503), 0.5)
    trial.add_figures(refused_in=round(quick, 3))
    assert quick < 0.05


@pytest.mark.parametrize("publishing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["quiet", "publishing"])
@fairly
async def test_f10_latency_in_steps(shared: FaultHarness, *, publishing: bool) -> None:
    """The way gets longer: all succeed while one round trip fits the query's time, none beyond, and on by itself.

    While everybody's packet changes twice a second, nearly every bootstrap is told a packet that it has to check before
    it may ask again (D-38): two round trips, of which each waits for the one before it. That budget ends earlier.
    """
    steps: dict[int, tuple[float, float]] = {}

    async def fault(trial: Trial) -> None:
        try:
            for milliseconds in (5, 25, 50, 100, 250):
                shared.proxy.latency = milliseconds / 1_000
                began = trial.load.now
                await asyncio.sleep(1.5)
                steps[milliseconds] = (began, trial.load.now)
        finally:
            shared.proxy.latency = 0.0

    trial = await shared.trial("F10", fault, publishing=publishing)
    share: dict[int, float] = {}
    for milliseconds, (began, ended) in steps.items():
        calls = [call for call in trial.history.calls if began + 0.3 <= call.start < ended - 0.5]
        requests = [call for call in calls if call.operation in {"bootstrap", "ready", "failed"}]
        share[milliseconds] = round(sum(call.acked for call in requests) / len(requests), 3)
    trial.add_figures(**{f"success_by_one_way_ms{'_publishing' if publishing else ''}": share})
    assert min(share[one_way] for one_way in ((5, 25) if publishing else (5, 25, 50))) >= 0.99
    assert share[250] == 0.0


@fairly
async def test_f11_committed_and_not_heard(shared: FaultHarness) -> None:
    """A fifth of the replies is lost after the commit: the retry is given the same session, and says so."""

    async def fault(_trial: Trial) -> None:
        shared.proxy.cut = 0.2
        await asyncio.sleep(4)
        shared.proxy.cut = 0.0

    before = shared.proxy.cuts
    trial = await shared.trial("F11", fault)
    trial.add_figures(cut=shared.proxy.cuts - before)
    assert trial.figures.replayed > 0
    assert shared.proxy.cuts - before >= 10


@fairly
async def test_f12_slow_drip(shared: FaultHarness) -> None:
    """A byte every 50 ms: nothing waits for the end of it."""

    async def fault(_trial: Trial) -> None:
        shared.proxy.drip = 0.05
        await asyncio.sleep(3)
        shared.proxy.drip = 0.0
        shared.proxy.abort()

    trial = await shared.trial("F12", fault)
    inside = trial.inside("bootstrap", after=0.2)
    assert {call.status for call in inside} == {503}
