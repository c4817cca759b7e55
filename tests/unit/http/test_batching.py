"""Natural batching, with a statement that tests hold open by hand."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.deadline import DeadlineExceeded, Overloaded


class Statements:
    """A database under the test's control: each statement waits for `let`."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gates: list[asyncio.Event] = []
        self.fails: Callable[[Sequence[int]], bool] = lambda _batch: False

    async def run(self, asks: Sequence[int]) -> list[int]:
        self.batches.append(list(asks))
        gate = asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        if self.fails(asks):
            raise ConnectionError("gone")
        return [ask * 10 for ask in asks]

    async def let(self, at: int) -> None:
        while len(self.gates) <= at:
            await asyncio.sleep(0)
        self.gates[at].set()
        await asyncio.sleep(0)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


async def ask_many(batcher: Batcher[int, int], *asks: int, seconds: float = 5.0) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(ask, soon(seconds))) for ask in asks]
    for _ in range(4):
        await asyncio.sleep(0)
    return tasks


async def test_what_arrives_meanwhile_travels_together() -> None:
    """One question goes at once; what arrives while two statements are in flight is carried by the next one."""
    database = Statements()
    batcher = Batcher(database.run, name="t")
    first = await ask_many(batcher, 1)
    second = await ask_many(batcher, 2)
    rest = await ask_many(batcher, 3, 4, 5)
    assert database.batches == [[1], [2]]
    await database.let(0)
    await asyncio.gather(*first)
    await asyncio.sleep(0)
    assert database.batches == [[1], [2], [3, 4, 5]]
    await database.let(1)
    await database.let(2)
    assert [await task for task in (*first, *second, *rest)] == [10, 20, 30, 40, 50]


async def test_what_arrives_in_one_turn_travels_together() -> None:
    """Questions of the same turn of the loop need no waiting to share a statement."""
    database = Statements()
    tasks = await ask_many(Batcher(database.run, name="t"), *range(10))
    assert database.batches == [list(range(10))]
    await database.let(0)
    assert [await task for task in tasks] == [ask * 10 for ask in range(10)]


async def test_rows_are_bounded() -> None:
    """No statement carries more rows than the shape allows, and at most two are in flight."""
    database = Statements()
    tasks = await ask_many(Batcher(database.run, name="t", limits=BatchLimits(rows=4)), *range(10))
    assert database.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    for at in range(3):
        await database.let(at)
    assert [await task for task in tasks] == [ask * 10 for ask in range(10)]


async def test_a_full_queue_refuses_at_once() -> None:
    """Beyond the bound the answer is immediate, and nothing is asked for it."""
    database = Statements()
    batcher = Batcher(database.run, name="t", limits=BatchLimits(in_flight=1, queue=2))
    tasks = await ask_many(batcher, 1)
    tasks += await ask_many(batcher, 2, 3)
    with pytest.raises(Overloaded):
        await batcher.submit(4, soon())
    await database.let(0)
    await database.let(1)
    assert [await task for task in tasks] == [10, 20, 30]
    assert 4 not in [ask for batch in database.batches for ask in batch]


async def test_the_deadline_holds_whatever_the_statement_does() -> None:
    """A statement that never returns costs its questions their deadline, no more; latecomers are not asked for."""
    database = Statements()
    batcher = Batcher(database.run, name="t", limits=BatchLimits(in_flight=1, statement_seconds=0.2))
    started = soon(0)
    tasks = await ask_many(batcher, 1, seconds=0.05)
    tasks += await ask_many(batcher, 2, seconds=0.05)
    for task in tasks:
        with pytest.raises(DeadlineExceeded):
            await task
    assert soon(0) - started < 0.15
    late = await ask_many(batcher, 3, seconds=2)
    await database.let(1)
    assert await late[0] == 30
    assert database.batches == [[1], [3]], "who is gone is not asked for"


async def test_a_statement_that_swallows_cancellation_loses_its_slot() -> None:
    """The slot is free again after the statement's own bound, even when the driver hangs on."""
    stuck = asyncio.Event()

    async def run(asks: Sequence[int]) -> list[int]:
        if 1 in asks:
            while not stuck.is_set():
                try:
                    await stuck.wait()
                except asyncio.CancelledError:
                    continue
        return list(asks)

    batcher: Batcher[int, int] = Batcher(run, name="t", limits=BatchLimits(in_flight=1, statement_seconds=0.05))
    first = await ask_many(batcher, 1, seconds=0.02)
    with pytest.raises(DeadlineExceeded):
        await first[0]
    assert await batcher.submit(2, soon(2)) == 2
    stuck.set()
    await asyncio.sleep(0.01)


async def test_a_failed_batch_is_asked_again_row_by_row() -> None:
    """One poisonous row spoils no neighbour; questions are renewed before they are asked again."""
    observations: list[list[int]] = []

    async def run(asks: Sequence[int]) -> list[int]:
        observations.append(list(asks))
        if any(ask % 100 == 7 for ask in asks):
            raise ValueError("poison")
        return [ask * 10 for ask in asks]

    batcher: Batcher[int, int] = Batcher(run, name="t", renew=lambda ask: ask + 100)
    tasks = await ask_many(batcher, 1, 7, 3)
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert observations == [[1, 7, 3], [101], [107], [103]]
    assert outcomes[0] == 1_010
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == 1_030


async def test_two_failures_in_a_row_are_nobodys_fault() -> None:
    """When the database is away, a batch costs three statements, not one per row."""
    calls = 0

    async def run(_asks: Sequence[int]) -> list[int]:
        nonlocal calls
        calls += 1
        raise ConnectionError("away")

    batcher: Batcher[int, int] = Batcher(run, name="t")
    outcomes = await asyncio.gather(*await ask_many(batcher, *range(50)), return_exceptions=True)
    assert all(isinstance(outcome, ConnectionError) for outcome in outcomes)
    assert calls == 3


async def test_an_abandoned_question_hurts_nobody() -> None:
    """A caller that is cancelled leaves its neighbours their answers."""
    database = Statements()
    tasks = await ask_many(Batcher(database.run, name="t"), 1, 2)
    tasks[0].cancel()
    await database.let(0)
    assert await tasks[1] == 20
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]


async def test_a_batch_that_collects_takes_what_arrives_meanwhile() -> None:
    """The first question does not leave alone: what is asked before its time is up travels with it."""
    database = Statements()
    batcher = Batcher(database.run, name="t", limits=BatchLimits(in_flight=1, collect_seconds=0.05))
    first = await ask_many(batcher, 1)
    assert database.batches == []
    rest = await ask_many(batcher, 2, 3)
    while not database.gates:
        await asyncio.sleep(0.001)
    assert database.batches == [[1, 2, 3]]
    await database.let(0)
    assert [await task for task in (*first, *rest)] == [10, 20, 30]


async def test_a_batch_that_collected_only_who_gave_up_asks_nothing() -> None:
    """The deadline passed while it collected; the next question is asked as ever."""
    database = Statements()
    batcher = Batcher(database.run, name="t", limits=BatchLimits(in_flight=1, collect_seconds=0.05))
    with pytest.raises(DeadlineExceeded):
        await batcher.submit(1, soon(0.01))
    task = (await ask_many(batcher, 2))[0]
    await database.let(0)
    assert await task == 20
    assert database.batches == [[2]]
