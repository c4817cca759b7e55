"""Server-sent events: how many streams there are, for whom, and until when.

An open stream rests on a credential like any request (D-67): whether it is still allowed is asked again twice a second,
beside the writing, so that a reader that takes nothing is cut off just as fast. Nothing is queued for a reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from legivellum.http.exchange import Exchange, RawHeaders, ResponseStream, StreamingResponse
from legivellum.http.problem_codes import Code
from legivellum.http.problems import SECURITY_HEADERS, refuse

CHECK_SECONDS: Final = 0.5
"""How often a stream's credential is checked. With the poll of published identities it is under a second in all."""
PER_PRINCIPAL: Final = 4
PER_TENANT: Final = 16
"""Most streams in one process (D-67)."""

_FAREWELL_SECONDS: Final = 0.2
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *SECURITY_HEADERS,
    (b"x-accel-buffering", b"no"),
)

IsAllowed = Callable[[], Awaitable[bool]]


class EventWriter:
    """What a stream's body is written with: events, and a comment where it would be silent for too long."""

    def __init__(self, stream: ResponseStream, *, heartbeat: bytes, heartbeat_seconds: float) -> None:
        self._stream = stream
        self._heartbeat = heartbeat
        self._heartbeat_seconds = heartbeat_seconds
        self._written_at = time.monotonic()

    @property
    def client_gone(self) -> bool:
        return self._stream.client_gone

    async def write(self, part: bytes) -> None:
        """Waits while the client's socket is full."""
        await self._stream.write(part)
        self._written_at = time.monotonic()

    async def pause(self, seconds: float) -> None:
        """Nothing to write: wait that long, or until the client has gone, and show that the stream is alive."""
        if time.monotonic() - self._written_at >= self._heartbeat_seconds:
            await self.write(self._heartbeat)
        await self._stream.pause(seconds)


class _Place:
    """One stream's place among those that are counted; given back once, at the latest when nothing refers to it."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def leave(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None

    def __del__(self) -> None:
        # A client that leaves before its answer began never starts the body, which would have given the place back.
        self.leave()


class EventStreams:
    """The open streams of one process. `opened` is told by how many their number changed."""

    def __init__(
        self,
        *,
        most: int,
        heartbeat_seconds: float,
        heartbeat: bytes = b": alive\n\n",
        opened: Callable[[int], None] = lambda _change: None,
    ) -> None:
        self._most = most
        self._heartbeat = heartbeat
        self._heartbeat_seconds = heartbeat_seconds
        self._opened = opened
        self._by_principal: Counter[tuple[UUID, str]] = Counter()
        self._by_tenant: Counter[UUID] = Counter()

    def response(
        self,
        exchange: Exchange,
        owner: tuple[UUID, str],
        write_events: Callable[[EventWriter], Awaitable[None]],
        *,
        is_allowed: IsAllowed,
        farewell: bytes = b"",
        headers: RawHeaders | None = None,
    ) -> StreamingResponse:
        """A stream of `owner` (tenant, principal) that ends when `write_events` does, the client leaves, or
        `is_allowed` says no; in the last case `farewell` is its last event. Raises RATE_LIMITED (429), OVERLOADED
        (503).
        """
        place = self._admit(owner)
        # HEAD gets the headers and no body, so nothing would ever give its place back.
        if exchange.method == "HEAD":
            place.leave()

        async def write_body(stream: ResponseStream) -> None:
            writer = EventWriter(stream, heartbeat=self._heartbeat, heartbeat_seconds=self._heartbeat_seconds)
            try:
                if not await run_while_allowed(write_events(writer), is_allowed):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(writer.write(farewell), _FAREWELL_SECONDS)
            finally:
                place.leave()

        return StreamingResponse(200, list(headers or _HEADERS), write_body)

    def _admit(self, owner: tuple[UUID, str]) -> _Place:
        tenant, _ = owner
        if self._by_principal[owner] >= PER_PRINCIPAL:
            raise refuse(Code.RATE_LIMITED, f"This principal has {PER_PRINCIPAL} streams open here; close one.")
        if self._by_tenant[tenant] >= PER_TENANT:
            raise refuse(Code.RATE_LIMITED, f"This tenant has {PER_TENANT} streams open here; close one.")
        if self._by_tenant.total() >= self._most:
            raise refuse(Code.OVERLOADED, "This process has as many streams as it may have.")
        self._count(owner, 1)
        return _Place(lambda: self._count(owner, -1))

    def _count(self, owner: tuple[UUID, str], change: int) -> None:
        self._opened(change)
        self._by_principal[owner] += change
        self._by_tenant[owner[0]] += change
        # Whoever has no stream any more is forgotten: the counters stay as small as what is open.
        if not self._by_principal[owner]:
            del self._by_principal[owner]
        if not self._by_tenant[owner[0]]:
            del self._by_tenant[owner[0]]


async def run_while_allowed(work: Awaitable[None], is_allowed: IsAllowed) -> bool:
    """Whether the work ended by itself. It is cancelled as soon as the credential that it rests on is not allowed any
    more. Raises what the work raises.
    """
    worker = asyncio.ensure_future(work)
    checker = asyncio.create_task(_until_refused(is_allowed), name="check a credential")
    try:
        done, _ = await asyncio.wait({worker, checker}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return worker in done
    finally:
        for task in (worker, checker):
            task.cancel()
        await asyncio.gather(worker, checker, return_exceptions=True)


async def _until_refused(is_allowed: IsAllowed) -> None:
    # It was allowed just now, so the first look can wait as well as the next: short work is never looked at again.
    await asyncio.sleep(CHECK_SECONDS)
    while await is_allowed():  # noqa: ASYNC110 - there is no event to wait for: time alone can end a credential
        await asyncio.sleep(CHECK_SECONDS)
