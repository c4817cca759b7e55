"""GET /console/live: tells a page that something changed, as server-sent events; what changed, the page fetches.

A stream is a question asked again every three seconds, once for all who look at the same tenant. Who looks is asked
again each time too, and at once when anything was published or withdrawn: a session that is over, or somebody who may
not look any more, is told so and the stream ends within a second (D-67).
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
LOOK: Final = 0.25
"""Seconds between looks at whether anything was published and whether the session expired: memory, no statement."""
STREAMS: Final = 64
"""Open streams of one process; whoever comes then has a page that does not follow."""
STREAMS_OF_TENANT: Final = 16
STREAMS_OF_PRINCIPAL: Final = 4
"""D-67: nobody alone takes all of them."""
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

    async def current(self, tenant: UUID | None) -> str:
        """Raises what the store raises, and Refused when too much else is asked."""
        now = time.monotonic()
        since, task = self._asked.get(tenant, (0.0, None))
        if task is None or now - since >= self._every * 0.9:
            for stale in [key for key, (at, done) in self._asked.items() if done.done() and now - at > 60]:
                del self._asked[stale]
            task = asyncio.create_task(self._word(tenant), name="console change signal")
            self._asked[tenant] = now, task
        return await asyncio.shield(task)

    async def _word(self, tenant: UUID | None) -> str:
        reader = self._ports.reader()
        async with self._turns.slot():
            found, state = await reader.overviews.overview(tenant), await reader.state()
        known = (
            state.revision, found.starting, found.overdue, found.latest, found.troubles,
            # the time line moves by the minute, whether or not anything happens
            [(one.opened, one.ready, one.failed) for one in found.tenants], int(found.at.timestamp()) // 60,
        )  # fmt: skip
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


class EventStreams:
    """The open streams of one process."""

    def __init__(self, ports: Ports, turns: ConcurrencyLimit) -> None:
        self._ports = ports
        self._turns = turns
        self._signal = ChangeSignal(ports, turns)
        self._open: Counter[PrincipalId] = Counter()

    def admit(self, who: PrincipalId) -> AbstractContextManager[None]:
        """A place, counted from now on and until it is left. Raises OVERLOADED (503), RATE_LIMITED (429)."""
        tenant, _ = who
        if self._open.total() >= STREAMS:
            raise refuse(Code.OVERLOADED, "This process has as many streams as it may have.")
        if sum(count for (of, _), count in self._open.items() if of == tenant) >= STREAMS_OF_TENANT:
            raise refuse(Code.RATE_LIMITED, f"Your tenant has {STREAMS_OF_TENANT} pages that follow already.")
        if self._open[who] >= STREAMS_OF_PRINCIPAL:
            raise refuse(
                Code.RATE_LIMITED, f"You have {STREAMS_OF_PRINCIPAL} pages that follow already; close or pause one."
            )
        self._open[who] += 1
        self._ports.streams(1)
        return self._left(who)

    @contextmanager
    def _left(self, who: PrincipalId) -> Iterator[None]:
        try:
            yield
        finally:
            self._ports.streams(-1)
            self._open[who] -= 1
            if not self._open[who]:
                del self._open[who]

    async def send(self, session: Session, tenant: UUID | None, receive: Receive, send: Send) -> None:
        """The whole stream, until the client leaves or may not look any more."""
        leaving = asyncio.create_task(wait_for_disconnect(receive), name="console stream's end")
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            await _send_text(send, "retry: 3000\n\n")
            await self._follow(session, tenant, send, leaving)
            await send({"type": "http.response.body", "body": b""})
        finally:
            leaving.cancel()

    async def _follow(self, session: Session, tenant: UUID | None, send: Send, leaving: asyncio.Task[None]) -> None:
        sent, silent_since = "", time.monotonic()
        checked: object = None
        while not leaving.done():
            snapshot = self._ports.snapshot()
            try:
                if session.expires_at <= time.time() or not await self._may_look(session):
                    await _send_text(send, "event: over\ndata: over\n\n")
                    return
                checked = snapshot
                word = await self._signal.current(tenant)
            except (StoreError, OSError, TimeoutError, RequestRefused):
                word = sent  # the page waits as it would for news
            if word != sent:
                await _send_text(send, f"event: changed\ndata: {word}\n\n")
                sent, silent_since = word, time.monotonic()
            elif time.monotonic() - silent_since > _HEARTBEAT:
                await _send_text(send, ": still here\n\n")
                silent_since = time.monotonic()
            await self._rest(session, checked, leaving)

    async def _rest(self, session: Session, checked: object, leaving: asyncio.Task[None]) -> None:
        """Until it is time to ask the database again; at once when the session was not checked since a publish."""
        until = time.monotonic() + EVERY
        while not leaving.done() and time.monotonic() < until:
            await asyncio.wait({leaving}, timeout=LOOK)
            if self._ports.snapshot() != checked or session.expires_at <= time.time():
                return

    async def _may_look(self, session: Session) -> bool:
        async with self._turns.slot():
            return await authorized_viewer(session, self._ports) is not None


async def _send_text(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
