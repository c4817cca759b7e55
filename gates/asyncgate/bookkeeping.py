"""The pass (AG-13): what is overdue is written down, needs that others closed are met, what is old is purged.

Any number of processes may run it: the database lets one at a time, and the others skip their turn. What can be leased
never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from asyncgate import metrics
from asyncgate.database import AsyncGateDatabase
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.deadline import DeadlineExceeded, Overloaded

_NOT_NOW: Final = (*LOST, DeadlineExceeded, Overloaded)

_log = structlog.get_logger("asyncgate.pass")


class Bookkeeping:
    """`on_change`: called when something may be leased that could not be before."""

    def __init__(
        self,
        database: Callable[[], AsyncGateDatabase],
        *,
        seconds: float,
        archive_days: int,
        on_change: Callable[[], None],
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._archive_days = archive_days
        self._on_change = on_change

    async def once(self) -> None:
        """One round, and what the metrics show. Raises what the database raises."""
        database = self._database()
        counts = await database.keep_books(archive_days=self._archive_days)
        if counts is not None:
            metrics.LEASES.labels("expired").inc(counts.expired)
            metrics.ENDED.labels("escalated").inc(counts.escalated)
            if counts.expired or counts.needs_met:
                self._on_change()
        totals = await database.totals()
        metrics.WAITING.set(totals.waiting)
        metrics.LEASED.set(totals.leased)
        oldest = totals.oldest_available_at
        metrics.OLDEST_SECONDS.set(0 if oldest is None else max(0.0, (totals.as_of - oldest).total_seconds()))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """A round every so many seconds while the block runs."""
        passing = asyncio.create_task(self._pass(), name="the pass")
        try:
            yield
        finally:
            passing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await passing

    async def _pass(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.once()
            except _NOT_NOW as error:
                _log.warning("pass_failed", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001 - a defect in one round must not end all others
                _log.error("pass_failed", error=type(error).__qualname__, exc_info=error)
