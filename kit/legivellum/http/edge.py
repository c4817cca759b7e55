"""The outermost application: every request enters here, and every answer leaves here.

It gives a request its id, finds its handler, sees that it is answered before its deadline, turns refusals and driver
errors into problems, and tells an observer how it went. Hot routes are called directly; everything else is the
framework's, its answer held back until it is whole, so that a late one can still be replaced by a 503.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from legivellum.http import correlation
from legivellum.http.deadline import Deadline, DeadlineExceeded, Overloaded
from legivellum.http.exchange import (
    App,
    ClientGone,
    Exchange,
    Message,
    Receive,
    Response,
    Scope,
    Send,
    problem_response,
)
from legivellum.http.problem_codes import Code
from legivellum.http.problems import SECURITY_HEADERS, Problem, RequestRefused

Handler = Callable[[Exchange], Awaitable[Response]]
Translate = Callable[[Exception], Problem | None]

_log = structlog.get_logger("metagate.edge")


class Observer(Protocol):
    def __call__(self, exchange: Exchange, answer: Response, seconds: float) -> None: ...


class Edge:
    """`hot` maps a path to its methods; `methods` tells what a path of the framework's allows (empty: no such path)."""

    def __init__(
        self,
        app: App,
        *,
        hot: Mapping[str, Mapping[str, Handler]],
        methods: Callable[[str], tuple[str, ...]],
        outer: Deadline,
        translate: Translate,
        observe: Observer,
        body_bytes: int,
    ) -> None:
        self._app = app
        self._hot = hot
        self._methods = methods
        self._outer = outer
        self._translate = translate
        self._observe = observe
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        exchange = Exchange(
            scope, receive, request_id=correlation.request_id(scope["headers"]), seconds=self._outer.seconds
        )
        try:
            answer = await self._answer(exchange)
        except ClientGone:
            return
        self._observe(exchange, answer, time.perf_counter() - started)
        await exchange.send(answer, send)

    async def _answer(self, exchange: Exchange) -> Response:
        try:
            hot = self._hot.get(exchange.path)
            if hot is None:
                return await self._framework(exchange, self._methods(exchange.path))
            exchange.scope["route_path"] = exchange.path
            handler = hot.get(exchange.method)
            return await (handler(exchange) if handler else self._framework(exchange, tuple(hot)))
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001  # the last place where an error can still become an answer
            problem = self.problem(error, exchange)
            exchange.code = problem.code
            return problem_response(problem)

    def problem(self, error: Exception, exchange: Exchange | None = None) -> Problem:
        """What an error is called outside. Whatever nobody foresaw is logged and answered as a defect."""
        if isinstance(error, RequestRefused):
            return error.problem
        if isinstance(error, DeadlineExceeded):
            return Problem(Code.DEADLINE_EXCEEDED, "There was no answer in time. Retry with the same Idempotency-Key.")
        if isinstance(error, Overloaded):
            return Problem(Code.OVERLOADED, "More is being asked than can be answered now.")
        known = self._translate(error)
        if known is not None:
            return known
        _log.error(
            "request_failed",
            request_id=exchange.request_id if exchange else None,
            error=type(error).__qualname__,
            exc_info=error,
        )
        return Problem(Code.INTERNAL_ERROR, "This should not have happened; the operators were told.")

    async def _framework(self, exchange: Exchange, allowed: tuple[str, ...]) -> Response:
        if not allowed:
            raise RequestRefused(Problem(Code.NOT_FOUND, "There is nothing at this path."))
        if "GET" in allowed:
            allowed = (*allowed, "HEAD")
        allow = (b"allow", ", ".join(sorted({*allowed, "OPTIONS"})).encode())
        if exchange.method == "OPTIONS":
            return Response(204, [allow, *SECURITY_HEADERS], b"")
        if exchange.method not in allowed:
            raise RequestRefused(Problem(Code.METHOD_NOT_ALLOWED, "The path does not take this method.", (allow,)))
        body = await exchange.body(self._body_bytes)
        return await self._outer.run(self._held_back(exchange, body), name=f"{exchange.method} {exchange.path}")

    async def _held_back(self, exchange: Exchange, body: bytes) -> Response:
        scope = dict(exchange.scope)
        if exchange.method == "HEAD":
            scope["method"] = "GET"
        scope["state"] = {**scope.get("state", {}), "exchange": exchange}
        requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status = 0
        headers: list[tuple[bytes, bytes]] = []
        parts: list[bytes] = []

        async def receive() -> Message:  # ASGI
            return requests.pop() if requests else {"type": "http.disconnect"}

        async def send(message: Message) -> None:  # ASGI
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], list(message.get("headers", ()))
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        return Response(status, headers, b"".join(parts))
