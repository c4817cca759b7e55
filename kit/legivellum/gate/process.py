"""One serving process of a gate, put together from its definition and settings: identity, pollers, routes, edge."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol
from uuid import UUID

from legivellum.base.token_bucket import TokenBuckets
from legivellum.gate.definition import DatabaseT, GateDefinition, SettingsT
from legivellum.gate.event_stream import EventStreams
from legivellum.gate.identity_poller import IdentityReplica
from legivellum.gate.public_routes import PUBLIC_SCHEMAS, PublicRoutes
from legivellum.gate.serving import open_at_most
from legivellum.gate.settings import DatabaseGateSettings
from legivellum.gate.snapshot_poller import (
    DatabaseStatus,
    SnapshotPoller,
    close_quietly,
    polling,
    read_connected,
    require_version,
)
from legivellum.http import tracing
from legivellum.http.access_log import AccessLog
from legivellum.http.edge import Edge
from legivellum.http.exchange import AnyResponse, App, Exchange
from legivellum.http.limits import Limits
from legivellum.http.metrics import RouteMetrics
from legivellum.http.openapi import openapi_document
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem
from legivellum.http.router import RouteLimits, Router
from legivellum.identity.auth_failure_throttle import AuthFailureThrottle
from legivellum.identity.authenticator import Authenticator
from legivellum.identity.keyring import KeyRing
from legivellum.identity.replica import IdentityDatabase, ReplicatedDirectory
from legivellum.identity.request_authenticator import Authenticate, RequestAuthenticator
from legivellum.identity.tokens import TokenVerifier
from legivellum.postgres.errors import DatabaseError, SchemaMismatch, Unavailable

_FIRST_LOOK_SECONDS: Final = 3.0
_DATABASE_POLL_SECONDS: Final = 1.0


class GateDatabase(Protocol):
    """A gate's own database: a pool, and one method for each statement."""

    async def schema_version(self) -> int: ...
    async def close(self) -> None: ...


class GateProcess(Generic[SettingsT, DatabaseT]):
    """What the handlers of one process share. `connected` is None until the database was reached."""

    def __init__(
        self,
        definition: GateDefinition[SettingsT, DatabaseT],
        settings: SettingsT,
        *,
        authenticator: Authenticate | None = None,
        connected: DatabaseT | None = None,
        is_principal: Callable[[UUID, str], bool] | None = None,
    ) -> None:
        """A serving process makes the last three from its settings; tests give their own."""
        self.definition = definition
        self.settings = settings
        self.metrics = definition.metrics
        self.status = DatabaseStatus()
        self.connected = connected
        self.directory = ReplicatedDirectory(stale_seconds=settings.identity_stale_seconds, clock=time.monotonic)
        self.is_principal = is_principal or self.directory.has_principal
        """Whether a tenant has a principal of this name, as far as is known."""
        self.credentials = Authenticator(
            keys=KeyRing(),
            tokens=TokenVerifier(audiences=(settings.audience,)),
            directory=self.directory,
            api_key_header=settings.api_key_header,
            throttle=AuthFailureThrottle(),
        )
        self.authenticator = RequestAuthenticator(
            authenticator or self.credentials,
            TokenBuckets(settings.rate_per_second, settings.rate_burst),
            refused=lambda reason: self.metrics.auth_failures.labels(reason.value).inc(),
            limited=self.metrics.rate_limited.inc,
        )
        self.streams = EventStreams(
            most=settings.streams, heartbeat_seconds=settings.heartbeat_seconds, opened=self.metrics.streams.inc
        )

    @property
    def database(self) -> DatabaseT:
        """Raises Unavailable while it was never reached."""
        if self.connected is None:
            raise Unavailable("The database was not reached yet.")
        return self.connected

    def database_poller(self) -> SnapshotPoller:
        """Connects to the gate's own database, and says whether it answers and fits."""
        status, definition = self.status, self.definition
        needed = definition.needed_version

        async def connect() -> DatabaseT:
            return await definition.connect(self.settings)

        async def read_version(database: DatabaseT) -> int:
            version = await database.schema_version()
            require_version(version, needed)
            return version

        async def look() -> Mapping[str, object]:
            status.schema_version = await read_connected(self, connect, read_version)
            status.up = status.fits = True
            status.ready = status.ready or status.identity
            self.metrics.database_up.set(1)
            return {"schema_version": status.schema_version}

        def on_lost(error: Exception) -> None:
            status.up, status.fits = False, not isinstance(error, SchemaMismatch)
            self.metrics.database_up.set(0)

        return SnapshotPoller(
            definition.database_event,
            look,
            logger=f"{definition.name}.database",
            seconds=_DATABASE_POLL_SECONDS,
            on_lost=on_lost,
        )

    def identity_poller(self, replica: IdentityReplica) -> SnapshotPoller:
        """Takes over keys, issuers and principals as they are published."""
        status = self.status

        def measure(*, reached: bool) -> None:
            status.identity = reached
            self.metrics.identity_age.set(-1 if replica.age is None else replica.age)

        async def look() -> Mapping[str, object]:
            facts = await replica.look()
            measure(reached=True)
            status.ready = status.ready or (status.up and status.fits)
            return facts

        def on_lost(_error: Exception) -> None:
            measure(reached=False)

        return SnapshotPoller(
            "identity",
            look,
            logger=f"{self.definition.name}.database",
            seconds=self.settings.identity_poll_ms / 1_000,
            on_lost=on_lost,
        )

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow both databases while the block runs."""
        identity_dsn, name = self.settings.identity_dsn, f"{self.definition.name} identity"

        async def connect() -> IdentityDatabase:
            return await IdentityDatabase.connect(identity_dsn, application_name=name)

        replica = IdentityReplica(self.credentials, self.directory, connect)
        pollers = (self.database_poller(), self.identity_poller(replica))
        try:
            async with polling(*pollers, first_look_seconds=_FIRST_LOOK_SECONDS):
                yield
        finally:
            await replica.close()
            await close_quietly(self.connected)


@dataclass(frozen=True, slots=True)
class ProcessApplication:
    """What the server serves, and the state behind it."""

    asgi: App
    router: Router
    process: GateProcess[Any, Any]


def composed(definition: GateDefinition[SettingsT, DatabaseT], settings: SettingsT) -> ProcessApplication:
    """An application that connects when it begins to serve. Raises UnusableAddress, and what the handlers raise."""
    settings.dsn, settings.identity_dsn  # noqa: B018 - a malformed address is told before anything is served
    return application(GateProcess(definition, settings), follow=True)


def application(process: GateProcess[SettingsT, DatabaseT], *, follow: bool = False) -> ProcessApplication:
    """Every endpoint of the gate bound to its handler, one edge around them. `follow`: poll the databases meanwhile."""
    definition, settings = process.definition, process.settings
    endpoints = definition.all_endpoints
    public = PublicRoutes(
        name=definition.name,
        version=settings.version,
        description={"service": definition.title, "doctrine": definition.doctrine},
        status=process.status,
        registry=process.metrics.registry,
        document=openapi_document(
            endpoints,
            info={"title": definition.title, "version": settings.version, "description": definition.description},
            schemas={**PUBLIC_SCHEMAS, **definition.schemas},
            codes=definition.codes.registered().values(),
            api_key_header=settings.api_key_header,
        ),
    )
    router = Router.bind(
        endpoints,
        {**public.handlers(), **definition.handlers(process)},
        defaults=RouteLimits(settings.body_bytes, Limits().body_seconds, settings.deadline_seconds),
    )
    count, log = RouteMetrics(process.metrics.requests, process.metrics.latency), AccessLog(settings.access_log)
    spans = tracing.span_recorder(definition.name, settings)

    def observe(exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        count(exchange, answer, seconds)
        log(exchange, answer, seconds)
        if spans is not None:
            spans(exchange, answer, seconds)

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        async with process.following() if follow else nullcontext(), spans.sending() if spans else nullcontext():
            yield

    return ProcessApplication(Edge(router, translate=unavailable, observe=observe, lifespan=lifespan), router, process)


def limits(settings: DatabaseGateSettings) -> Limits:
    return Limits(body_bytes=settings.body_bytes, connections=open_at_most(settings.connections))


def unavailable(error: Exception) -> Problem | None:
    """Driver errors in the gate's words (docs/database.md): whatever goes wrong with the database is a 503."""
    if isinstance(error, DatabaseError | OSError | TimeoutError):
        return Problem(Code.UNAVAILABLE, "The database cannot be asked right now.")
    return None
