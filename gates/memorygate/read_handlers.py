"""Every way to look: inbox, task, chain, one receipt, summary. Nothing here changes anything (INV-055).

An id of another tenant is simply not found. A task or chain nobody has heard of is an empty list or a 404: a task is a
name that anyone may ask about, a receipt is a thing that exists or does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from legivellum.base.timestamps import rfc3339
from legivellum.gate.cursors import decode_numbers, decode_time, encode_numbers, encode_time
from legivellum.gate.query import limit_parameter, page_body, query_parameters, tenant_parameter
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.caller import may_read_others
from legivellum.identity.request_authenticator import require_caller
from legivellum.receipts.causes import chain_markers
from legivellum.receipts.receipt import moment
from legivellum.receipts.rights import CUSTODIAL, role_of
from memorygate.ledger import PAGE_BYTES, START, ChainLink, Mark, Position, Verification
from memorygate.ledger_gate import LedgerGate
from memorygate.rendering import render_obligation, render_receipt

_LOOKED_UP = 256
"""Most obligations in one look-up: a plan's tasks and more, in one statement."""


class ReadHandlers:
    """The handlers, by name of what they show."""

    def __init__(self, gate: LedgerGate) -> None:
        self._gate = gate

    async def inbox(self, exchange: Exchange) -> Response:
        caller = await self._gate.authenticator.caller(exchange)
        parameters = query_parameters(
            exchange, "principal", "kind", "task_id", "principal_ai", "tenant", "limit", "cursor"
        )
        tenant = tenant_parameter(parameters, caller)
        whose = parameters.get("principal", caller.principal_key)
        foreign = whose != caller.principal_key or tenant != caller.tenant
        if foreign and not may_read_others(role_of(caller.type, caller.rights)):
            raise refuse(Code.ROLE_REQUIRED, "principal: only an admin or observer looks into another's inbox.")
        kind = parameters.get("kind", "obligation")
        if kind not in CUSTODIAL:
            raise refuse(Code.INVALID_REQUEST, f"kind: must be one of: {', '.join(sorted(CUSTODIAL))}.")
        limit = limit_parameter(parameters)
        name = f"inbox/{tenant}/{whose}/{kind}"
        page = await self._gate.ledger.inbox(
            tenant,
            whose,
            kind=kind,
            task_id=parameters.get("task_id"),
            principal_ai=parameters.get("principal_ai"),
            after=_after(name, parameters),
            most=limit,
        )
        last = page.items[-1] if page.more else None
        cursor = None if last is None else encode_time(name, last.custody_at, last.obligation_id)
        return json_response(200, page_body([render_obligation(obligation) for obligation in page.items], cursor))

    async def task(self, exchange: Exchange) -> Response:
        task_id = exchange.path_parameters["task_id"]
        caller = await self._gate.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "tenant", "limit", "cursor")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        name = f"task/{tenant}/{task_id}"
        after = _after(name, parameters)
        page = await self._gate.ledger.task(tenant, task_id, after=after, most=limit)
        last = page.items[-1] if page.more else None
        cursor = None if last is None else encode_time(name, last.stored_at, last.receipt_id)
        return json_response(200, page_body([render_receipt(receipt) for receipt in page.items], cursor))

    async def root(self, exchange: Exchange) -> Response:
        task_id = exchange.path_parameters["task_id"]
        caller = await self._gate.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "tenant", "limit", "cursor")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        name = f"root/{tenant}/{task_id}"
        # No two receipts of one root have the same time, so the time alone says where a page ended.
        page = await self._gate.ledger.root(tenant, task_id, after=_after(name, parameters)[0], most=limit)
        last = page.items[-1] if page.more else None
        cursor = None if last is None else encode_time(name, last.stored_at, last.receipt_id)
        return json_response(200, page_body([render_receipt(receipt) for receipt in page.items], cursor))

    async def receipts(self, exchange: Exchange) -> Response:
        """In the order of the stream: whoever reads page after page misses nothing that was stored meanwhile."""
        caller = await self._gate.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "tenant", "limit", "cursor", "since")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        since = _since(parameters)
        name = f"receipts/{tenant}"
        mark = Mark(*decode_numbers(name, parameters["cursor"], 64, 56)) if "cursor" in parameters else None
        if mark is None:
            mark = Mark(0, 0) if since is None else await self._gate.ledger.stream_start(tenant, since)
        page = await self._gate.ledger.stream(tenant, mark, most=limit, since=since)
        cursor = encode_numbers(name, *page.items[-1][0]) if page.more else None
        return json_response(200, page_body([render_receipt(receipt) for _, receipt in page.items], cursor))

    async def chain(self, exchange: Exchange) -> Response:
        receipt_id = exchange.path_parameters["receipt_id"]
        caller = await self._gate.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "tenant", "limit", "cursor")
        tenant = tenant_parameter(parameters, caller)
        most = self._gate.settings.chain_receipts
        # Without a limit a chain comes as a whole, as far as one answer may hold it.
        limit = limit_parameter(parameters) if "limit" in parameters else 2 * most
        name = f"chain/{tenant}/{receipt_id}"
        after = _after(name, parameters)
        links = await self._gate.ledger.chain_links(tenant, receipt_id, most=most)
        if not links:
            raise _unknown()
        rest = [link for link in links if (link.stored_at, link.receipt_id) > after]
        page = _fitting(rest, limit)
        receipts = await self._gate.ledger.receipts(tenant, [link.receipt_id for link in page])
        last = page[-1] if len(page) < len(rest) else None
        cursor = None if last is None else encode_time(name, last.stored_at, last.receipt_id)
        return json_response(
            200,
            page_body(
                [render_receipt(receipt) for receipt in receipts],
                cursor,
                **chain_markers({link.receipt_id: link.caused_by for link in links}, truncated=len(links) >= most),
            ),
        )

    async def receipt(self, exchange: Exchange) -> Response:
        receipt_id = exchange.path_parameters["receipt_id"]
        caller = await self._gate.authenticator.caller(exchange)
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        receipt = await self._gate.ledger.receipt(tenant, receipt_id)
        if receipt is None:
            raise _unknown()
        return json_response(200, render_receipt(receipt))

    async def summary(self, exchange: Exchange) -> Response:
        caller = await self._gate.authenticator.caller(exchange)
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        counted = await self._gate.ledger.summary(tenant)
        verification = await self._gate.ledger.last_verification(tenant)
        facts = {
            "tenant_id": str(tenant),
            "receipts": counted.receipts,
            "obligations": {
                "open": counted.open_obligations,
                "success": counted.succeeded,
                "failure": counted.failed,
                "canceled": counted.canceled,
            },
            "startups": {
                "open": counted.open_startups,
                "success": counted.startups_ready,
                "failure": counted.startups_failed,
            },
            "oldest_open_at": None if counted.oldest_open is None else rfc3339(counted.oldest_open),
            "overdue": counted.overdue,
            "latest_stored_at": None if counted.latest is None else rfc3339(counted.latest),
            "last_verification": None if verification is None else _shown_verification(verification),
        }
        return json_response(200, strict_json.encode(facts))


class ObligationLookup:
    """POST /v1/obligations/lookup: what many obligations are now, in one statement. Changes nothing."""

    def __init__(self, gate: LedgerGate) -> None:
        self._gate = gate

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._gate.authenticator.authenticate(exchange)
        exchange.require_json()
        names = _obligation_ids(strict_json.parse(await exchange.body(self._gate.settings.body_bytes)))
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), require_caller(caller))
        self._gate.authenticator.charge_batch(require_caller(caller), len(names))
        custody = await self._gate.ledger.custody(tenant, names)
        items = [
            strict_json.encode({"obligation_id": name, **entry._asdict()})
            for name, entry in zip(names, custody, strict=True)
        ]
        return json_response(200, b'{"items":[%s]}' % b",".join(items))


def _obligation_ids(body: Any) -> list[str]:
    if not isinstance(body, dict) or set(body) != {"obligation_ids"} or not isinstance(body["obligation_ids"], list):
        raise refuse(Code.INVALID_REQUEST, "The body must be an object with one member, obligation_ids: a list.")
    names = body["obligation_ids"]
    if not 0 < len(names) <= _LOOKED_UP:
        raise refuse(Code.INVALID_REQUEST, f"obligation_ids: must hold 1 to {_LOOKED_UP} names.")
    if not all(isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() for name in names):
        raise refuse(Code.INVALID_REQUEST, "obligation_ids: each must be a name of 1 to 200 printable characters.")
    return names


def _shown_verification(verification: Verification) -> dict[str, object]:
    return {
        "started_at": rfc3339(verification.started_at),
        "finished_at": rfc3339(verification.finished_at),
        "held": verification.held,
        "place": verification.place,
        "reason": verification.reason,
    }


def _since(parameters: Mapping[str, str]) -> datetime | None:
    """Raises INVALID_REQUEST for what is no time with an offset."""
    if "since" not in parameters:
        return None
    try:
        return datetime.fromisoformat(moment(parameters["since"])).astimezone(UTC)
    except (ValueError, OverflowError):
        raise refuse(Code.INVALID_REQUEST, "since: must be an RFC 3339 time, like 2027-01-31T12:00:00Z.") from None


def _fitting(links: Sequence[ChainLink], limit: int) -> Sequence[ChainLink]:
    """As many as a page takes: `limit` of them or PAGE_BYTES of bodies, at least one (D-66)."""
    used = 0
    for place, link in enumerate(links[:limit]):
        used += link.bytes
        if used > PAGE_BYTES and place > 0:
            return links[:place]
    return links[:limit]


def _after(listing: str, parameters: Mapping[str, str]) -> Position:
    return decode_time(listing, parameters["cursor"]) if "cursor" in parameters else START


def _unknown() -> Exception:
    return refuse(Code.NOT_FOUND, "There is no such receipt.")
