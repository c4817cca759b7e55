"""GET /console/live: tells a page that something changed, as server-sent events; the page fetches itself again then.

A stream is a question asked again every three seconds, once for all viewers of the same tenant. Whether the viewer may
still look is checked again as often, and at once when anything was published or withdrawn: a stream ends within a
second of its credential (D-67).
"""

import asyncio
import hashlib
import time
from typing import Final
from uuid import UUID

from legivellum.console.concurrency_limit import ConcurrencyLimit
from legivellum.console.definition import ConsoleDefinition, ConsolePorts
from legivellum.console.responses import HEADERS
from legivellum.console.sessions import Session, Viewer
from legivellum.console.viewer import authorized_viewer
from legivellum.gate.event_stream import EventStreams, EventWriter, IsAllowed
from legivellum.http.exchange import Exchange, StreamingResponse
from legivellum.http.problems import RequestRefused

EVERY: Final = 3.0
STREAMS: Final = 64
"""Open streams of one process; a page that is opened then does not follow."""
_HEARTBEAT: Final = 15.0
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    *HEADERS,
    (b"x-accel-buffering", b"no"),
]
_FAREWELL: Final = b"event: over\ndata: over\n\n"


class ChangeSignal:
    """A short digest of the state of a tenant, which differs when something changed. Asked at most once per `EVERY`."""

    def __init__(self, ports: ConsolePorts, limit: ConcurrencyLimit, *, every: float = EVERY) -> None:
        self._ports = ports
        self._limit = limit
        self._every = every
        self._asked: dict[UUID | None, tuple[float, asyncio.Task[str]]] = {}

    async def current(self, tenant: UUID | None) -> str:
        """Raises what the gate's storage raises, and RequestRefused when too much else is asked."""
        now = time.monotonic()
        since, task = self._asked.get(tenant, (0.0, None))
        if task is None or now - since >= self._every * 0.9:
            for stale in [key for key, (at, done) in self._asked.items() if done.done() and now - at > 60]:
                del self._asked[stale]
            task = asyncio.create_task(self._word(tenant), name="console change signal")
            self._asked[tenant] = now, task
        # Shielded: one viewer who leaves must not cancel the question that others wait for.
        return await asyncio.shield(task)

    async def _word(self, tenant: UUID | None) -> str:
        async with self._limit.slot():
            state = await self._ports.tenant_state(tenant)
        return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


class LiveStreams:
    """The open streams of one process."""

    def __init__(self, definition: ConsoleDefinition, ports: ConsolePorts, limit: ConcurrencyLimit) -> None:
        self._definition = definition
        self._ports = ports
        # a page that could not be asked for in time, or was refused a slot, says nothing about the credential either
        self._unanswered: tuple[type[Exception], ...] = (*ports.unanswered, RequestRefused)
        self._limit = limit
        self._signal = ChangeSignal(ports, limit)
        self._streams = EventStreams(most=STREAMS, heartbeat_seconds=_HEARTBEAT, opened=ports.stream_count)

    def response(self, exchange: Exchange, viewer: Viewer, tenant: UUID | None) -> StreamingResponse:
        """`tenant` None: changes of every tenant. Raises RATE_LIMITED (429), OVERLOADED (503)."""

        async def write_events(writer: EventWriter) -> None:
            await writer.write(b"retry: 3000\n\n")
            sent = ""
            while not writer.client_gone:
                try:
                    word = await self._signal.current(tenant)
                except self._unanswered:
                    word = sent  # the page waits as it does while nothing changes
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
                    viewer = await authorized_viewer(session, self._definition, self._ports)
            except self._unanswered:
                return True  # not known for now: the next check decides
            checked, checked_at = snapshot, time.monotonic()
            return viewer is not None

        return is_allowed
