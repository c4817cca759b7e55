"""The plan templates of all tenants, followed from MetaGate's database and held in memory (D-60)."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

import structlog

from legivellum.gate.published_replica import PublishedDatabase, PublishedReplica
from legivellum.postgres.errors import Unavailable
from metagate_crds.plans.template import PlanTemplate

_NONE: Final[Mapping[str, PlanTemplate]] = MappingProxyType({})

_log = structlog.get_logger("delegate.templates")


class TemplatesUnknown(Unavailable):
    """Which templates there are is not known, or not known well enough."""


class PublishedTemplate(NamedTuple):
    """A row of `metagate.plan_templates`; `body` is None where it was known already or another row has the same."""

    tenant: UUID
    namespace: str
    name: str
    revision: int
    content_hash: str
    body: str | None


class TemplateDatabase(PublishedDatabase):
    application_name: ClassVar[str] = "delegate templates"

    async def plan_templates(self, known: Sequence[str]) -> list[PublishedTemplate]:
        """Every served template of every tenant; those in `known` without their bodies."""
        rows = await self._pool.fetch(
            "SELECT tenant, namespace, name, revision, content_hash, body FROM metagate.plan_templates($1)", list(known)
        )
        return [PublishedTemplate(*row) for row in rows]


class TemplateReplica(PublishedReplica[TemplateDatabase]):
    """What was published, by tenant and name. An outage never makes it empty: what is too old is an error."""

    unknown = TemplatesUnknown
    gate = "delegate"
    subject = "templates"

    def __init__(
        self,
        connect: Callable[[], Awaitable[TemplateDatabase]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(connect, stale_seconds=stale_seconds, clock=clock)
        self._bodies: dict[str, str] = {}
        self._by_tenant: Mapping[UUID, Mapping[str, PlanTemplate]] = {}

    def of(self, tenant: UUID) -> Mapping[str, PlanTemplate]:
        """The tenant's templates by name; empty where it declared none. Raises TemplatesUnknown."""
        self.require_current()
        return self._by_tenant.get(tenant, _NONE)

    def for_capability(self, tenant: UUID, capability: str) -> PlanTemplate | None:
        """The template that a request for the capability means: one of a tenant at most. Raises TemplatesUnknown."""
        templates = self.of(tenant).values()
        return next((template for template in templates if template.capability == capability), None)

    async def _read(self, database: TemplateDatabase) -> None:
        published = await database.plan_templates(list(self._bodies))
        bodies = self._bodies | {row.content_hash: row.body for row in published if row.body is not None}
        by_tenant: dict[UUID, dict[str, PlanTemplate]] = {}
        for row in published:
            template = _template(row, bodies[row.content_hash])
            if template is not None:
                by_tenant.setdefault(row.tenant, {})[row.name] = template
        self._bodies = {row.content_hash: bodies[row.content_hash] for row in published}
        self._by_tenant = {tenant: MappingProxyType(named) for tenant, named in by_tenant.items()}

    def _size(self) -> int:
        return sum(map(len, self._by_tenant.values()))


def _template(row: PublishedTemplate, body: str) -> PlanTemplate | None:
    """A newer MetaGate may publish what this release cannot read: such a one is not there, others go on."""
    try:
        return PlanTemplate.of(json.loads(body), namespace=row.namespace, name=row.name, revision=row.revision)
    except Exception as error:  # noqa: BLE001 - one that cannot be read must not hide all others
        _log.error("template_unreadable", content_hash=row.content_hash, error=type(error).__qualname__)
        return None
