"""How the relay spares whoever shares the machine with it: rests in proportion to its work, as long as that keeps up."""

import asyncio
import heapq
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from metagate_operator.ledger.ledger_client import Accepted, LedgerUnavailable, ReceiptOutcome
from metagate_operator.ledger.relay import Relay, RelayPace
from metagate_store.outbox import Batch
from metagate_store.rows import OutboxRow

PACE = RelayPace(rows=2, rest=8.0, idle_seconds=0.25, measure_seconds=5.0)
NOW = datetime(2027, 1, 1, tzinfo=UTC)


class OutboxStub:
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


class PacedMachine:
    """A clock that only work moves, and every sleep that was asked for; the measuring waits for its turn."""

    def __init__(self, seconds: float, outages: int = 0) -> None:
        self.seconds, self.outages = seconds, outages
        self.now = 0.0
        self.rests: list[float] = []

    async def send(self, receipts: Sequence[Mapping[str, Any]]) -> list[ReceiptOutcome]:
        self.now += self.seconds
        if self.outages:
            self.outages -= 1
            raise LedgerUnavailable("down")
        return [Accepted() for _ in receipts]

    async def close(self) -> None: ...

    async def sleep(self, seconds: float) -> None:
        if seconds == PACE.measure_seconds:
            await asyncio.sleep(0)
            return
        self.rests.append(seconds)
        if seconds == PACE.idle_seconds:
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def rests(outbox: OutboxStub, machine: PacedMachine, pace: RelayPace = PACE) -> list[float]:
    """Every pause of the one drainer, until it found its outbox empty."""
    relay = Relay([outbox], machine, pace=pace, jitter=lambda: 0.0, clock=lambda: machine.now, sleep=machine.sleep)
    running = asyncio.create_task(relay.run())
    async with asyncio.timeout(10):
        while PACE.idle_seconds not in machine.rests:
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return machine.rests[:-1]


async def test_a_batch_is_followed_by_a_rest_in_proportion_to_what_it_took():
    """A busy machine makes batches slow and rests long; at full speed there is none."""
    assert await rests(OutboxStub(3), PacedMachine(0.5)) == [4.0, 4.0, 4.0]
    assert (
        await rests(OutboxStub(3), PacedMachine(0.5), RelayPace(rows=2, rest=0.0, idle_seconds=PACE.idle_seconds))
        == [0.0] * 3
    )


async def test_a_young_outbox_is_no_reason_to_hurry():
    """Younger than one look to the next: whatever it did in between."""
    assert set(await rests(OutboxStub(6, [1.0, 2.0, 3.0, 4.0]), PacedMachine(1.0))) == {8.0}


async def test_the_older_the_outbox_the_shorter_the_rests():
    """Evenly from the gentle pace to none at all, and gentle again as soon as it is young."""
    result = await rests(OutboxStub(8, [5.0, 10.0, 32.5, 60.0, 600.0, 3.0]), PacedMachine(1.0))
    changes = [rest for at, rest in enumerate(result) if not at or rest != result[at - 1]]
    assert [round(rest, 2) for rest in changes] == [8.0, 7.27, 4.0, 0.0, 8.0]


class Arrivals:
    """An outbox that fills at a steady rate, a ledger that needs time, and a clock that both move: an hour in a second."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self.sent, self.now = per_second, 0, 0.0
        self.due: list[tuple[float, int, asyncio.Future[None]]] = []

    @property
    def arrived(self) -> int:
        return int(self.per_second * self.now)

    @property
    def lag(self) -> float:
        return self.now - (self.sent + 1) / self.per_second if self.arrived > self.sent else 0.0

    @asynccontextmanager
    async def batch(self, limit: int = 256, *, share: int = 0, shares: int = 1) -> AsyncIterator[Batch]:
        row = OutboxRow(1, UUID(int=1), "PUBLISHED", None, 7, {}, NOW, share * shares)
        yield Batch([row] * min(limit, self.arrived - self.sent))

    async def backlog(self) -> tuple[int, float]:
        return self.arrived - self.sent, self.lag

    async def refused(self) -> int:
        return 0

    async def send(self, receipts: Sequence[Mapping[str, Any]]) -> list[ReceiptOutcome]:
        await self.sleep(0.1 + 0.01 * len(receipts))
        self.sent += len(receipts)
        return [Accepted() for _ in receipts]

    async def close(self) -> None: ...

    async def sleep(self, seconds: float) -> None:
        waiting = asyncio.get_running_loop().create_future()
        heapq.heappush(self.due, (self.now + seconds, id(waiting), waiting))
        await waiting

    async def until(self, seconds: float) -> None:
        while self.now < seconds:
            for _ in range(8):
                await asyncio.sleep(0)
            self.now, _, waiting = heapq.heappop(self.due)
            waiting.set_result(None)


FULL = 256 / (0.1 + 0.01 * 256)
GENTLE = 16 / (0.26 * 10)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.3, 0.5, 0.7, 0.9])
async def test_what_can_be_carried_over_is_never_far_behind(share: float):
    """At any rate below full speed the lag settles, whether it began with an empty outbox or after an outage."""
    world = Arrivals(share * FULL)
    relay = Relay([world], world, pace=RelayPace(), jitter=lambda: 0.0, clock=lambda: world.now, sleep=world.sleep)
    running = asyncio.create_task(relay.run())
    await world.until(600)
    settled = world.lag
    world.sent -= min(world.sent, round(300 * world.per_second * (1 - share)))
    await world.until(1_800)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert max(settled, world.lag) < (5 if world.per_second < GENTLE / 2 else 65)
