"""What agents may ask of a tenant, and the gateways that announced themselves (INV-119).

An announcement is a row with a time and nothing more: whether a Problemata is available is derived when somebody asks.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from metagate_store.pool import NamedQueryPool


class AnnouncementOutcome(StrEnum):
    """`UNKNOWN`: not served in this tenant; `NOT_PERMITTED`: this principal does not run its gateways."""

    ANNOUNCED = "ANNOUNCED"
    WITHDRAWN = "WITHDRAWN"
    UNKNOWN = "UNKNOWN"
    NOT_PERMITTED = "NOT_PERMITTED"
    OTHER_VERSION = "OTHER_VERSION"


@dataclass(frozen=True, slots=True)
class Announcement:
    """What an instance says of itself. `health` is ok or degraded."""

    tenant: UUID
    problemata: str
    instance: str
    principal_key: str
    endpoint: str
    version: str
    capabilities: tuple[str, ...]
    health: str


@dataclass(frozen=True, slots=True)
class AnnouncedProblemata:
    """A served Problemata. `instances` as they go over the wire: instance, endpoint, version, health, announced_at."""

    name: str
    version: str
    payload_kind: str
    capabilities: Sequence[str]
    policy_profile: str
    surface: str
    available: bool
    instances: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ProblemataPage:
    """`next`: the name that the next page begins behind."""

    items: tuple[AnnouncedProblemata, ...]
    next: str | None


class ProblemataStore:
    """Every method may raise StoreUnavailable or SchemaMismatch."""

    def __init__(self, pool: NamedQueryPool) -> None:
        self._pool = pool

    async def announce(self, announcement: Announcement) -> AnnouncementOutcome:
        [row] = await self._pool.fetch(
            "read.announce",
            announcement.tenant,
            announcement.problemata,
            announcement.instance,
            announcement.principal_key,
            announcement.endpoint,
            announcement.version,
            list(announcement.capabilities),
            announcement.health,
        )
        return AnnouncementOutcome(row["outcome"])

    async def withdraw(self, tenant: UUID, problemata: str, instance: str, principal_key: str) -> AnnouncementOutcome:
        """WITHDRAWN also where there is no such instance (any more)."""
        [row] = await self._pool.fetch("read.withdraw", tenant, problemata, instance, principal_key)
        return AnnouncementOutcome(row["outcome"])

    async def page(self, tenant: UUID, *, after: str | None = None, limit: int = 100) -> ProblemataPage:
        """By name; fewer than `limit` where the page would be larger than a mebibyte."""
        rows = await self._pool.fetch("read.problematas", tenant, None, after, limit)
        items = tuple(_announced(row) for row in rows)
        return ProblemataPage(items, items[-1].name if rows and rows[-1]["more"] else None)

    async def one(self, tenant: UUID, name: str) -> AnnouncedProblemata | None:
        rows = await self._pool.fetch("read.problematas", tenant, name, None, 1)
        return _announced(rows[0]) if rows else None


def _announced(row: Any) -> AnnouncedProblemata:
    return AnnouncedProblemata(
        name=row["name"],
        version=row["version"],
        payload_kind=row["payload_kind"],
        capabilities=json.loads(row["capabilities"]),
        policy_profile=row["policy_profile"],
        surface=row["surface"],
        available=row["available"],
        instances=json.loads(row["instances"]),
    )
