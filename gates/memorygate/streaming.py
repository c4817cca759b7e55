"""GET /receipts/stream: what is stored, as it is stored, as server-sent events (docs/memorygate/reading.md).

A stream is a position and a question asked again and again; nothing is queued for a reader, so a slow one costs no
memory: it is asked for more only when its socket took what it was given, and the edge guard cuts it off when it takes
nothing. The position of an event (`id:`) is where the next connection goes on (`Last-Event-ID`). Only what no running
transaction can overtake is sent, so a late commit is late in the stream, never missing from it.
"""

from __future__ import annotations

import re
import time
from typing import Final
from uuid import UUID

from legivellum.http.exchange import Exchange, ResponseStream, StreamingResponse
from legivellum.http.problem_codes import Code
from legivellum.http.problems import SECURITY_HEADERS, refuse
from legivellum.identity.tenancy import authorized_tenant
from legivellum.postgres.errors import DatabaseError
from memorygate import metrics
from memorygate.answers import shown
from memorygate.callers import Door
from memorygate.gate import Gate
from memorygate.ledger import Mark
from memorygate.reading import query, tenant_of

_MARK: Final = re.compile(rb"(\d{1,20})\.(\d{1,17})\Z")
_PAGE: Final = 200
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *SECURITY_HEADERS,
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """The handler of the stream, and how many this process has open."""

    def __init__(self, gate: Gate, door: Door) -> None:
        self._gate = gate
        self._door = door
        self._open = 0

    async def __call__(self, exchange: Exchange) -> StreamingResponse:
        caller = await self._door.reader(exchange)
        asked = query(exchange, "tenant", "from")
        tenant = authorized_tenant(caller, tenant_of(asked))
        if self._open >= self._gate.settings.streams:
            raise refuse(Code.OVERLOADED, "This process has as many streams as it may have.")
        mark = await self._start(exchange, asked.get("from", "now"))

        async def write_body(stream: ResponseStream) -> None:
            self._open += 1
            metrics.STREAMS.inc()
            try:
                await self._tail(tenant, mark, stream)
            finally:
                self._open -= 1
                metrics.STREAMS.dec()

        return StreamingResponse(200, list(_HEADERS), write_body)

    async def _start(self, exchange: Exchange, where: str) -> Mark:
        """The position after which the stream begins."""
        given = exchange.header(b"last-event-id")
        if given is not None:
            found = _MARK.match(given)
            if found is None or int(found[1]) >= 2**64:
                raise refuse(Code.INVALID_CURSOR, "Last-Event-ID: send back the id of an event, unchanged.")
            return Mark(int(found[1]), int(found[2]))
        match where:
            case "now":
                return await self._gate.ledger.settled()
            case "beginning":
                return Mark(0, 0)
            case _:
                raise refuse(Code.INVALID_REQUEST, "from: must be now or beginning.")

    async def _tail(self, tenant: UUID, mark: Mark, stream: ResponseStream) -> None:
        settings = self._gate.settings
        silent_since = time.monotonic()
        await stream.write(b": memorygate\n\n")
        while not stream.client_gone:
            try:
                found, more = await self._gate.ledger.stream(tenant, mark, most=_PAGE)
            except DatabaseError:
                # The reader waits as it would for receipts; nothing is lost, because nothing has moved.
                found, more = [], False
            if found:
                mark = found[-1][0]
                events = (
                    b"id: %d.%d\nevent: receipt\ndata: %b\n\n" % (at.written_by, at.microseconds, shown(stored))
                    for at, stored in found
                )
                await stream.write(b"".join(events))
                metrics.STREAMED.inc(len(found))
                silent_since = time.monotonic()
                if more:
                    continue
            elif time.monotonic() - silent_since >= settings.heartbeat_seconds:
                await stream.write(b": alive\n\n")
                silent_since = time.monotonic()
            await stream.pause(settings.stream_poll_ms / 1_000)
