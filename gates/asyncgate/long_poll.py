"""Workers that wait for a task (AG-14): one statement asks for all of them, and a client that left is noticed first."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import structlog

from asyncgate import metrics
from asyncgate.lease import Lease, LeaseRequest
from asyncgate.problem_codes import Code
from legivellum.gate.snapshot_poller import LOST
from legivellum.http.deadline import DeadlineExceeded, Overloaded
from legivellum.http.problems import refuse

_POLL_SECONDS: Final = 0.25
_AT_ONCE: Final = 256
"""Most requests of one statement: it holds the locks of their mailboxes."""
_TENANTS_SHARE: Final = 4
_NOT_NOW: Final = (*LOST, DeadlineExceeded, Overloaded)

_log = structlog.get_logger("asyncgate.long_poll")

Ask = Callable[[Sequence[LeaseRequest]], Awaitable[list[tuple[Lease, ...]]]]


@dataclass(eq=False, slots=True)
class Waiter:
    """A request that waits. `has_left`: whether its client has gone, or its credential is refused by now."""

    request: LeaseRequest
    has_left: Callable[[], Awaitable[bool]]
    answer: asyncio.Future[tuple[Lease, ...]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    asked: asyncio.Future[None] | None = None
    """Done when the statement that asks for it has ended; None: no statement does."""


class LongPoll:
    """The waiters of one process, in the order in which they came."""

    def __init__(self, ask: Ask, *, most: int, statement_seconds: float, poll_seconds: float = _POLL_SECONDS) -> None:
        self._ask = ask
        self._most = most
        self._statement_seconds = statement_seconds
        self._poll_seconds = poll_seconds
        self._waiters: dict[Waiter, None] = {}
        self._of_tenant: Counter[UUID] = Counter()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Ask now: this process stored something that may be leased."""
        if self._waiters:
            self._wake.set()

    async def wait(
        self,
        request: LeaseRequest,
        *,
        has_left: Callable[[], Awaitable[bool]],
        leaving: asyncio.Task[None],
        seconds: float,
    ) -> tuple[Lease, ...]:
        """The leases; none after so many seconds or when `leaving` is done. RATE_LIMITED where too many wait."""
        tenant = request.tenant
        if len(self._waiters) >= self._most or self._of_tenant[tenant] >= self._most // _TENANTS_SHARE:
            raise refuse(Code.RATE_LIMITED, "Too many wait here; ask without wait_seconds.")
        waiter = Waiter(request, has_left)
        self._waiters[waiter] = None
        self._of_tenant[tenant] += 1
        metrics.WAITERS.inc()
        try:
            futures: set[asyncio.Future[Any]] = {waiter.answer, leaving}
            await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiter.asked is not None:
                # A statement may issue a lease right now: nobody would know of it until it expires.
                await asyncio.wait({waiter.asked}, timeout=self._statement_seconds)
            return waiter.answer.result() if waiter.answer.done() else ()
        finally:
            del self._waiters[waiter]
            self._of_tenant[tenant] -= 1
            metrics.WAITERS.dec()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ask for the waiters while the block runs."""
        polling = asyncio.create_task(self._poll(), name="ask for workers that wait")
        try:
            yield
        finally:
            polling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await polling

    async def _poll(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                # Jitter, so that processes do not ask in step.
                async with asyncio.timeout(self._poll_seconds * (0.8 + 0.4 * random.random())):  # noqa: S311
                    await self._wake.wait()
            self._wake.clear()
            waiters = list(self._waiters)
            for at in range(0, len(waiters), _AT_ONCE):
                try:
                    await self._answer(waiters[at : at + _AT_ONCE])
                except _NOT_NOW as error:
                    _log.warning("lease_poll_failed", error=type(error).__name__)
                except Exception as error:  # noqa: BLE001 - a defect in one question must not end all others
                    _log.error("lease_poll_failed", error=type(error).__qualname__, exc_info=error)

    async def _answer(self, waiters: list[Waiter]) -> None:
        present = [waiter for waiter in waiters if not waiter.answer.done() and not await waiter.has_left()]
        # A waiter whose time ended while others were looked at is not asked for: nobody would get its lease.
        present = [waiter for waiter in present if waiter in self._waiters]
        if not present:
            return
        asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for waiter in present:
            waiter.asked = asked
        try:
            leases = await self._ask([waiter.request for waiter in present])
            for waiter, issued in zip(present, leases, strict=True):
                if issued and not waiter.answer.done():
                    waiter.answer.set_result(issued)
        finally:
            asked.set_result(None)
            for waiter in present:
                waiter.asked = None
