"""The plan templates of all tenants, followed from MetaGate's database and held in memory (D-60)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from uuid import UUID

from legivellum.gate.published_replica import ObjectDatabase, ObjectReplica, PublishedObject
from legivellum.postgres.errors import Unavailable
from metagate_crds.plans.template import PlanTemplate


class TemplatesUnknown(Unavailable):
    """Which templates there are is not known, or not known well enough."""


class TemplateDatabase(ObjectDatabase):
    application_name: ClassVar[str] = "delegate templates"
    query: ClassVar[str] = (
        "SELECT tenant, namespace, name, revision, content_hash, body FROM metagate.plan_templates($1)"
    )


class TemplateReplica(ObjectReplica[PlanTemplate]):
    """What was published, by tenant and name."""

    unknown = TemplatesUnknown
    gate = "delegate"
    subject = "templates"
    unreadable_event = "template_unreadable"

    def for_capability(self, tenant: UUID, capability: str) -> PlanTemplate | None:
        """The template that a request for the capability means: one of a tenant at most. Raises TemplatesUnknown."""
        templates = self.of(tenant).values()
        return next((template for template in templates if template.capability == capability), None)

    def compiled(self, row: PublishedObject, body: Mapping[str, Any]) -> PlanTemplate:
        return PlanTemplate.of(body, namespace=row.namespace, name=row.name, revision=row.revision)
