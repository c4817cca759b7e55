"""Principals as a person on call looks at them: what each is bound to, whether it is up, and since when.

Health is derived when it is asked for (INV-022), from the newest sessions of the tenant. A principal is as well as the
worst of its components; a component is what its newest session says that reported or is past its deadline.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from metagate_store.pool import NamedQueryPool
from metagate_store.rows import Cursor

PrincipalState = Literal["failed", "overdue", "incomplete", "starting", "ready", "silent", "unbound", "suspended"]
"""`incomplete`: its Binding names something that is missing or invalid, so there is no packet; `silent`: bound, and no
session of it among those that were looked at; `unbound`: no Binding, so it cannot boot.
"""

STATES: Final[tuple[PrincipalState, ...]] = (
    "failed", "overdue", "incomplete", "starting", "ready", "silent", "unbound", "suspended",
)  # fmt: skip
"""The worst first."""

SCAN: Final = 10_000
"""Principals that one page looks at; about 40 ms."""
SPAN: Final = 20_000
"""Sessions that health rests on; about 30 ms."""


@dataclass(frozen=True, slots=True)
class PrincipalHealth:
    """`replicas`: pods of its components (where no pod is known: components) that booted, among the sessions that were
    looked at. Nobody says when a pod ends, so one that was replaced counts until its session leaves.

    `startup_id` and `opened_at` are those of its newest session; `trouble_id` is the newest session of the component
    that failed or is overdue.
    """

    tenant: UUID
    namespace: str
    principal_key: str
    type: str
    scope: str
    suspended: bool
    binding: str | None
    profile: str | None
    manifest: str | None
    state: PrincipalState
    components: int
    components_ready: int
    replicas: int
    replicas_ready: int
    startup_id: UUID | None
    opened_at: datetime | None
    trouble_id: UUID | None


@dataclass(frozen=True, slots=True)
class PrincipalHealthPage:
    """One page, by tenant and name.

    `counts`: how many of the principals that were looked at are in each state, whatever state was asked for.
    `scanned_all`: there are none after those. `looked_back_to` and `every_session` are as in an overview.
    """

    at: datetime
    items: tuple[PrincipalHealth, ...]
    counts: Mapping[PrincipalState, int]
    next: Cursor | None
    scanned_all: bool
    looked_back_to: datetime | None
    every_session: bool


class PrincipalStore:
    """Safe for concurrent use; every method may raise StoreUnavailable or SchemaMismatch."""

    def __init__(self, pool: NamedQueryPool) -> None:
        self._pool = pool

    async def page(
        self,
        tenant: UUID | None,
        *,
        state: str | None = None,
        letters: str | None = None,
        manifest: str | None = None,
        after: Cursor | None = None,
        limit: int,
        scan: int = SCAN,
        span: int = SPAN,
    ) -> PrincipalHealthPage:
        """`tenant` None: every tenant's, for a cluster-wide reader (D-51). `state`: one of `STATES`; `letters`: some of
        the name, in any case.

        Looks at `scan` principals at most: a filtered page may hold fewer than `limit`, or none, and have a next.
        """
        after_tenant, after_name = (UUID(after[0]), after[1]) if after else (None, None)
        filters = (state, letters, manifest, None, after_tenant, after_name)
        [row] = await self._pool.fetch("console.principals", tenant, tenant is None, *filters, limit + 1, scan, span)
        return _page(row, limit)

    async def health(self, tenant: UUID, name: str, *, span: int = SPAN) -> PrincipalHealth | None:
        filters = (None, None, None, name, None, None)
        [row] = await self._pool.fetch("console.principals", tenant, False, *filters, 1, 1, span)
        return next(iter(_page(row, 1).items), None)


def _page(row: Any, limit: int) -> PrincipalHealthPage:
    rows = [_health(members) for members in json.loads(row["principals"])]
    items, scanned_to = tuple(rows[:limit]), None if row["scanned_to"] is None else json.loads(row["scanned_to"])
    if len(rows) > limit:
        following: Cursor | None = (str(items[-1].tenant), items[-1].principal_key)
    else:
        following = None if scanned_to is None else tuple(scanned_to)
    return PrincipalHealthPage(
        at=row["at"],
        items=items,
        counts=json.loads(row["counts"]),
        next=following,
        scanned_all=scanned_to is None,
        looked_back_to=row["looked_back_to"],
        every_session=row["everything"],
    )


def _health(members: dict[str, Any]) -> PrincipalHealth:
    """From JSON, which has ids and times as text."""
    ids = {name: None if members[name] is None else UUID(members[name]) for name in ("startup_id", "trouble_id")}
    opened_at = None if members["opened_at"] is None else datetime.fromisoformat(members["opened_at"])
    return PrincipalHealth(**{**members, **ids, "tenant": UUID(members["tenant"]), "opened_at": opened_at})
