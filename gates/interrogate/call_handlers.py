"""GET /v1/calls: who called which tool, with what outcome (GW-13)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from interrogate.admission_gate import AdmissionGate
from interrogate.calls import CallFilter, CallRow
from interrogate.problem_codes import Code
from interrogate.tool_call import CALL_OUTCOMES
from legivellum.base.timestamps import rfc3339
from legivellum.gate.cursors import decode_time, encode_time
from legivellum.gate.query import limit_parameter, page_body, query_parameters, tenant_parameter
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller, may_read_others
from legivellum.receipts.receipt import moment
from legivellum.receipts.rights import role_of

_PAGE_BYTES: Final = 1_048_576
_FILTERS: Final = ("principal", "problemata", "tool", "outcome", "since")


class CallHandlers:
    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate

    async def calls(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, *_FILTERS, "tenant", "limit", "cursor")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        principal = _whose(parameters, caller, foreign=tenant != caller.tenant)
        # The cursor belongs to what was asked for: with other filters it would leave calls out.
        filters = hashlib.sha256(strict_json.encode([parameters.get(name) for name in _FILTERS])).hexdigest()[:16]
        name = f"calls/{tenant}/{filters}"
        page = await self._gate.process.database.calls.page(
            tenant,
            CallFilter(
                principal=principal,
                problemata=parameters.get("problemata"),
                tool=parameters.get("tool"),
                outcome=_outcome(parameters),
                since=_since(parameters),
                before=decode_time(name, parameters["cursor"]) if "cursor" in parameters else None,
            ),
            limit,
        )
        items: list[bytes] = []
        size = 0
        for number, row in enumerate(page.items):
            item = strict_json.encode(rendered(row))
            size += len(item)
            if items and size > _PAGE_BYTES:  # D-66; the next page begins with this one
                last = page.items[number - 1]
                return json_response(200, page_body(items, encode_time(name, last.at, last.admission_receipt_id)))
            items.append(item)
        return json_response(200, page_body(items, None if page.next is None else encode_time(name, *page.next)))


def rendered(row: CallRow) -> dict[str, Any]:
    return {**{name: getattr(row, name) for name in CallRow.__slots__}, "at": rfc3339(row.at)}


def _whose(parameters: Mapping[str, str], caller: Caller, *, foreign: bool) -> str | None:
    """Everybody's for admins and observers, and for all others their own."""
    wanted = parameters.get("principal")
    if may_read_others(role_of(caller.type, caller.rights)):
        return wanted
    if foreign or wanted not in {None, caller.principal_key}:
        raise refuse(Code.ROLE_REQUIRED, "principal: only an admin or observer sees the calls of others.")
    return caller.principal_key


def _outcome(parameters: Mapping[str, str]) -> str | None:
    outcome = parameters.get("outcome")
    if outcome is not None and outcome not in CALL_OUTCOMES:
        raise refuse(Code.INVALID_REQUEST, f"outcome: must be one of {', '.join(CALL_OUTCOMES)}.")
    return outcome


def _since(parameters: Mapping[str, str]) -> datetime | None:
    if "since" not in parameters:
        return None
    try:
        return datetime.fromisoformat(moment(parameters["since"]).upper())
    except ValueError as error:
        raise refuse(Code.INVALID_REQUEST, f"since: {error}.") from error
