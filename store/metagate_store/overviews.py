"""What the person on call asks first: how boots go right now, who is not up, how fresh everything is.

Sessions have one index, so an overview looks at the newest `SPAN` of them and says how far back that reached.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from metagate_store import decoding
from metagate_store.pool import NamedQueryPool
from metagate_store.rows import StartupPage

SPAN = 20_000
"""Sessions that one overview looks at: an hour of five boots a second; 40 to 60 ms."""
TROUBLES = 40
TENANTS = 1_000
ISSUERS = 100


@dataclass(frozen=True, slots=True)
class Minute:
    """Sessions opened `ago` minutes ago (0: within the last minute), by what became of them; the rest still starts."""

    ago: int
    opened: int
    ready: int
    failed: int
    overdue: int


@dataclass(frozen=True, slots=True)
class ComponentTrouble:
    """One component of a principal with sessions that failed or are overdue; `startup_id` and `opened_at` are of the
    last of these. `up_again`: a session of it that was opened later reported READY, at `ready_at`.
    """

    tenant: UUID
    principal_key: str
    component_key: str
    overdue: int
    failed: int
    opened_at: datetime
    startup_id: UUID
    up_again: bool
    ready_at: datetime | None


@dataclass(frozen=True, slots=True)
class RecentStartup:
    """One of the newest sessions."""

    tenant: UUID
    startup_id: UUID
    principal_key: str
    component_key: str
    opened_at: datetime
    acknowledged_at: datetime | None
    status: str
    overdue: bool


@dataclass(frozen=True, slots=True)
class TenantCounts:
    tenant: UUID
    namespace: str
    opened: int
    ready: int
    failed: int
    starting: int
    overdue: int


@dataclass(frozen=True, slots=True)
class Overview:
    """`opened`, `ready`, `failed` of the last hour; `starting` and `overdue` now. All of it among the sessions that
    were looked at; since `looked_back_to` none is missing (None: there are none); `everything`: no older ones are kept.
    """

    at: datetime
    opened: int
    ready: int
    failed: int
    starting: int
    overdue: int
    looked_back_to: datetime | None
    everything: bool
    minutes: tuple[Minute, ...]
    troubles: tuple[ComponentTrouble, ...]
    latest: tuple[RecentStartup, ...]
    tenants: tuple[TenantCounts, ...]


@dataclass(frozen=True, slots=True)
class IssuerFreshness:
    """`last_seen`: when a key of it was last found where it is published; None without keys."""

    issuer: str
    source: str
    keys: int
    last_seen: datetime | None
    misses: int


@dataclass(frozen=True, slots=True)
class SearchMatch:
    """Something whose name holds what was searched.

    `kind`: principal, component, service, manifest, problemata, plan-template or startup.
    `detail`: a principal's type, a component's principal, a service's endpoint, a Problemata's version, a
    PlanTemplate's capability, a startup's component.
    """

    kind: str
    tenant: UUID
    namespace: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class NotServed:
    """A declared object that is refused (`served_generation` None), or held at its last good generation."""

    tenant: UUID | None
    kind: str
    namespace: str
    name: str
    generation: int
    served_generation: int | None
    reason: str
    message: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Sessions of the last hour that failed with the same error; the ids and names are those of the newest one."""

    error: str
    startups: int
    components: int
    principals: int
    first_at: datetime
    last_at: datetime
    tenant: UUID
    startup_id: UUID
    principal_key: str
    component_key: str


@dataclass(frozen=True, slots=True)
class SameError:
    """`error` of a failed session (its first 300 characters), and how many others failed with it since `since`."""

    error: str
    startups: int
    components: int
    principals: int
    since: datetime | None


class OverviewStore:
    """Safe for concurrent use; every method may raise StoreUnavailable or SchemaMismatch.

    `tenant` None: every tenant's, for a cluster-wide reader (D-51).
    """

    def __init__(self, pool: NamedQueryPool) -> None:
        self._pool = pool

    async def overview(self, tenant: UUID | None, *, span: int = SPAN, most: int = TROUBLES) -> Overview:
        """One statement; `most` components in trouble, those that are down first."""
        if tenant is None:
            rows = await self._pool.fetch("console.overview_everywhere", span, most)
        else:
            rows = await self._pool.fetch("console.overview", tenant, span, most)
        return _overview(rows[0])

    async def tenants(self) -> dict[UUID, str]:
        """The namespace of each tenant, by its name; for cluster-wide readers."""
        return {row["tenant"]: row["namespace"] for row in await self._pool.fetch("console.tenants", TENANTS)}

    async def issuers(self) -> tuple[IssuerFreshness, ...]:
        return tuple(IssuerFreshness(**row) for row in await self._pool.fetch("console.issuers", ISSUERS))

    async def search(self, tenant: UUID | None, wanted: str, *, limit: int) -> tuple[SearchMatch, ...]:
        """At most `limit` of each kind. `wanted` holds at least one character."""
        rows = await self._pool.fetch("console.search", tenant, tenant is None, wanted, limit)
        return tuple(SearchMatch(*row) for row in rows)

    async def not_served(self, tenant: UUID | None, *, limit: int) -> tuple[NotServed, ...]:
        """Newest first."""
        rows = await self._pool.fetch("console.not_served", tenant, tenant is None, limit)
        return tuple(NotServed(**row) for row in rows)

    async def failures(self, tenant: UUID | None, *, limit: int, span: int = SPAN) -> tuple[FailureGroup, ...]:
        """The most frequent errors first."""
        rows = await self._pool.fetch("console.failures", tenant, tenant is None, span, limit)
        return tuple(FailureGroup(**row) for row in rows)

    async def errors(self, troubles: Sequence[ComponentTrouble]) -> dict[UUID, str]:
        """By session: what the newest one of each component reported as its error; others are left out."""
        tenants, startups = [trouble.tenant for trouble in troubles], [trouble.startup_id for trouble in troubles]
        rows = await self._pool.fetch("console.errors", tenants, startups)
        return {row["startup_id"]: row["error"] for row in rows}

    async def failed_with(
        self, tenant: UUID | None, error: str, *, before: UUID | None = None, limit: int, span: int = SPAN
    ) -> StartupPage:
        """Sessions among the newest `span` that failed with this error, newest first; "" is those without a text."""
        asked = (tenant, tenant is None, error, before, limit + 1, span)
        items = tuple(decoding.startup(row) for row in await self._pool.fetch("console.startups_failed_with", *asked))
        last = items[limit - 1] if len(items) > limit else None
        return StartupPage(items[:limit], None if last is None else (str(last.tenant), str(last.startup_id)))

    async def same_error(self, tenant: UUID, startup_id: UUID, *, span: int = SPAN) -> SameError | None:
        """None when this session reported no error."""
        rows = await self._pool.fetch("console.others_failed_with", tenant, startup_id, span)
        return SameError(**rows[0]) if rows else None

    async def tenant_of(self, startup_id: UUID) -> UUID | None:
        """Whose session it is; for cluster-wide readers."""
        rows = await self._pool.fetch("console.startup_everywhere", startup_id)
        return rows[0]["tenant"] if rows else None


def _overview(row: Any) -> Overview:
    return Overview(
        at=row["at"],
        opened=row["opened"],
        ready=row["ready"],
        failed=row["failed"],
        starting=row["starting"],
        overdue=row["overdue"],
        looked_back_to=row["looked_back_to"],
        everything=row["everything"],
        minutes=tuple(Minute(*map(int, members)) for members in json.loads(row["minutes"])),
        troubles=tuple(ComponentTrouble(**_typed(members)) for members in json.loads(row["troubles"])),
        latest=tuple(RecentStartup(**_typed(members)) for members in json.loads(row["latest"])),
        tenants=tuple(TenantCounts(**_typed(members)) for members in json.loads(row["tenants"])),
    )


def _typed(members: dict[str, Any]) -> dict[str, Any]:
    """Ids and times, which JSON has as text."""
    typed: dict[str, Any] = {name: UUID(members[name]) for name in ("tenant", "startup_id") if name in members}
    moments: dict[str, Any] = {
        name: None if members[name] is None else datetime.fromisoformat(members[name])
        for name in ("opened_at", "acknowledged_at", "ready_at")
        if name in members
    }
    return {**members, **typed, **moments}
