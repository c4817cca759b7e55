"""Every way to look: inbox, task, chain, one receipt, summary. Nothing here changes anything (INV-055).

An id of another tenant is simply not found. A task or chain nobody has heard of is an empty list or a 404: a task is a
name that anyone may ask about, a receipt is a thing that exists or does not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl
from uuid import UUID

from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.caller import may_read_others
from legivellum.identity.tenancy import authorized_tenant
from legivellum.receipts.rights import CUSTODIAL, role_of
from memorygate import cursors
from memorygate.answers import clock, listed, rendered, shown, shown_open
from memorygate.callers import Door
from memorygate.gate import Gate
from memorygate.ledger import Stored

_DEFAULT, _MOST = 100, 500


def query(exchange: Exchange, *known: str) -> Mapping[str, str]:
    """The query's parameters. Raises INVALID_REQUEST for one that is unknown, repeated or not text."""
    raw: bytes = exchange.scope.get("query_string", b"")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict")
    except ValueError:
        raise refuse(Code.INVALID_REQUEST, "The query string is malformed.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise refuse(Code.INVALID_REQUEST, f"The query knows only: {', '.join(known) or 'nothing'}.")
        if name in found or not value or not value.isprintable() or len(value) > 2_048:
            raise refuse(Code.INVALID_REQUEST, f"{name}: must be given once, as plain text.")
        found[name] = value
    return found


def tenant_of(asked: Mapping[str, str]) -> UUID | None:
    if "tenant" not in asked:
        return None
    try:
        return UUID(asked["tenant"])
    except ValueError:
        raise refuse(Code.INVALID_REQUEST, "tenant: must be the uid of a namespace.") from None


def _limit(asked: Mapping[str, str]) -> int:
    text = asked.get("limit", str(_DEFAULT))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= _MOST):
        raise refuse(Code.INVALID_REQUEST, f"limit: must be 1 to {_MOST}.")
    return int(text)


class Reading:
    """The handlers, by name of what they show."""

    def __init__(self, gate: Gate, door: Door) -> None:
        self._gate = gate
        self._door = door

    async def inbox(self, exchange: Exchange) -> Response:
        caller = await self._door.reader(exchange)
        asked = query(exchange, "principal", "kind", "task_id", "principal_ai", "tenant", "limit", "cursor")
        tenant = authorized_tenant(caller, tenant_of(asked))
        whose = asked.get("principal", caller.principal_key)
        foreign = whose != caller.principal_key or tenant != caller.tenant
        if foreign and not may_read_others(role_of(caller.type, caller.rights)):
            raise refuse(Code.ROLE_REQUIRED, "principal: only an admin or observer looks into another's inbox.")
        kind = asked.get("kind", "obligation")
        if kind not in CUSTODIAL:
            raise refuse(Code.INVALID_REQUEST, f"kind: must be one of: {', '.join(sorted(CUSTODIAL))}.")
        limit = _limit(asked)
        name = f"inbox/{tenant}/{whose}/{kind}"
        found = await self._gate.ledger.inbox(
            tenant,
            whose,
            kind=kind,
            task_id=asked.get("task_id"),
            principal_ai=asked.get("principal_ai"),
            after=cursors.read(name, asked.get("cursor")),
            most=limit + 1,
        )
        page = found[:limit]
        more = cursors.written(name, (page[-1].custody_at, page[-1].obligation_id)) if len(found) > limit else None
        return json_response(200, listed([shown_open(held) for held in page], more))

    async def task(self, exchange: Exchange) -> Response:
        task_id = exchange.path_parameters["task_id"]
        caller = await self._door.reader(exchange)
        asked = query(exchange, "tenant", "limit", "cursor")
        tenant, limit = authorized_tenant(caller, tenant_of(asked)), _limit(asked)
        name = f"task/{tenant}/{task_id}"
        after = cursors.read(name, asked.get("cursor"))
        found = await self._gate.ledger.task(tenant, task_id, after=after, most=limit + 1)
        page = found[:limit]
        more = cursors.written(name, (page[-1].stored_at, page[-1].receipt_id)) if len(found) > limit else None
        return json_response(200, listed([shown(stored) for stored in page], more))

    async def chain(self, exchange: Exchange) -> Response:
        receipt_id = exchange.path_parameters["receipt_id"]
        caller = await self._door.reader(exchange)
        tenant = authorized_tenant(caller, tenant_of(query(exchange, "tenant")))
        most = self._gate.settings.chain_receipts
        found = await self._gate.ledger.chain(tenant, receipt_id, most=most)
        if not found:
            raise _unknown()
        return json_response(200, listed([shown(stored) for stored in found], None, **markers(found, most)))

    async def receipt(self, exchange: Exchange) -> Response:
        receipt_id = exchange.path_parameters["receipt_id"]
        caller = await self._door.reader(exchange)
        tenant = authorized_tenant(caller, tenant_of(query(exchange, "tenant")))
        found = await self._gate.ledger.receipt(tenant, receipt_id)
        if found is None:
            raise _unknown()
        return json_response(200, shown(found))

    async def summary(self, exchange: Exchange) -> Response:
        caller = await self._door.reader(exchange)
        tenant = authorized_tenant(caller, tenant_of(query(exchange, "tenant")))
        counted = await self._gate.ledger.summary(tenant)
        closed = counted.succeeded + counted.failed + counted.canceled
        ended = counted.startups_ready + counted.startups_failed
        said = {
            "tenant_id": str(tenant),
            "receipts": counted.receipts,
            "obligations": {
                "open": counted.obligations - closed,
                "success": counted.succeeded,
                "failure": counted.failed,
                "canceled": counted.canceled,
            },
            "startups": {
                "open": counted.startups - ended,
                "success": counted.startups_ready,
                "failure": counted.startups_failed,
            },
            "oldest_open_at": None if counted.oldest_open is None else clock(counted.oldest_open),
            "overdue": counted.overdue,
            "latest_stored_at": None if counted.latest is None else clock(counted.latest),
        }
        return json_response(200, rendered(said))


def markers(found: list[Stored], most: int) -> dict[str, object]:
    """What a reader of a chain must know: where a cause is missing, where it bites its own tail, whether there is
    more.
    """
    causes = {stored.receipt_id: json.loads(stored.body).get("caused_by_receipt_id") for stored in found}
    truncated = len(found) >= most
    dangling = sorted({cause for cause in causes.values() if cause is not None and cause not in causes})
    return {
        # With a bounded answer a missing cause may only lie beyond the bound.
        "dangling": [] if truncated else dangling,
        "cycles": _cycles(causes),
        "truncated": truncated,
    }


def _cycles(causes: Mapping[str, str | None]) -> list[str]:
    """The smallest id of each cycle. Every receipt has one cause, so walking up from each finds them all."""
    settled: set[str] = set()
    cycles: list[str] = []
    for start in causes:
        walked: list[str] = []
        at: str | None = start
        while at is not None and at in causes and at not in settled:
            settled.add(at)
            walked.append(at)
            at = causes[at]
        if at in walked:
            cycles.append(min(walked[walked.index(at) :]))
    return sorted(cycles)


def _unknown() -> Exception:
    return refuse(Code.NOT_FOUND, "There is no such receipt.")
