"""What a gate is, in one object: its name, settings, endpoints and handlers. From it the kit makes the process that
serves the gate, its command line, and what `metagate dev --with` needs.

    GATE = GateDefinition(module=__name__, name="samplegate", title="SampleGate", doctrine="…", description="…",
                          settings=Settings, schema=SCHEMA, connect=connect, endpoints=ENDPOINTS, handlers=handlers,
                          metrics=GateMetrics("samplegate"))

    ServedDefinition          a process that serves HTTP; nobody sends it a credential
      IdentityDefinition      … and knows its callers; it keeps nothing
      GateDefinition          … and has a schema in a database
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar
from uuid import UUID

from legivellum.gate.interview import INTERVIEW_ENDPOINT, INTERVIEW_SCHEMAS, Interview, InterviewHandler
from legivellum.gate.metrics import GateMetrics, IdentityMetrics, ServedMetrics
from legivellum.gate.process import (
    DatabaseT,
    GateProcess,
    IdentityProcess,
    IdentitySettingsT,
    ServedProcess,
    ServedSettingsT,
    SettingsT,
)
from legivellum.gate.public_routes import PUBLIC_ENDPOINTS, PUBLIC_SCHEMAS
from legivellum.http.endpoints import ANYBODY, Endpoint
from legivellum.http.endpoints import Schema as JsonSchema
from legivellum.http.problem_codes import Code
from legivellum.http.router import Handler
from legivellum.postgres.migrations import Migrated, Schema, migrate, needed_version

ProcessT = TypeVar("ProcessT", bound=ServedProcess[Any])
IdentityProcessT = TypeVar("IdentityProcessT", bound=IdentityProcess[Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition(ABC, Generic[ServedSettingsT, ProcessT]):
    """It must be the attribute `GATE` of `module`: worker processes find it there."""

    module: str
    name: str
    """Lower case: the command, the schema's prefix, the process in logs."""
    title: str
    doctrine: str
    """The one sentence that `GET /` answers."""
    description: str
    settings: type[ServedSettingsT]
    endpoints: tuple[Endpoint, ...]
    handlers: Callable[[ProcessT], Mapping[str, Handler]]
    """Binds each endpoint to its handler, by `Endpoint.key`."""
    codes: type[Code] = Code
    """The gate's error codes."""
    schemas: Mapping[str, JsonSchema] = field(default_factory=dict)
    """JSON schemas by the names that the endpoints use."""
    mirrors_startups: bool = False
    """Whether MetaGate mirrors startups to it: the ledger (D-04)."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        # Functions and metrics cannot be pickled by value; a worker process imports the module instead.
        return load_definition, (f"{self.module}:GATE",)

    @abstractmethod
    def process(self, settings: ServedSettingsT) -> ProcessT:
        """What the handlers of one process share."""

    @property
    def all_endpoints(self) -> tuple[Endpoint, ...]:
        """What every gate answers, and the gate's own."""
        return (*PUBLIC_ENDPOINTS, *self.endpoints)

    @property
    def all_schemas(self) -> Mapping[str, JsonSchema]:
        """JSON schemas by name: those of what every gate answers, and the gate's own."""
        return {**PUBLIC_SCHEMAS, **self.schemas}

    def all_handlers(self, process: ProcessT) -> Mapping[str, Handler]:
        """The handlers of all endpoints but the public ones. Raises what the gate's handlers raise."""
        return self.handlers(process)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedDefinition(Definition[ServedSettingsT, ServedProcess[ServedSettingsT]], Generic[ServedSettingsT]):
    """A process that only shows views of itself: it follows no database and knows no callers."""

    metrics: ServedMetrics

    def process(self, settings: ServedSettingsT) -> ServedProcess[ServedSettingsT]:
        return ServedProcess(self.name, self.metrics, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class InterviewedDefinition(Definition[ServedSettingsT, IdentityProcessT], Generic[ServedSettingsT, IdentityProcessT]):
    """A gate that knows its callers, and may answer them `GET /v1/interview`."""

    callers: frozenset[str] | None = None
    """Types of principals that the gate lets in (docs/edges.md), where an endpoint does not say; None: all."""
    interview: Callable[[IdentityProcessT, UUID], Awaitable[Interview]] | None = None
    """What waits in a tenant, in one question to the gate's database where it has one; None: it has no interview."""

    @property
    def all_endpoints(self) -> tuple[Endpoint, ...]:
        interview = () if self.interview is None else (INTERVIEW_ENDPOINT,)
        return (*PUBLIC_ENDPOINTS, *map(self._with_callers, (*interview, *self.endpoints)))

    def _with_callers(self, endpoint: Endpoint) -> Endpoint:
        named = endpoint.auth == ANYBODY or endpoint.callers is not None
        return endpoint if named else replace(endpoint, callers=self.callers)

    @property
    def all_schemas(self) -> Mapping[str, JsonSchema]:
        return {**PUBLIC_SCHEMAS, **INTERVIEW_SCHEMAS, **self.schemas}

    def all_handlers(self, process: IdentityProcessT) -> Mapping[str, Handler]:
        if self.interview is None:
            return self.handlers(process)
        interview = InterviewHandler(
            self.name,
            process.settings.version,
            authenticate=process.authenticator.caller,
            ask=partial(self.interview, process),
        )
        return {INTERVIEW_ENDPOINT.key: interview, **self.handlers(process)}


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityDefinition(
    InterviewedDefinition[IdentitySettingsT, IdentityProcess[IdentitySettingsT]], Generic[IdentitySettingsT]
):
    """A gate without a database: what it knows it asks other gates, or reads from MetaGate's published tables."""

    metrics: IdentityMetrics

    def process(self, settings: IdentitySettingsT) -> IdentityProcess[IdentitySettingsT]:
        return IdentityProcess(self.name, self.metrics, settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateDefinition(
    InterviewedDefinition[SettingsT, GateProcess[SettingsT, DatabaseT]], Generic[SettingsT, DatabaseT]
):
    """A gate with a schema in a database."""

    metrics: GateMetrics
    schema: Schema
    role: str
    """The role of the serving process; `dev` connects as it."""
    connect: Callable[[SettingsT], Awaitable[DatabaseT]]
    """Opens the gate's pool. Raises Unavailable."""
    database_event: str = "database"
    """Begins the names of the log's events of this gate's own database."""
    requires: tuple[str, ...] = ()
    """Schemas to migrate first, as `module:ATTRIBUTE` of a Schema: the ledger's, for gates that emit (D-57)."""

    @property
    def needed_version(self) -> int:
        return needed_version(self.schema)

    def process(self, settings: SettingsT) -> GateProcess[SettingsT, DatabaseT]:
        return GateProcess(self, settings)

    async def migrate(self, dsn: str, *, passwords: Mapping[str, str] | None = None) -> Migrated:
        """Create or bring up to date the schemas it requires and its own. Harmless when there is nothing to do.

        `passwords` by role. Raises Unavailable, SchemaMismatch.
        """
        given = passwords or {}
        for reference in self.requires:
            required = load(reference)
            await migrate(required, dsn, passwords={role: given[role] for role in required.roles if role in given})
        return await migrate(
            self.schema, dsn, passwords={role: given[role] for role in self.schema.roles if role in given}
        )


def load(reference: str) -> Any:
    """The object that `module:ATTRIBUTE` names. Raises ImportError, AttributeError."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_definition(reference: str) -> Definition[Any, Any]:
    """The definition that `module:ATTRIBUTE` names. Raises ImportError, AttributeError, TypeError."""
    definition = load(reference)
    if not isinstance(definition, Definition):
        raise TypeError(f"{reference} is no definition of a gate")
    return definition
