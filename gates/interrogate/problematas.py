"""The Problematas of all tenants, followed from MetaGate's database and held in memory (D-60, GW-01)."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID

import structlog

from interrogate.problemata import Problemata
from legivellum.gate.published_replica import PublishedDatabase, PublishedReplica
from legivellum.postgres.errors import Unavailable

_NONE: Final[Mapping[str, Problemata]] = MappingProxyType({})

_log = structlog.get_logger("interrogate.problematas")


class ProblematasUnknown(Unavailable):
    """What may be asked is not known, or not known well enough."""


class PublishedProblemata(NamedTuple):
    """A row of `metagate.problematas`; `body` is None where it was known already or another row has the same."""

    tenant: UUID
    namespace: str
    name: str
    revision: int
    content_hash: str
    body: str | None


class ProblemataDatabase(PublishedDatabase):
    application_name: ClassVar[str] = "interrogate problematas"

    async def problematas(self, known: Sequence[str]) -> list[PublishedProblemata]:
        """Every served Problemata of every tenant; those in `known` without their bodies."""
        rows = await self._pool.fetch(
            "SELECT tenant, namespace, name, revision, content_hash, body FROM metagate.problematas($1)", list(known)
        )
        return [PublishedProblemata(*row) for row in rows]


class ProblemataReplica(PublishedReplica[ProblemataDatabase]):
    """What was published, by tenant and name. An outage never makes it empty: what is too old is an error."""

    unknown = ProblematasUnknown
    gate = "interrogate"
    subject = "problematas"

    def __init__(
        self,
        connect: Callable[[], Awaitable[ProblemataDatabase]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(connect, stale_seconds=stale_seconds, clock=clock)
        self._bodies: dict[str, Mapping[str, Any]] = {}
        self._by_tenant: Mapping[UUID, Mapping[str, Problemata]] = {}

    def of(self, tenant: UUID) -> Mapping[str, Problemata]:
        """The tenant's Problematas by name; empty where it declared none. Raises ProblematasUnknown.

        The mapping is the same object until something of any tenant changed, so that what is made of it can be kept
        beside it.
        """
        self.require_current()
        return self._by_tenant.get(tenant, _NONE)

    def all(self) -> Mapping[UUID, Mapping[str, Problemata]]:
        """Those of all tenants, for announcing. Raises ProblematasUnknown."""
        self.require_current()
        return self._by_tenant

    async def _read(self, database: ProblemataDatabase) -> None:
        published = await database.problematas(list(self._bodies))
        bodies = self._bodies | {row.content_hash: json.loads(row.body) for row in published if row.body is not None}
        by_tenant: dict[UUID, dict[str, Problemata]] = {}
        for row in published:
            kept = self._by_tenant.get(row.tenant, _NONE).get(row.name)
            # Its revision is that of its last change: digests and schemas are not computed again at every revision.
            unchanged = kept is not None and (kept.revision, kept.namespace) == (row.revision, row.namespace)
            problemata = kept if unchanged else _compiled(row, bodies[row.content_hash])
            if problemata is not None:
                by_tenant.setdefault(row.tenant, {})[row.name] = problemata
        self._bodies = {row.content_hash: bodies[row.content_hash] for row in published}
        self._by_tenant = {tenant: MappingProxyType(named) for tenant, named in by_tenant.items()}

    def _size(self) -> int:
        return sum(map(len, self._by_tenant.values()))


def _compiled(row: PublishedProblemata, body: Mapping[str, Any]) -> Problemata | None:
    """A newer MetaGate may publish what this release cannot serve: agents do not see such a one, others go on."""
    try:
        return Problemata.of(body, tenant=row.tenant, namespace=row.namespace, name=row.name, revision=row.revision)
    except Exception as error:  # noqa: BLE001 - one that cannot be read must not hide all others
        _log.error("problemata_unreadable", content_hash=row.content_hash, error=type(error).__qualname__)
        return None
