"""Retention: creates the partitions of the next days, and removes startup sessions that are older than the retention
(D-39) and packets that nothing refers to any more.

It runs in the operator's process and never in the API's. Whatever fails is done the next time.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final, Protocol

import structlog

from metagate_store.errors import StoreUnavailable
from metagate_store.maintenance import Purged

_log = structlog.stdlib.get_logger("metagate.housekeeping")
BATCH: Final = 5000
PACKETS: Final = 500
"""Packets are large, and none is removed while a publication is written: a batch is short."""


class RetentionStore(Protocol):
    """What `metagate_store.maintenance.MaintenanceStore` offers for this."""

    async def prepare_partitions(self, days: int = 2) -> int: ...
    async def purge(self, retention: timedelta, *, mirroring: bool, batch: int = BATCH) -> Purged: ...
    async def purge_packets(self, retention: timedelta, *, batch: int = PACKETS) -> int: ...


class RetentionTask:
    """`retention` of startup sessions; while `mirroring`, what the ledger has not seen stays."""

    def __init__(self, store: RetentionStore, *, retention: timedelta, mirroring: bool, every: float = 300.0) -> None:
        self._store, self._retention, self._mirroring, self._every = store, retention, mirroring, every

    async def run(self) -> None:
        """Repeats `run_once` until cancelled."""
        while True:
            try:
                await self.run_once()
            except StoreUnavailable as error:
                _log.warning("housekeeping.postponed", reason=str(error))
            except Exception:  # noqa: BLE001 - best effort: it must never end the writer
                _log.exception("housekeeping.failed")
            await asyncio.sleep(self._every)

    async def run_once(self) -> None:
        """Everything that is due, in batches, so that nothing is locked for long."""
        await self._store.prepare_partitions()
        startups = partitions = keys = 0
        while True:
            purged = await self._store.purge(self._retention, mirroring=self._mirroring, batch=BATCH)
            startups, partitions, keys = (
                startups + purged.startups,
                partitions + purged.partitions,
                keys + purged.keys,
            )
            if max(purged.startups, purged.keys) < BATCH:
                break
        packets = removed = await self._store.purge_packets(self._retention, batch=PACKETS)
        while removed >= PACKETS:
            removed = await self._store.purge_packets(self._retention, batch=PACKETS)
            packets += removed
        if startups or partitions or packets:
            _log.info("purged", startups=startups, partitions=partitions, idempotency_keys=keys, packets=packets)
