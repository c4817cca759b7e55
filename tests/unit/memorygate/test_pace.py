"""How the relay spares whoever shares the machine with it: rests in proportion to its work, as long as that keeps up."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from metagate_operator.ledger_door import Answer, LedgerAway, Taken
from metagate_operator.relay import Pace, Relay
from metagate_store.rows import OutboxRow
from metagate_store.witnessing import Batch

PACE = Pace(rows=2, rest=8.0, idle_seconds=0.25, measure_seconds=5.0)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


class Outbox:
    """Always full for the drainer, until `batches` were taken; tells ages as they are scripted."""

    def __init__(self, batches: int, ages: Sequence[float] = ()) -> None:
        self.batches, self.ages = batches, list(ages)

    @asynccontextmanager
    async def batch(self, limit: int = 256, *, share: int = 0, shares: int = 1) -> AsyncIterator[Batch]:
        assert (share, shares) == (0, 1)
        self.batches -= 1
        row = OutboxRow(1, UUID(int=1), "PUBLISHED", None, 7, {}, NOW, 0)
        yield Batch([row] * (limit if self.batches >= 0 else 0))

    async def backlog(self) -> tuple[int, float]:
        if not self.ages:
            await asyncio.Event().wait()
        return 10_000, self.ages.pop(0)

    async def refused(self) -> int:
        return 0


class Machine:
    """A clock that only work moves, and every sleep that was asked for; the measuring waits for its turn."""

    def __init__(self, seconds: float, outages: int = 0) -> None:
        self.seconds, self.outages = seconds, outages
        self.now = 0.0
        self.rests: list[float] = []

    async def send(self, receipts: Sequence[Mapping[str, Any]]) -> list[Answer]:
        self.now += self.seconds
        if self.outages:
            self.outages -= 1
            raise LedgerAway("down")
        return [Taken() for _ in receipts]

    async def close(self) -> None: ...

    async def sleep(self, seconds: float) -> None:
        if seconds == PACE.measure_seconds:
            await asyncio.sleep(0)
            return
        self.rests.append(seconds)
        if seconds == PACE.idle_seconds:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def rests(outbox: Outbox, machine: Machine, pace: Pace = PACE) -> list[float]:
    """Every pause of the one drainer, until it found its outbox empty."""
    relay = Relay([outbox], machine, pace=pace, jitter=lambda: 1.0, clock=lambda: machine.now, sleep=machine.sleep)
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(10):
        while PACE.idle_seconds not in machine.rests:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return machine.rests[:-1]


async def test_a_batch_is_followed_by_a_rest_in_proportion_to_what_it_took():
    """A busy machine makes batches slow and rests long; at full speed there is none."""
    assert await rests(Outbox(3), Machine(0.5)) == [4.0, 4.0, 4.0]
    assert await rests(Outbox(3), Machine(0.5), Pace(rows=2, rest=0.0, idle_seconds=PACE.idle_seconds)) == [0.0] * 3


async def test_an_outbox_that_grows_older_makes_rests_shorter_and_one_that_does_not_makes_them_long_again():
    """Halved with each look that finds it older, doubled with each that does not, never beyond the pace."""
    found = await rests(Outbox(12, [10.0, 20.0, 30.0, 29.0, 28.0, 27.0, 26.0]), Machine(1.0))
    assert [rest for at, rest in enumerate(found) if not at or rest != found[at - 1]] == [
        8.0,
        4.0,
        2.0,
        1.0,
        2.0,
        4.0,
        8.0,
    ]


async def test_a_young_outbox_is_no_reason_to_hurry():
    """Younger than one look to the next: whatever it did in between."""
    assert set(await rests(Outbox(6, [1.0, 2.0, 3.0, 4.0]), Machine(1.0))) == {8.0}


async def test_an_outage_is_no_reason_to_hurry_afterwards():
    """The outbox grows older while the ledger is away, and the relay comes back as gentle as it was."""
    found = await rests(Outbox(8, [10.0, 20.0, 30.0]), Machine(1.0, outages=6))
    assert found[-1] == 8.0
