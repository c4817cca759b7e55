"""Hands verdicts to the reporter in a task of its own, the freshest first, so that a slow reporter delays nobody."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable

import structlog

from metagate_crds.objects import ObjectKey
from metagate_crds.verdict import Verdict
from metagate_operator.reconcile.health import WriterHealth
from metagate_operator.sources.source import Reporter

_log = structlog.stdlib.get_logger("metagate.report")


class StatusQueue:
    """Holds the latest verdict of each object until the reporter has taken it."""

    def __init__(self, reporter: Reporter, health: WriterHealth, *, batch: int = 64) -> None:
        self._reporter, self._health, self._batch = reporter, health, batch
        self._waiting: OrderedDict[ObjectKey, Verdict] = OrderedDict()
        self._revision = 0
        self._wake = asyncio.Event()

    def enqueue(self, verdicts: Iterable[Verdict], revision: int) -> None:
        """Queue what a committed publish decided; the last of them is reported first."""
        for verdict in verdicts:
            self._waiting[verdict.key] = verdict
            self._waiting.move_to_end(verdict.key)
        self._revision = revision
        self._health.reports_waiting = len(self._waiting)
        if self._waiting:
            self._wake.set()

    def forget(self, keys: Iterable[ObjectKey]) -> None:
        """Nothing is left to say about these: they are gone."""
        for key in keys:
            self._waiting.pop(key, None)

    async def run(self) -> None:
        """Report for ever. A reporter that fails is logged; the next verdict or resync brings the matter up again."""
        while True:
            await self._wake.wait()
            while self._waiting:
                batch = [self._waiting.popitem()[1] for _ in range(min(self._batch, len(self._waiting)))]
                try:
                    await self._reporter.report(batch, self._revision)
                except Exception as error:  # noqa: BLE001 - reporting never ends the writer
                    _log.exception("report.failed", error=type(error).__name__, objects=len(batch))
                self._health.reports_waiting = len(self._waiting)
            self._wake.clear()
