"""GET /console/live: tells a page that something changed, as server-sent events; what changed, the page fetches.

A stream is a question asked again every three seconds, once for all who look at the same tenant. Whether the viewer may
still look is asked again as often, and at once when anything was published or withdrawn: a stream ends within a second
of its credential (D-67).
"""

import asyncio
import hashlib
import time
from typing import Final
from uuid import UUID

from legivellum.gate.event_stream import EventStreams, EventWriter, IsAllowed
from legivellum.http.exchange import Exchange, StreamingResponse
from legivellum.http.problems import RequestRefused
from metagate_console.concurrency_limit import ConcurrencyLimit
from metagate_console.ports import Ports
from metagate_console.responses import HEADERS
from metagate_console.sessions import Session
from metagate_console.viewer import Viewer, authorized_viewer
from metagate_store.errors import StoreError

EVERY: Final = 3.0
STREAMS: Final = 64
"""Open streams of one process; whoever comes then has a page that does not follow."""
_HEARTBEAT: Final = 15.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    *HEADERS,
    (b"x-accel-buffering", b"no"),
]
_FAREWELL: Final = b"event: over\ndata: over\n\n"
_UNANSWERED: Final = (StoreError, OSError, TimeoutError, RequestRefused)


class ChangeSignal:
    """A short word for the state of a tenant, another one when something changed. Asked at most once per `EVERY`."""

    def __init__(self, ports: Ports, limit: ConcurrencyLimit, *, every: float = EVERY) -> None:
        self._ports = ports
        self._limit = limit
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
        async with self._limit.slot():
            overview, state = await reader.overviews.overview(tenant), await reader.state()
        known = (
            state.revision, overview.starting, overview.overdue, overview.latest, overview.troubles,
            # the time line moves by the minute, whether or not anything happens
            [(counts.opened, counts.ready, counts.failed) for counts in overview.tenants],
            int(overview.at.timestamp()) // 60,
        )  # fmt: skip
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


class LiveStreams:
    """The open streams of one process."""

    def __init__(self, ports: Ports, limit: ConcurrencyLimit) -> None:
        self._ports = ports
        self._limit = limit
        self._signal = ChangeSignal(ports, limit)
        self._streams = EventStreams(most=STREAMS, heartbeat_seconds=_HEARTBEAT, opened=ports.streams)

    def response(self, exchange: Exchange, viewer: Viewer, tenant: UUID | None) -> StreamingResponse:
        """`tenant` None: changes of every tenant. Raises RATE_LIMITED (429), OVERLOADED (503)."""

        async def write_events(writer: EventWriter) -> None:
            await writer.write(b"retry: 3000\n\n")
            sent = ""
            while not writer.client_gone:
                try:
                    word = await self._signal.current(tenant)
                except _UNANSWERED:
                    word = sent  # the page waits as it would for news
                if word != sent:
                    await writer.write(f"event: changed\ndata: {word}\n\n".encode())
                    sent = word
                await writer.pause(EVERY)

        return self._streams.response(
            exchange,
            (viewer.tenant, viewer.principal_key),
            write_events,
            is_allowed=self._is_allowed(viewer.session),
            farewell=_FAREWELL,
            headers=_HEADERS,
        )

    def _is_allowed(self, session: Session) -> IsAllowed:
        """The database is asked only when something was published since, or for a while nobody asked."""
        checked: object = None
        checked_at = 0.0

        async def is_allowed() -> bool:
            nonlocal checked, checked_at
            if session.expires_at <= time.time():
                return False
            snapshot = self._ports.snapshot()
            if snapshot == checked and time.monotonic() - checked_at < EVERY:
                return True
            try:
                async with self._limit.slot():
                    viewer = await authorized_viewer(session, self._ports)
            except _UNANSWERED:
                return True  # nobody knows; it is asked again
            checked, checked_at = snapshot, time.monotonic()
            return viewer is not None

        return is_allowed
