"""GET /tasks, /tasks/{id} and /queue/depth: what anybody of the tenant sees. Nothing here changes anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from asyncgate import rendering
from asyncgate.broker_gate import BrokerGate
from asyncgate.problem_codes import Code
from asyncgate.request_bodies import invalid
from legivellum.base.timestamps import rfc3339
from legivellum.gate.cursors import decode_cursor, encode_cursor
from legivellum.gate.query import limit_parameter, page_body, query_parameters, tenant_parameter
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import refuse

_STATES: Final = ("waiting", "held_back", "leased", "ended")
_CAPABILITY: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}\Z")
_PAGE_BYTES: Final = 1_048_576


class TaskReadHandlers:
    def __init__(self, gate: BrokerGate) -> None:
        self._gate = gate

    async def tasks(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "capability", "state", "tenant", "limit", "cursor")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        capability, state = _capability(parameters), parameters.get("state")
        if state is not None and state not in _STATES:
            raise invalid(f"state: must be one of {', '.join(_STATES)}")
        name = f"tasks/{tenant}/{capability}/{state}"
        after = None
        if "cursor" in parameters:
            [after] = decode_cursor(name, parameters["cursor"], valid=lambda position: len(position) == 1)
        page = await self._gate.process.database.tasks(
            tenant, capability=capability, state=state, after=after, limit=limit
        )
        items: list[bytes] = []
        size, last = 0, None
        for view in page.items:
            item = rendering.task(view)
            size += len(item)
            if items and size > _PAGE_BYTES:  # D-66; the next page begins with this one
                return json_response(200, page_body(items, encode_cursor(name, (last or "",))))
            items.append(item)
            last = view.task_id
        cursor = None if page.next_after is None else encode_cursor(name, (page.next_after,))
        return json_response(200, page_body(items, cursor))

    async def task(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        view = await self._gate.process.database.task(tenant, exchange.path_parameters["task_id"])
        if view is None:
            raise refuse(Code.NOT_FOUND, "There is no such task here.")
        return json_response(200, rendering.task(view))

    async def depth(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "capability", "tenant")
        tenant = tenant_parameter(parameters, caller)
        depths, as_of = await self._gate.process.database.depth(tenant, _capability(parameters))
        answer = {"items": [rendering.depth(counted) for counted in depths], "as_of": rfc3339(as_of)}
        return json_response(200, strict_json.encode(answer))


def _capability(parameters: Mapping[str, str]) -> str | None:
    capability = parameters.get("capability")
    if capability is not None and not _CAPABILITY.match(capability):
        raise invalid("capability: must be the name of a mailbox")
    return capability
