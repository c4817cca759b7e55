"""Retention runs beside everything else, in batches, and survives a database that is away."""

import asyncio
from datetime import timedelta

import pytest

from metagate_operator.retention import BATCH, PACKETS, RetentionTask
from metagate_store.errors import StoreUnavailable
from metagate_store.maintenance import Purged


class RetentionStoreStub:
    def __init__(self, *, failures: int = 0, batches: int = 1) -> None:
        self.failures, self.batches = failures, batches
        self.purges: list[tuple[timedelta, bool]] = []
        self.packets: list[timedelta] = []
        self.clean = asyncio.Event()

    async def prepare_partitions(self, days: int = 2) -> int:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable
        return days

    async def purge_packets(self, retention: timedelta, *, batch: int = PACKETS) -> int:
        self.packets.append(retention)
        return batch if len(self.packets) < 3 else 0

    async def purge(self, retention: timedelta, *, mirroring: bool, batch: int = BATCH) -> Purged:
        self.purges.append((retention, mirroring))
        self.batches -= 1
        if self.batches <= 0:
            self.clean.set()
        return Purged(startups=batch if self.batches > 0 else 3, partitions=0, keys=0)


@pytest.mark.invariant("INV-028")
async def test_it_goes_on_until_nothing_is_due() -> None:
    """A full batch is followed by another one; the retention and the mirror's state are passed on."""
    store = RetentionStoreStub(batches=3)
    await RetentionTask(store, retention=timedelta(hours=72), mirroring=True).run_once()
    assert store.purges == [(timedelta(hours=72), True)] * 3
    assert store.packets == [timedelta(hours=72)] * 3


async def test_a_database_that_is_away_is_tried_again() -> None:
    """An outage postpones, it does not end the task."""
    store = RetentionStoreStub(failures=2)
    task = asyncio.create_task(RetentionTask(store, retention=timedelta(1), mirroring=False, every=0.001).run())
    async with asyncio.timeout(5):
        await store.clean.wait()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
