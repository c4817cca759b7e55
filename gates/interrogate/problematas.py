"""The Problematas of all tenants, followed from MetaGate's database and held in memory (D-60, GW-01)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from interrogate.problemata import Problemata
from legivellum.gate.published_replica import ObjectDatabase, ObjectReplica, PublishedObject
from legivellum.postgres.errors import Unavailable


class ProblematasUnknown(Unavailable):
    """What may be asked is not known, or not known well enough."""


class ProblemataDatabase(ObjectDatabase):
    application_name: ClassVar[str] = "interrogate problematas"
    query: ClassVar[str] = "SELECT tenant, namespace, name, revision, content_hash, body FROM metagate.problematas($1)"


class ProblemataReplica(ObjectReplica[Problemata]):
    """What was published, by tenant and name."""

    unknown = ProblematasUnknown
    gate = "interrogate"
    subject = "problematas"
    unreadable_event = "problemata_unreadable"

    def compiled(self, row: PublishedObject, body: Mapping[str, Any]) -> Problemata:
        return Problemata.of(body, tenant=row.tenant, namespace=row.namespace, name=row.name, revision=row.revision)
