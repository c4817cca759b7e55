"""What a gate is, in one object: its name, settings, schema, endpoints and handlers. From it the kit makes the process
that serves the gate, its command line, and what `metagate dev --with` needs.

    GATE = GateDefinition(module=__name__, name="samplegate", title="SampleGate", doctrine="…", description="…",
                          settings=Settings, schema=SCHEMA, connect=connect, endpoints=ENDPOINTS, handlers=handlers,
                          metrics=GateMetrics("samplegate"))
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic
from uuid import UUID

from legivellum.gate.interview import INTERVIEW_ENDPOINT, INTERVIEW_SCHEMAS, Interview
from legivellum.gate.metrics import GateMetrics
from legivellum.gate.process import DatabaseT, GateProcess, SettingsT
from legivellum.gate.public_routes import PUBLIC_ENDPOINTS, PUBLIC_SCHEMAS
from legivellum.http.endpoints import Endpoint
from legivellum.http.endpoints import Schema as JsonSchema
from legivellum.http.problem_codes import Code
from legivellum.http.router import Handler
from legivellum.postgres.migrations import Migrated, Schema, migrate, needed_version


@dataclass(frozen=True, slots=True)
class GateDefinition(Generic[SettingsT, DatabaseT]):
    """It must be the attribute `GATE` of `module`: worker processes find it there."""

    module: str
    name: str
    """Lower case: the command, the schema's prefix, the process in logs."""
    title: str
    doctrine: str
    """The one sentence that `GET /` answers."""
    description: str
    settings: type[SettingsT]
    schema: Schema
    role: str
    """The role of the serving process; `dev` connects as it."""
    connect: Callable[[SettingsT], Awaitable[DatabaseT]]
    """Opens the gate's pool. Raises Unavailable."""
    endpoints: tuple[Endpoint, ...]
    handlers: Callable[[GateProcess[SettingsT, DatabaseT]], Mapping[str, Handler]]
    """Binds each endpoint to its handler, by `Endpoint.key`."""
    metrics: GateMetrics
    codes: type[Code] = Code
    """The gate's error codes."""
    schemas: Mapping[str, JsonSchema] = field(default_factory=dict)
    """JSON schemas by the names that the endpoints use."""
    interview: Callable[[GateProcess[SettingsT, DatabaseT], UUID], Awaitable[Interview]] | None = None
    """Asks the gate's database what waits in a tenant, in one statement; None: it has no `GET /v1/interview`."""
    database_event: str = "database"
    """Begins the names of the log's events of this gate's own database."""
    requires: tuple[str, ...] = ()
    """Schemas to migrate first, as `module:ATTRIBUTE` of a Schema: the ledger's, for gates that emit (D-57)."""
    mirrors_startups: bool = False
    """Whether MetaGate mirrors startups to it: the ledger (D-04)."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        # Functions and metrics cannot be pickled by value; a worker process imports the module instead.
        return load_definition, (f"{self.module}:GATE",)

    @property
    def all_endpoints(self) -> tuple[Endpoint, ...]:
        """What every gate answers, and the gate's own."""
        interview = () if self.interview is None else (INTERVIEW_ENDPOINT,)
        return (*PUBLIC_ENDPOINTS, *interview, *self.endpoints)

    @property
    def all_schemas(self) -> Mapping[str, JsonSchema]:
        """JSON schemas by name: those of what every gate answers, and the gate's own."""
        return {**PUBLIC_SCHEMAS, **INTERVIEW_SCHEMAS, **self.schemas}

    @property
    def needed_version(self) -> int:
        return needed_version(self.schema)

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


def load_definition(reference: str) -> GateDefinition[Any, Any]:
    """The definition that `module:ATTRIBUTE` names. Raises ImportError, AttributeError, TypeError."""
    definition = load(reference)
    if not isinstance(definition, GateDefinition):
        raise TypeError(f"{reference} is no GateDefinition")
    return definition
