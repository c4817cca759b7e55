"""The outermost application: every request enters here, and every answer leaves here.

It gives a request its id, finds its route, sees that it is answered before its deadline, turns refusals and driver
errors into problems, and tells an observer how it went. Whatever goes wrong inside, the client gets one whole answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Protocol

import structlog

from legivellum.http.deadline import DeadlineExceeded, Overloaded
from legivellum.http.exchange import (
    AnyResponse,
    ClientGone,
    Exchange,
    Receive,
    Response,
    Scope,
    Send,
    choose_request_id,
    problem_response,
)
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, RequestRefused
from legivellum.http.router import Router

Translate = Callable[[Exception], Problem | None]
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_log = structlog.get_logger("gate.edge")


class Observer(Protocol):
    def __call__(self, exchange: Exchange, answer: AnyResponse, seconds: float) -> None: ...


def answer_observer(count: Observer, log: Observer, spans: Observer | None) -> Observer:
    """Tells the metrics, the access log and, where traces are on, the span recorder of every answer."""

    def observe(exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        count(exchange, answer, seconds)
        log(exchange, answer, seconds)
        if spans is not None:
            spans(exchange, answer, seconds)

    return observe


class Edge:
    """The ASGI application of a gate. `translate` knows what the gate's drivers raise; `lifespan` is entered while the
    process serves.
    """

    def __init__(
        self, router: Router, *, translate: Translate, observe: Observer, lifespan: Lifespan = nullcontext
    ) -> None:
        self.router = router
        self._translate = translate
        self._observe = observe
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._serve(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        exchange = Exchange(
            scope,
            receive,
            request_id=choose_request_id(scope["headers"]),
            seconds=self.router.defaults.deadline_seconds,
        )
        try:
            answer = await self._answer(exchange)
        except ClientGone:
            return
        self.observe(exchange, answer, time.perf_counter() - started)
        try:
            await exchange.send(answer, send)
        except ClientGone:
            # The body was cut off before its end; the server closes the connection, so nobody takes it for whole.
            return

    def observe(self, exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        """What is counted and logged of an answer is not part of it: a failure there does not reach the client."""
        try:
            self._observe(exchange, answer, seconds)
        except Exception as error:  # noqa: BLE001
            _log.error("observer_failed", error=type(error).__qualname__, exc_info=error)

    async def _serve(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan protocol: one message starts, one ends."""
        await receive()
        async with self._lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, exchange: Exchange) -> AnyResponse:
        try:
            route = self.router.route(exchange)
            limits = route.limits
            if limits.deadline_seconds != exchange.seconds:
                exchange.set_deadline(limits.deadline_seconds)
            exchange.body_bytes = limits.body_bytes
            if route.deadline is None:
                return await route.handler(exchange)
            # The body has a clock of its own: a slow client must not use up the time that the answer has.
            await exchange.body()
            return await route.deadline.run(route.handler(exchange), name=f"{exchange.method} {exchange.route}")
        except ClientGone:
            raise
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            # Nobody cancelled this request: something that it waited for was, and the client still waits.
            return self._refused(error, exchange)
        except Exception as error:  # noqa: BLE001  # the last place where an error can still become an answer
            return self._refused(error, exchange)

    def _refused(self, error: BaseException, exchange: Exchange) -> Response:
        problem = self.problem(error, exchange)
        exchange.code = problem.code
        return problem_response(problem)

    def problem(self, error: BaseException, exchange: Exchange | None = None) -> Problem:
        """What an error is called outside. Whatever nobody foresaw is logged and answered as a defect."""
        if isinstance(error, RequestRefused):
            return error.problem
        if isinstance(error, DeadlineExceeded):
            return Problem(Code.DEADLINE_EXCEEDED, "There was no answer in time. Retry with the same Idempotency-Key.")
        if isinstance(error, Overloaded):
            return Problem(Code.OVERLOADED, "More is being asked than can be answered now.")
        known = self._translate(error) if isinstance(error, Exception) else None
        if known is not None:
            return known
        _log.error(
            "request_failed",
            request_id=exchange.request_id if exchange else None,
            error=type(error).__qualname__,
            exc_info=error,
        )
        return Problem(Code.INTERNAL_ERROR, "This should not have happened; the operators were told.")
