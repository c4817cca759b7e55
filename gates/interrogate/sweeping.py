"""Beside the requests: forwards that nobody finished are failed and escalated; what has served its time is purged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from interrogate import metrics
from interrogate.database import InterrogateDatabase
from interrogate.escalation import ForwardedAdmission
from interrogate.forwarder import AdmissionForwarder
from interrogate.forwarding import ForwardResult
from interrogate.forwards import StaleForward
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.deadline import DeadlineExceeded, Overloaded

ABANDONED_SECONDS: Final = 60.0
"""A forward that is pending for so long belongs to a process that died: no forward may take that long."""
_NOT_NOW: Final = (*LOST, DeadlineExceeded, Overloaded)

_log = structlog.get_logger("interrogate.sweep")


class ForwardSweep:
    """Any number of processes may sweep at the same time: what one settled stays settled."""

    def __init__(
        self,
        database: Callable[[], InterrogateDatabase],
        forwarder: AdmissionForwarder,
        *,
        seconds: float,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        self._database = database
        self._forwarder = forwarder
        self._seconds = seconds
        self._abandoned_seconds = abandoned_seconds

    async def sweep(self) -> int:
        """Fail what was abandoned. Returns how many decisions that were. Raises Unavailable."""
        database = self._database()
        stale = await database.stale_forwards(self._abandoned_seconds)
        for forward in stale:
            await self._fail(forward)
        metrics.FORWARDS_PENDING.set((await database.pending_forwards()).number)
        await database.purge()
        return len(stale)

    async def _fail(self, forward: StaleForward) -> None:
        # Nobody knows what the target did: it is told apart from a refusal, and somebody has to look.
        results = [ForwardResult(target, "failed", reason="TIMEOUT") for target in forward.targets]
        about = ForwardedAdmission.of(json.loads(forward.body), escalate_to=forward.escalate_to)
        await self._forwarder.settle(forward.tenant, about, results)
        for result in results:
            metrics.FORWARDS.labels(result.state, result.reason or "").inc()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sweep while the block runs."""
        task = asyncio.create_task(self._run(), name="sweep forwards")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                if swept := await self.sweep():
                    _log.warning("forwards_abandoned", decisions=swept)
            except _NOT_NOW:
                pass  # the database's poller says that it is away
            except Exception as error:  # noqa: BLE001 - a defect in one sweep must not end all others
                _log.error("sweep_failed", error=type(error).__qualname__, exc_info=error)
