"""GET /console/live: tells a page that something changed, as server-sent events; what changed, the page fetches.

A stream is a question asked again every three seconds, once for all who look at the same tenant. Who looks is asked
again each time too: a session that is over, or somebody who may not look any more, is told so and the stream ends.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final
from uuid import UUID

from legivellum.http.exchange import Receive, Send, wait_for_disconnect
from legivellum.http.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from metagate_console.concurrency_limit import ConcurrencyLimit
from metagate_console.ports import Ports
from metagate_console.responses import HEADERS
from metagate_console.sessions import Session
from metagate_console.viewer import authorized_viewer
from metagate_store.errors import StoreError

EVERY: Final = 3.0
MOST: Final = 64
"""Streams of one process; who comes then has a page that stands still."""
EACH: Final = 4
"""Streams of one principal in one process: nobody alone takes all of them."""
_HEARTBEAT: Final = 15.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    *HEADERS,
    (b"x-accel-buffering", b"no"),
]


PrincipalId = tuple[UUID, str]
"""Tenant and principal."""


class ChangeSignal:
    """A short word for the state of a tenant, another one when something changed. Asked at most once per `EVERY`."""

    def __init__(self, ports: Ports, turns: ConcurrencyLimit, *, every: float = EVERY) -> None:
        self._ports = ports
        self._turns = turns
        self._every = every
        self._asked: dict[UUID | None, tuple[float, asyncio.Task[str]]] = {}

    async def beat(self, tenant: UUID | None) -> str:
        """Raises what the store raises, and Refused when too much else is asked."""
        now = time.monotonic()
        since, task = self._asked.get(tenant, (0.0, None))
        if task is None or now - since >= self._every * 0.9:
            for stale in [key for key, (at, done) in self._asked.items() if done.done() and now - at > 60]:
                del self._asked[stale]
            task = asyncio.create_task(self._word(tenant), name="console's pulse")
            self._asked[tenant] = now, task
        return await asyncio.shield(task)

    async def _word(self, tenant: UUID | None) -> str:
        reader = self._ports.reader()
        async with self._turns.taken():
            found, state = await reader.overviews.overview(tenant), await reader.state()
        known = (
            state.revision, found.starting, found.overdue, found.latest, found.troubles,
            # the time line moves by the minute, whether or not anything happens
            [(one.opened, one.ready, one.failed) for one in found.tenants], int(found.at.timestamp()) // 60,
        )  # fmt: skip
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


class EventStreams:
    def __init__(self, ports: Ports, turns: ConcurrencyLimit) -> None:
        self._ports = ports
        self._turns = turns
        self._pulse = ChangeSignal(ports, turns)
        self._open: Counter[PrincipalId] = Counter()

    def admit(self, who: PrincipalId) -> AbstractContextManager[None]:
        """A place, counted from now on and until it is left. Raises OVERLOADED when there is none."""
        if self._open.total() >= MOST:
            raise refuse(Code.OVERLOADED, "This process has as many streams as it may have.")
        if self._open[who] >= EACH:
            raise refuse(Code.OVERLOADED, f"You have {EACH} pages that follow already; close or pause one.")
        self._open[who] += 1
        return self._left(who)

    @contextmanager
    def _left(self, who: PrincipalId) -> Iterator[None]:
        try:
            yield
        finally:
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]

    async def tell(self, session: Session, tenant: UUID | None, receive: Receive, send: Send) -> None:
        leaving = asyncio.create_task(wait_for_disconnect(receive), name="console stream's end")
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await _say(send, "retry: 3000\n\n")
            await self._follow(session, tenant, send, leaving)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def _follow(self, session: Session, tenant: UUID | None, send: Send, leaving: asyncio.Task[None]) -> None:
        told, silent_since = "", time.monotonic()
        while not leaving.done():
            try:
                if session.expires_at <= time.time() or await self._may_not(session):
                    await _say(send, "event: over\ndata: over\n\n")
                    return
                word = await self._pulse.beat(tenant)
            except (StoreError, OSError, TimeoutError, RequestRefused):
                word = told  # the page waits as it would for news
            if word != told:
                await _say(send, f"event: changed\ndata: {word}\n\n")
                told, silent_since = word, time.monotonic()
            elif time.monotonic() - silent_since > _HEARTBEAT:
                await _say(send, ": still here\n\n")
                silent_since = time.monotonic()
            await asyncio.wait({leaving}, timeout=EVERY)

    async def _may_not(self, session: Session) -> bool:
        async with self._turns.taken():
            return await authorized_viewer(session, self._ports) is None


async def _say(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
