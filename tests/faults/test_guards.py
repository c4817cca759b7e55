"""What no row of the table would show for certain: promises whose breaking is silent, each with a fault made for it."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from tests.faults import results
from tests.faults.fairness import fairly
from tests.faults.fault_harness import FaultHarness, Trial
from tests.faults.history import RequestHistory
from tests.faults.promises import mixed

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-016")]


@contextmanager
def beside(row: str) -> Iterator[None]:
    """Not a row of the table: what it finds is not told there."""
    try:
        yield
    finally:
        results.FOUND.pop(row, None)


@fairly
async def test_a_commit_that_fails_is_not_acknowledged(shared: FaultHarness) -> None:
    """The statement succeeds and its commit does not: who answers before the commit has promised what is not stored."""

    async def fault(trial: Trial) -> None:
        async with shared.superuser() as connection:
            await connection.execute(
                "CREATE FUNCTION public.too_late() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN RAISE EXCEPTION ''no room'' USING ERRCODE = ''disk_full''; END'; "
                "GRANT EXECUTE ON FUNCTION public.too_late() TO metagate_owner; "
                "CREATE CONSTRAINT TRIGGER too_late AFTER INSERT ON metagate.idempotency DEFERRABLE INITIALLY DEFERRED "
                "FOR EACH ROW EXECUTE FUNCTION public.too_late()"
            )
            await asyncio.sleep(2)
            trial.lifting()
            await connection.execute("DROP FUNCTION public.too_late() CASCADE")

    with beside("commit-fails"):
        trial = await shared.trial("commit-fails", fault)
        inside = trial.inside("bootstrap", after=0.2)
        assert {call.status for call in inside} == {503}


@pytest.mark.slow
@fairly
async def test_many_editions_and_no_mix(shared: FaultHarness) -> None:
    """Editions published as fast as they can be, over a slow line: each packet, its digest and its session are of one."""

    async def fault(_trial: Trial) -> None:
        shared.proxy.latency = 0.02
        writing = asyncio.create_task(shared.keep_publishing(pause=0.05))
        await asyncio.sleep(3)
        shared.proxy.latency = 0.0
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

    with beside("many-editions"):
        before = shared.editions
        trial = await shared.trial("many-editions", fault, publishing=False)
        assert shared.editions - before > 20
        assert told_editions(trial.history) > 5


def told_editions(history: RequestHistory) -> int:
    """How many different editions somebody was told; none of them mixed."""
    assert not list(mixed(history))
    return len({call.answer["revision"] for call in history.calls if call.operation == "bootstrap" and call.acked})
