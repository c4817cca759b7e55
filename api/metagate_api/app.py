"""The application, put together: hot routes as plain ASGI beside FastAPI's, one edge around both."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import fastapi
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from legivellum.base.token_bucket import TokenBuckets
from legivellum.http.access_log import AccessLog
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.deadline import Deadline
from legivellum.http.edge import Edge, Handler, Observer
from legivellum.http.exchange import App, Exchange, Receive, Response, Scope, Send, problem_response
from legivellum.http.metrics import RouteMetrics
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, RequestRefused
from metagate_api import admin, catalogue, doors, history, introspection, startups, views
from metagate_api.bootstrap import BootstrapHandler
from metagate_api.callers import ApiAuthenticator, CallerAuthenticator
from metagate_api.declared_files import DeclaredFiles
from metagate_api.gate import Gate, Seen, exchange_of
from metagate_api.metrics import BATCH_ROWS, LATENCY, REQUESTS
from metagate_api.packet_cache import PacketCache
from metagate_api.packet_rendering import Signer
from metagate_api.session_opener import with_new_ids
from metagate_api.settings import Settings
from metagate_api.startup_reports import ReportHandler
from metagate_store.errors import StoreError, StoreUnavailable
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapQuery, BootstrapResult, ReportQuery, ReportResult

BOOTSTRAP = "/v1/bootstrap"
READY = "/v1/startup/ready"
FAILED = "/v1/startup/failed"

Lifespan = Callable[[Gate], Any]


@dataclass(frozen=True, slots=True)
class Application:
    """What the server serves, and the state behind it (`gate`)."""

    asgi: App
    gate: Gate
    routes: FastAPI


def create_app(
    settings: Settings,
    reader: Reader | None,
    authenticator: ApiAuthenticator,
    *,
    issuers: Callable[[], Sequence[str]] = tuple,
    declared: DeclaredFiles | None = None,
    signer: Signer | None = None,
    lifespan: Lifespan | None = None,
    traces: Observer | None = None,
) -> Application:
    """The whole gate. `reader` may come later (`gate.connected`): until then every question is answered with 503.

    `lifespan` is an async context manager around the serving time, given the gate. `traces` is told of every answer.
    """
    buckets = TokenBuckets(settings.rate_per_second, settings.rate_burst)
    seen = Seen(ready=reader is not None, up=reader is not None)
    gate = Gate(
        settings=settings,
        authenticator=authenticator,
        door=CallerAuthenticator(authenticator, buckets, informed=lambda: seen.ready),
        packet_cache=PacketCache(limit_bytes=settings.cache_bytes),
        issuers=issuers,
        declared=declared,
        signer=signer,
        seen=seen,
        connected=reader,
    )
    hot = _hot(gate)
    routes = _framework(gate, hot, lifespan)
    count, log = RouteMetrics(REQUESTS, LATENCY), AccessLog(settings.access_log)

    def observe(exchange: Exchange, answer: Response, seconds: float) -> None:
        count(exchange, answer, seconds)
        log(exchange, answer, seconds)
        if traces is not None:
            traces(exchange, answer, seconds)

    edge = Edge(
        routes,
        hot=hot,
        methods=catalogue.methods,
        outer=Deadline(settings.deadline_seconds),
        translate=unavailable,
        observe=observe,
        body_bytes=settings.body_bytes,
    )
    if not settings.console:
        return Application(edge, gate, routes)
    from metagate_api.console_mount import console  # noqa: PLC0415 - its templates are loaded only where somebody looks

    return Application(console(gate, edge, observe), gate, routes)


def unavailable(error: Exception) -> Problem | None:
    """Driver errors in the gate's words (docs/database.md): whatever goes wrong with the store is a 503."""
    if isinstance(error, StoreError | OSError | TimeoutError):
        return Problem(Code.UNAVAILABLE, "The database cannot be asked right now.")
    return None


def _hot(gate: Gate) -> dict[str, dict[str, Handler]]:
    settings = gate.settings
    shape = BatchLimits(queue=settings.queue)
    opened = BATCH_ROWS.labels("bootstrap")
    reported = BATCH_ROWS.labels("report")

    async def bootstrap(asks: Sequence[BootstrapQuery]) -> list[BootstrapResult]:
        opened.observe(len(asks))
        return await gate.reader.bootstrap(asks)

    async def report(asks: Sequence[ReportQuery]) -> list[ReportResult]:
        reported.observe(len(asks))
        return await gate.reader.report(asks)

    reports = Batcher(report, name="report", shape=shape)
    return {
        BOOTSTRAP: {
            "POST": BootstrapHandler(
                door=gate.door,
                batcher=Batcher(bootstrap, name="bootstrap", shape=shape, renew=with_new_ids),
                packet_cache=gate.packet_cache,
                body_bytes=settings.body_bytes,
                mirror=settings.mirror,
                signer=gate.signer,
            )
        },
        READY: {
            "POST": ReportHandler(
                "READY", door=gate.door, batcher=reports, body_bytes=settings.body_bytes, mirror=settings.mirror
            )
        },
        FAILED: {
            "POST": ReportHandler(
                "FAILED", door=gate.door, batcher=reports, body_bytes=settings.body_bytes, mirror=settings.mirror
            )
        },
    }


def _framework(gate: Gate, hot: dict[str, dict[str, Handler]], lifespan: Lifespan | None) -> FastAPI:
    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        if lifespan is None:
            yield
            return
        async with lifespan(gate):
            yield

    app = FastAPI(
        title="MetaGate",
        version=gate.settings.version,
        openapi_url=None,  # served by doors, like everything else
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=living,
    )
    app.state.gate = gate
    for path, methods in hot.items():
        for method, handler in methods.items():
            app.router.routes.append(Route(path, _Unguarded(handler), methods=[method], include_in_schema=False))
    for module in (doors, startups, views, introspection, history, admin):  # admin's {kind} takes whatever is left
        app.include_router(module.router)
    app.add_exception_handler(RequestRefused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(StoreUnavailable, _store_unavailable)
    return app


class _Unguarded:
    """A hot handler as the ASGI route that it is registered as. The edge calls the handler itself, directly."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["state"]["exchange"]
        exchange.receive = receive
        answer = await self._handler(exchange)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})


def _response(request: Request, problem: Problem) -> fastapi.Response:
    exchange_of(request).code = problem.code
    answer = problem_response(problem)
    response = fastapi.Response(answer.body, status_code=answer.status)
    response.raw_headers[:] = answer.headers
    return response


async def _refused(request: Request, error: Exception) -> fastapi.Response:
    assert isinstance(error, RequestRefused)
    return _response(request, error.problem)


async def _store_unavailable(request: Request, error: Exception) -> fastapi.Response:
    problem = unavailable(error)
    assert problem is not None
    return _response(request, problem)


async def _invalid(request: Request, error: Exception) -> fastapi.Response:
    """Where it is wrong and how; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    found = [f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5]]
    if any(one["loc"][0] == "path" and one["loc"][-1] == "kind" for one in error.errors()):
        return _response(request, Problem(Code.NOT_FOUND, "There is nothing at this path."))
    return _response(request, Problem(Code.INVALID_REQUEST, "; ".join(found)))


async def _framework_error(request: Request, error: Exception) -> fastapi.Response:
    assert isinstance(error, HTTPException)
    code = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}.get(error.status_code, Code.MALFORMED_REQUEST)
    return _response(request, Problem(code, "The request cannot be routed."))
