"""Counts components that booted and never said how it went, for whoever is on call (INV-022).

Nothing is written and nobody is told: absence of READY is state that everybody can see, and this is a number of it.
Best effort, in the writer's process, with a bounded look at the newest sessions of each tenant.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

import structlog
from prometheus_client import Gauge

from metagate_store.errors import StoreUnavailable

_log = structlog.stdlib.get_logger("metagate.overdue")

OVERDUE: Final = Gauge(
    "metagate_components_overdue", "Components whose deadline passed in the last hour without a report, nor a later one"
)
SESSIONS: Final = 2_000
"""So many of the newest sessions of each tenant are looked at."""


class OverdueStore(Protocol):
    """What `metagate_store.maintenance.MaintenanceStore` offers for this."""

    async def overdue(self, sessions: int) -> int: ...


class OverdueCounter:
    """Counts now and then, for ever; ends only with its task. A database that is away leaves the last number."""

    def __init__(self, store: OverdueStore, *, every: float = 30.0) -> None:
        self._store, self._every = store, every

    async def run(self) -> None:
        while True:
            try:
                OVERDUE.set(await self._store.overdue(SESSIONS))
            except StoreUnavailable as error:
                _log.warning("overdue.not_counted", reason=str(error))
            except Exception:  # noqa: BLE001 - best effort: it must never end the writer
                _log.exception("overdue.failed")
            await asyncio.sleep(self._every)
