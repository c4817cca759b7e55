"""The application of a gate, put together from its definition and settings, and served: as a process of its own or
inside somebody's event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from legivellum.gate.definition import Definition, ProcessT
from legivellum.gate.process import ServedProcess, ServedSettingsT
from legivellum.gate.public_routes import PublicRoutes
from legivellum.gate.server import run_gate, serve_embedded
from legivellum.gate.serving import open_at_most
from legivellum.gate.settings import ServedGateSettings
from legivellum.http import tracing
from legivellum.http.access_log import AccessLog
from legivellum.http.edge import Edge, answer_observer
from legivellum.http.exchange import App
from legivellum.http.limits import Limits
from legivellum.http.metrics import RouteMetrics
from legivellum.http.openapi import openapi_document
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem
from legivellum.http.router import RouteLimits, Router
from legivellum.postgres.errors import DatabaseError


@dataclass(frozen=True, slots=True)
class ProcessApplication:
    """What the server serves, and the state behind it."""

    asgi: App
    router: Router
    process: ServedProcess[Any]


def composed(definition: Definition[ServedSettingsT, Any], settings: ServedSettingsT) -> ProcessApplication:
    """An application that connects when it begins to serve. Raises UnusableAddress, and what the handlers raise."""
    process = definition.process(settings)
    process.check_addresses()
    return application(definition, process, follow=True)


def application(
    definition: Definition[ServedSettingsT, ProcessT], process: ProcessT, *, follow: bool = False
) -> ProcessApplication:
    """Every endpoint of the gate bound to its handler, one edge around them. `follow`: poll the databases meanwhile."""
    settings = process.settings
    endpoints = definition.all_endpoints
    public = PublicRoutes(
        name=definition.name,
        version=settings.version,
        description={"service": definition.title, "doctrine": definition.doctrine, "openapi": "/openapi.json"},
        status=process.status,
        readiness=process.readiness,
        registry=process.metrics.registry,
        document=openapi_document(
            endpoints,
            info={"title": definition.title, "version": settings.version, "description": definition.description},
            schemas=definition.all_schemas,
            codes=definition.codes.registered().values(),
            api_key_header=process.api_key_header,
        ),
    )
    router = Router.bind(
        endpoints,
        {**public.handlers(), **definition.all_handlers(process)},
        defaults=RouteLimits(settings.body_bytes, Limits().body_seconds, settings.deadline_seconds),
    )
    spans = tracing.span_recorder(definition.name, settings)
    count = RouteMetrics(process.metrics.requests, process.metrics.latency, process.metrics.edges)
    observe = answer_observer(count, AccessLog(settings.access_log), spans)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with process.following() if follow else nullcontext(), spans.sending() if spans else nullcontext():
            yield

    edge = Edge(router, translate=unavailable, observe=observe, lifespan=lifespan)
    asgi: App = edge
    for wrap in process.in_front:
        asgi = wrap(edge)
    return ProcessApplication(asgi, router, process)


def limits(settings: ServedGateSettings) -> Limits:
    return Limits(body_bytes=settings.body_bytes, connections=open_at_most(settings.connections))


def unavailable(error: Exception) -> Problem | None:
    """Driver errors in the gate's words (docs/database.md): whatever goes wrong with the database is a 503."""
    if isinstance(error, DatabaseError | OSError | TimeoutError):
        return Problem(Code.UNAVAILABLE, "The database cannot be asked right now.")
    return None


class _Compose:
    """`composed` with its definition; pickled with it on its way to a worker process."""

    def __init__(self, definition: Definition[Any, Any]) -> None:
        self._definition = definition

    def __call__(self, settings: Any) -> ProcessApplication:
        return composed(self._definition, settings)


def run(definition: Definition[ServedSettingsT, Any], settings: ServedSettingsT) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status.

    Raises OSError, UnusableAddress, and what making the handlers raises.
    """
    return run_gate(settings, _Compose(definition), limits=limits, logger=f"{definition.name}.server")


@asynccontextmanager
async def serving(definition: Definition[ServedSettingsT, Any], settings: ServedSettingsT) -> AsyncIterator[str]:
    """Serve inside this event loop until the block is left. Yields the base URL. Raises OSError."""
    served = composed(definition, settings)
    async with serve_embedded(settings, served, limits=limits(settings), name=f"serve {definition.name}") as url:
        yield url
