"""The application, put together: every endpoint of the table bound to its handler, one edge around them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.access_log import AccessLog
from legivellum.http.edge import Edge, Observer
from legivellum.http.exchange import Answer, App, Exchange
from legivellum.http.limits import Limits
from legivellum.http.metrics import RouteMetrics
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem
from legivellum.http.router import Handler, RouteLimits, Router
from legivellum.postgres.errors import DatabaseError
from memorygate.callers import Authenticate, Door
from memorygate.endpoints import ENDPOINTS
from memorygate.gate import Gate
from memorygate.metrics import LATENCY, REQUESTS
from memorygate.posting import Post, PostBatch
from memorygate.public_routes import PublicRoutes
from memorygate.reading import ObligationLookup, Reading
from memorygate.streaming import Streams

Lifespan = Callable[[Gate], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Application:
    """What the server serves, and the state behind it."""

    asgi: App
    gate: Gate
    router: Router


def create_app(
    gate: Gate, authenticator: Authenticate, *, lifespan: Lifespan | None = None, traces: Observer | None = None
) -> Application:
    """The whole gate. `lifespan` is an async context manager around the serving time; `traces` is told of answers."""
    settings = gate.settings
    limits = RouteLimits(settings.body_bytes, Limits().body_seconds, settings.deadline_seconds)
    router = Router.bind(ENDPOINTS, _handlers(gate, authenticator), defaults=limits)
    count, log = RouteMetrics(REQUESTS, LATENCY), AccessLog(settings.access_log)

    def observe(exchange: Exchange, answer: Answer, seconds: float) -> None:
        count(exchange, answer, seconds)
        log(exchange, answer, seconds)
        if traces is not None:
            traces(exchange, answer, seconds)

    @asynccontextmanager
    async def serving_time() -> AsyncIterator[None]:
        async with nullcontext() if lifespan is None else lifespan(gate):
            yield

    return Application(Edge(router, translate=unavailable, observe=observe, lifespan=serving_time), gate, router)


def _handlers(gate: Gate, authenticator: Authenticate) -> dict[str, Handler]:
    settings = gate.settings
    door = Door(authenticator, TokenBuckets(settings.rate_per_second, settings.rate_burst))
    reading, public = Reading(gate, door), PublicRoutes(gate)
    return {
        "GET /": public.root,
        "GET /health": public.health,
        "GET /livez": public.livez,
        "GET /readyz": public.readyz,
        "GET /metrics": public.metrics,
        "GET /openapi.json": public.openapi,
        "POST /receipts": Post(gate, door),
        "POST /receipts/batch": PostBatch(gate, door),
        "GET /receipts/stream": Streams(gate, door),
        "GET /receipts/{receipt_id}": reading.receipt,
        "GET /receipts/task/{task_id}": reading.task,
        "GET /receipts/chain/{receipt_id}": reading.chain,
        "GET /receipts/root/{task_id}": reading.root,
        "GET /v1/receipts": reading.receipts,
        "POST /v1/obligations/lookup": ObligationLookup(gate, door),
        "GET /inbox": reading.inbox,
        "GET /v1/summary": reading.summary,
    }


def unavailable(error: Exception) -> Problem | None:
    """Driver errors in the gate's words (docs/database.md): whatever goes wrong with the database is a 503."""
    if isinstance(error, DatabaseError | OSError | TimeoutError):
        return Problem(Code.UNAVAILABLE, "The database cannot be asked right now.")
    return None
