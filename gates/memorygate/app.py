"""The application, put together: every route a handler from Exchange to Answer, one edge around them, the stream
beside it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.access_log import AccessLog
from legivellum.http.deadline import Deadline
from legivellum.http.edge import Edge, Handler, Observer
from legivellum.http.exchange import Exchange, Receive, Response, Scope, Send
from legivellum.http.metrics import RouteMetrics
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem
from legivellum.postgres.errors import DatabaseError
from memorygate.callers import Authenticate, Door
from memorygate.doors import Doors
from memorygate.gate import Gate
from memorygate.metrics import LATENCY, REQUESTS
from memorygate.posting import Post, PostBatch
from memorygate.reading import Reading
from memorygate.streaming import PATH as STREAM
from memorygate.streaming import Streams

Named = Callable[[Exchange, str], Awaitable[Response]]
Lifespan = Callable[[Gate], AbstractAsyncContextManager[Any]]

_NAMED = re.compile(r"/receipts/(?:(?P<list>task|chain)/)?(?P<name>[^/]+)\Z")


@dataclass(frozen=True, slots=True)
class Application:
    """What the server serves, and the state behind it."""

    asgi: Callable[[Scope, Receive, Send], Awaitable[None]]
    gate: Gate


def create_app(
    gate: Gate, authenticator: Authenticate, *, lifespan: Lifespan | None = None, traces: Observer | None = None
) -> Application:
    """The whole gate. `lifespan` is an async context manager around the serving time; `traces` is told of answers."""
    settings = gate.settings
    door = Door(authenticator, TokenBuckets(settings.rate_per_second, settings.rate_burst))
    reading, doors = Reading(gate, door), Doors(gate)
    hot: dict[str, dict[str, Handler]] = {
        "/receipts": {"POST": Post(gate, door)},
        "/receipts/batch": {"POST": PostBatch(gate, door)},
        "/inbox": {"GET": _within(settings.deadline_seconds, "/inbox", reading.inbox)},
        "/v1/summary": {"GET": _within(settings.deadline_seconds, "/v1/summary", reading.summary)},
        "/": {"GET": doors.root},
        "/health": {"GET": doors.health},
        "/livez": {"GET": doors.livez},
        "/readyz": {"GET": doors.readyz},
        "/metrics": {"GET": doors.metrics},
        "/openapi.json": {"GET": doors.openapi},
    }
    named: dict[str | None, Named] = {"task": reading.task, "chain": reading.chain, None: reading.receipt}
    count, log = RouteMetrics(REQUESTS, LATENCY), AccessLog(settings.access_log)

    def observe(exchange: Exchange, answer: Response, seconds: float) -> None:
        # EXT-18: the receipt is stored; whatever is told about it is not part of the answer.
        with suppress(Exception):
            count(exchange, answer, seconds)
            log(exchange, answer, seconds)
            if traces is not None:
                traces(exchange, answer, seconds)

    edge = Edge(
        _Named(named, gate, lifespan),
        hot=hot,
        methods=_methods_of,
        outer=Deadline(settings.deadline_seconds),
        translate=unavailable,
        observe=observe,
        body_bytes=settings.body_bytes,
    )
    streams = Streams(gate, door, edge, observe)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == STREAM and scope["method"] == "GET":
            await streams(scope, receive, send)
        else:
            await edge(scope, receive, send)

    return Application(asgi, gate)


def unavailable(error: Exception) -> Problem | None:
    """Driver errors in the gate's words (docs/database.md): whatever goes wrong with the database is a 503."""
    if isinstance(error, DatabaseError | OSError | TimeoutError):
        return Problem(Code.UNAVAILABLE, "The database cannot be asked right now.")
    return None


def _methods_of(path: str) -> tuple[str, ...]:
    return ("GET",) if path == STREAM or _NAMED.match(path) else ()


def _within(seconds: float, route: str, handler: Handler) -> Handler:
    """A read under the outer deadline; writes are under the batcher's."""
    outer = Deadline(seconds)

    async def bounded(exchange: Exchange) -> Response:
        return await outer.run(handler(exchange), name=route)  # type: ignore[arg-type]

    return bounded


class _Named:
    """The routes with a name in their path, and the lifespan: what the edge calls its application."""

    def __init__(self, named: dict[str | None, Named], gate: Gate, lifespan: Lifespan | None) -> None:
        self._named = named
        self._gate = gate
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        exchange: Exchange = scope["state"]["exchange"]
        found = _NAMED.match(exchange.path)
        assert found is not None  # _methods_of said so
        which = found["list"]
        exchange.scope["route_path"] = f"/receipts/{f'{which}/' if which else ''}{{id}}"
        answer = await self._named[which](exchange, found["name"])
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._living():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        if self._lifespan is None:
            yield
            return
        async with self._lifespan(self._gate):
            yield
