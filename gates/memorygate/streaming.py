"""GET /receipts/stream: what is stored, as it is stored, as server-sent events (docs/memorygate/reading.md).

A stream is a position and a question asked again and again; nothing is queued for a reader, so a slow one costs no
memory: it is asked for more only when its socket took what it was given, and the edge guard cuts it off when it takes
nothing. The position of an event (`id:`) is where the next connection goes on (`Last-Event-ID`). Only what no running
transaction can overtake is sent, so a late commit is late in the stream, never missing from it.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Final
from uuid import UUID

from legivellum.http import correlation
from legivellum.http.deadline import Deadline
from legivellum.http.edge import Edge, Observer
from legivellum.http.exchange import Exchange, Receive, Response, Scope, Send, problem_response, wait_for_disconnect
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

PATH: Final = "/receipts/stream"
_MARK: Final = re.compile(rb"(\d{1,20})\.(\d{1,17})\Z")
_PAGE: Final = 200
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    *SECURITY_HEADERS,
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """An ASGI application for one path, beside the edge, which holds answers back until they are whole."""

    def __init__(self, gate: Gate, door: Door, edge: Edge, observe: Observer) -> None:
        self._gate = gate
        self._door = door
        self._edge = edge
        self._observe = observe
        self._outer = Deadline(gate.settings.deadline_seconds)
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(
            scope, receive, request_id=correlation.request_id(scope["headers"]), seconds=self._outer.seconds
        )
        exchange.scope["route_path"] = PATH
        started = time.perf_counter()
        opened = await self._opened(exchange)
        if isinstance(opened, Response):
            self._observe(exchange, opened, time.perf_counter() - started)
            await send({"type": "http.response.start", "status": opened.status, "headers": opened.headers})
            await send({"type": "http.response.body", "body": opened.body})
            return
        tenant, mark = opened
        self._open += 1
        metrics.STREAMS.inc()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            leaving = asyncio.create_task(wait_for_disconnect(receive), name="stream's end")
            try:
                await self._tail(tenant, mark, send, leaving)
            finally:
                leaving.cancel()
        finally:
            self._open -= 1
            metrics.STREAMS.dec()

    async def _opened(self, exchange: Exchange) -> tuple[UUID, Mark] | Response:
        try:
            return await self._outer.run(self._begin(exchange), name="stream")
        except Exception as error:  # noqa: BLE001 - the last place where an error can still become an answer
            return problem_response(self._edge.problem(error, exchange))

    async def _begin(self, exchange: Exchange) -> tuple[UUID, Mark]:
        caller = await self._door.reader(exchange)
        asked = query(exchange, "tenant", "from")
        tenant = authorized_tenant(caller, tenant_of(asked))
        if self._open >= self._gate.settings.streams:
            raise refuse(Code.OVERLOADED, "This process has as many streams as it may have.")
        given = exchange.header(b"last-event-id")
        if given is not None:
            found = _MARK.match(given)
            if found is None or int(found[1]) >= 2**64:
                raise refuse(Code.INVALID_CURSOR, "Last-Event-ID: send back the id of an event, unchanged.")
            return tenant, Mark(int(found[1]), int(found[2]))
        match asked.get("from", "now"):
            case "now":
                return tenant, await self._gate.ledger.settled()
            case "beginning":
                return tenant, Mark(0, 0)
            case _:
                raise refuse(Code.INVALID_REQUEST, "from: must be now or beginning.")

    async def _tail(self, tenant: UUID, mark: Mark, send: Send, leaving: asyncio.Task[None]) -> None:
        settings = self._gate.settings
        silent_since = time.monotonic()
        await _say(send, b": memorygate\n\n")
        while not leaving.done():
            try:
                found = await self._gate.ledger.stream(tenant, mark, most=_PAGE)
            except DatabaseError:
                found = []  # the reader waits as it would for receipts; nothing is lost, because nothing has moved
            if found:
                mark = found[-1][0]
                events = (
                    b"id: %d.%d\nevent: receipt\ndata: %b\n\n" % (at.written_by, at.microseconds, shown(stored))
                    for at, stored in found
                )
                await _say(send, b"".join(events))
                metrics.STREAMED.inc(len(found))
                silent_since = time.monotonic()
                if len(found) == _PAGE:
                    continue
            elif time.monotonic() - silent_since >= settings.heartbeat_seconds:
                await _say(send, b": alive\n\n")
                silent_since = time.monotonic()
            await asyncio.wait({leaving}, timeout=settings.stream_poll_ms / 1_000)


async def _say(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})
