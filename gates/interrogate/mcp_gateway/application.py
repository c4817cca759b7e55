"""POST /mcp: in front of the edge and behind the socket's guard (GW-03).

Inside the edge every call would die at the deadline of ordinary requests, and a call of a tool may take minutes. So
this part does for `/mcp` what the edge does elsewhere: the id of the request, the credential, refusals as problems,
metrics and the access log. It also ends what the edge never has to end: a call whose credential ended meanwhile (D-67).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

from interrogate import metrics
from interrogate.admission_gate import AdmissionGate
from interrogate.evaluation_handlers import authenticated
from interrogate.mcp_gateway.caller import McpRequest, set_current_request
from interrogate.mcp_gateway.resource_metadata import MCP_PATH, ProtectedResource
from interrogate.problem_codes import Code
from legivellum.http import strict_json
from legivellum.http.edge import Edge
from legivellum.http.exchange import (
    ClientGone,
    Exchange,
    Message,
    Receive,
    Response,
    Scope,
    Send,
    choose_request_id,
    json_response,
    problem_response,
)
from legivellum.http.problems import SECURITY_HEADERS, RequestRefused, refuse
from legivellum.identity.caller import TYPES_BUT_WITNESS, Caller
from legivellum.identity.request_authenticator import require_caller
from legivellum.postgres.errors import DatabaseError

_PATH: Final = MCP_PATH.encode()
CHECK_SECONDS: Final = 0.5
"""How often the credential of an open call is checked. With the poll of published identities under a second in all."""
_PARSE_ERROR: Final = -32700


class McpEndpoint(Protocol):
    """What speaks MCP: the SDK's session manager."""

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class _Answer:
    """The sending side of one request: what was sent so far, and the headers that every answer of a gate has."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self.status: int | None = None
        self.complete = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            sent = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in SECURITY_HEADERS if name not in sent]
            if b"x-request-id" not in sent:
                headers.append((b"x-request-id", self._exchange.request_id.encode()))
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)


class McpApplication:
    """ASGI: `/mcp`, and the edge for everything else."""

    def __init__(self, edge: Edge, gate: AdmissionGate, resource: ProtectedResource, endpoint: McpEndpoint) -> None:
        self._edge = edge
        self._gate = gate
        self._resource = resource
        self._endpoint = endpoint
        self._settings = gate.process.settings
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["raw_path"] != _PATH:
            await self._edge(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = Exchange(
            scope,
            receive,
            request_id=choose_request_id(scope["headers"]),
            seconds=self._settings.deadline_seconds,
        )
        exchange.route, exchange.body_bytes = MCP_PATH, self._settings.body_bytes
        exchange.callers = TYPES_BUT_WITNESS
        answer = _Answer(exchange, send)
        try:
            await self._serve(exchange, answer)
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - the last place where an error can still become an answer
            await self._refuse(error, exchange, answer)
        status = answer.status or 499
        self._edge.observe(exchange, Response(status, [], b""), time.perf_counter() - started)

    async def _serve(self, exchange: Exchange, answer: _Answer) -> None:
        if exchange.method == "OPTIONS":
            await answer({"type": "http.response.start", "status": 204, "headers": [(b"allow", b"OPTIONS, POST")]})
            await answer({"type": "http.response.body", "body": b""})
            return
        if exchange.method != "POST":
            # The SDK would open a stream for GET that has no end and no use: nothing is sent without a request.
            raise refuse(
                Code.METHOD_NOT_ALLOWED, "The path does not take this method.", headers=((b"allow", b"OPTIONS, POST"),)
            )
        self._resource.require_own_name(exchange)
        caller = require_caller(await authenticated(self._gate, exchange))
        self._require_known()
        body = await exchange.body()
        if (problem := _json_problem(body)) is not None:
            await exchange.send(problem, answer)
            return
        async with self._place():
            await self._call(McpRequest(exchange, caller, body), answer)

    def _require_known(self) -> None:
        """Whoever does not know what may be asked, and by which rules, admits nobody (INV-107, INV-116)."""
        try:
            self._gate.policies.require_current()
            self._gate.problematas.require_current()
        except DatabaseError:
            metrics.FAIL_CLOSED.labels("policy").inc()
            raise

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._open >= self._settings.mcp_calls:
            raise refuse(Code.OVERLOADED, "As many requests to /mcp are open here as there may be.")
        self._open += 1
        metrics.MCP_OPEN.inc()
        try:
            yield
        finally:
            self._open -= 1
            metrics.MCP_OPEN.dec()

    async def _call(self, request: McpRequest, answer: _Answer) -> None:
        """Let the SDK answer for as long as the credential lasts."""
        set_current_request(request)
        exchange = request.exchange
        exchange.scope.setdefault("state", {})["mcp_request"] = request
        receive = _replayed(request.body, exchange.receive)
        work = asyncio.create_task(
            self._endpoint.handle_request(exchange.scope, receive, answer), name="answer a request of MCP"
        )
        checker = asyncio.create_task(self._until_refused(exchange, request.caller), name="check a call's credential")
        try:
            await asyncio.wait({work, checker}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
                return
            checker.result()
        finally:
            for task in (work, checker):
                task.cancel()
            await asyncio.gather(work, checker, return_exceptions=True)
        exchange.reason = "ended"
        raise refuse(Code.CREDENTIAL_REVOKED, "The credential of this call is not valid any more.")

    async def _until_refused(self, exchange: Exchange, caller: Caller) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if await self._gate.process.authenticator.current(exchange, caller) is None:
                return

    async def _refuse(self, error: Exception, exchange: Exchange, answer: _Answer) -> None:
        problem = self._edge.problem(error, exchange)
        exchange.code = problem.code
        if answer.complete:
            return
        if answer.status is not None:
            await answer({"type": "http.response.body", "body": b""})
            return
        response = problem_response(problem)
        if response.status == 401:
            headers = [header for header in response.headers if header[0] != b"www-authenticate"]
            headers.append((b"www-authenticate", self._resource.challenge))
            response = response._replace(headers=headers)
        await answer({"type": "http.response.start", "status": response.status, "headers": response.headers})
        await answer({"type": "http.response.body", "body": b"" if exchange.method == "HEAD" else response.body})


def _json_problem(body: bytes) -> Response | None:
    """The SDK reads JSON leniently: a member that is there twice would have two readings here."""
    try:
        strict_json.parse(body)
    except RequestRefused as refused:
        error = {"code": _PARSE_ERROR, "message": refused.problem.detail}
        return json_response(400, strict_json.encode({"jsonrpc": "2.0", "id": None, "error": error}))
    return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever the server says of the client."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
