"""Beside the requests: forwards and calls that nobody finished are escalated; what has served its time is purged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from interrogate import metrics
from interrogate.admission_receipt import read_admission
from interrogate.call_recorder import CallRecorder, OutcomeUnrecorded
from interrogate.database import InterrogateDatabase
from interrogate.escalation import ForwardedAdmission
from interrogate.forwarder import AdmissionForwarder
from interrogate.forwarding import ForwardResult
from interrogate.forwards import StaleForward
from interrogate.tool_call import CallOutcome
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.deadline import DeadlineExceeded, Overloaded

ABANDONED_SECONDS: Final = 60.0
"""A forward that is pending for so long belongs to a process that died: no forward may take that long. A call of a tool
is given as much on top of its own time.
"""
_NOT_NOW: Final = (*LOST, DeadlineExceeded, Overloaded, OutcomeUnrecorded)

_log = structlog.get_logger("interrogate.sweep")


class ForwardSweep:
    """Any number of processes may sweep at the same time: what one settled stays settled."""

    def __init__(
        self,
        database: Callable[[], InterrogateDatabase],
        forwarder: AdmissionForwarder,
        calls: CallRecorder,
        *,
        seconds: float,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        self._database = database
        self._forwarder = forwarder
        self._calls = calls
        self._seconds = seconds
        self._abandoned_seconds = abandoned_seconds

    async def sweep(self) -> int:
        """Fail what was abandoned. Returns how many decisions that were. Raises Unavailable."""
        database = self._database()
        stale = await database.stale_forwards(self._abandoned_seconds)
        for forward in stale:
            await self._fail(forward)
        await self._end_calls(database)
        metrics.FORWARDS_PENDING.set((await database.pending_forwards()).number)
        await database.purge()
        await database.purge_handles()
        return len(stale)

    async def _end_calls(self, database: InterrogateDatabase) -> None:
        """Calls whose process died before the second commit: nobody knows whether the tool ran (GW-14)."""
        stale = await database.calls.stale(self._abandoned_seconds)
        outcome = CallOutcome(duration_us=None, attempts=None, reason="OUTCOME_UNKNOWN")
        # Together: they share one commit.
        await asyncio.gather(*(self._calls.record(call.tenant, read_admission(call.body), outcome) for call in stale))
        if stale:
            _log.warning("calls_abandoned", calls=len(stale))

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
