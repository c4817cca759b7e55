"""GET /receipts/stream: what is stored, as it is stored, as server-sent events (docs/memorygate/reading.md).

A stream is a position and a question asked again and again; nothing is queued for a reader, so a slow one costs no
memory: the next page is read only when its socket took the last one. The position of an event (`id:`) is where the next
connection goes on (`Last-Event-ID`). Only what no running transaction can overtake is sent, so a late commit is late in
the stream, never missing from it.
"""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID

from legivellum.gate.event_stream import EventWriter
from legivellum.gate.query import query_parameters, tenant_parameter
from legivellum.http.exchange import Exchange, StreamingResponse
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.postgres.errors import DatabaseError
from memorygate import metrics
from memorygate.ledger import Mark
from memorygate.ledger_gate import LedgerGate
from memorygate.rendering import render_receipt

_MARK: Final = re.compile(rb"(\d{1,20})\.(\d{1,17})\Z")
_PAGE: Final = 200


class ReceiptStream:
    """The handler of the stream."""

    def __init__(self, gate: LedgerGate) -> None:
        self._gate = gate

    async def __call__(self, exchange: Exchange) -> StreamingResponse:
        authenticator = self._gate.authenticator
        caller = await authenticator.caller(exchange)
        parameters = query_parameters(exchange, "tenant", "from")
        tenant = tenant_parameter(parameters, caller)
        mark = await self._start(exchange, parameters.get("from", "now"))

        async def is_allowed() -> bool:
            now = await authenticator.current(exchange, caller)
            return now is not None and (now.tenant == tenant or now.everywhere)

        async def write_events(events: EventWriter) -> None:
            await self._tail(tenant, mark, events)

        owner = (caller.tenant, caller.principal_key)
        return self._gate.process.streams.response(exchange, owner, write_events, is_allowed=is_allowed)

    async def _start(self, exchange: Exchange, start: str) -> Mark:
        """The position after which the stream begins."""
        last_event_id = exchange.header(b"last-event-id")
        if last_event_id is not None:
            match = _MARK.match(last_event_id)
            if match is None or int(match[1]) >= 2**64:
                raise refuse(Code.INVALID_CURSOR, "Last-Event-ID: send back the id of an event, unchanged.")
            return Mark(int(match[1]), int(match[2]))
        if start == "now":
            return await self._gate.ledger.settled()
        if start == "beginning":
            return Mark(0, 0)
        raise refuse(Code.INVALID_REQUEST, "from: must be now or beginning.")

    async def _tail(self, tenant: UUID, mark: Mark, events: EventWriter) -> None:
        await events.write(b": memorygate\n\n")
        while not events.client_gone:
            try:
                page, more = await self._gate.ledger.stream(tenant, mark, most=_PAGE)
            except DatabaseError:
                # The reader waits as it would for receipts; nothing is lost, because nothing has moved.
                page, more = [], False
            if page:
                mark = page[-1][0]
                await events.write(b"".join(_event(at, render_receipt(stored)) for at, stored in page))
                metrics.STREAMED.inc(len(page))
            if not more:
                await events.pause(self._gate.settings.stream_poll_ms / 1_000)


def _event(mark: Mark, receipt: bytes) -> bytes:
    return b"id: %d.%d\nevent: receipt\ndata: %b\n\n" % (mark.written_by, mark.microseconds, receipt)
