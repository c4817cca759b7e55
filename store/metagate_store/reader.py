"""What the API asks the database. Role `metagate_api`: it may EXECUTE functions and touch no table.

Each method is one statement, so no answer ever mixes two revisions. `bootstrap` and `report` carry many questions in
one statement and one commit; each gets its own answer, whatever becomes of its neighbours.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Self
from uuid import UUID

from asyncpg import Record

from legivellum.postgres.published_identity import CredentialChanges, KnownPrincipal, credential_changes
from metagate_store import decoding
from metagate_store.history import HistoryStore
from metagate_store.overviews import OverviewStore
from metagate_store.pool import NamedQueryPool
from metagate_store.principal_health import PrincipalStore
from metagate_store.problematas import ProblemataStore
from metagate_store.rows import (
    BootstrapOutcome,
    BootstrapQuery,
    BootstrapResult,
    CredentialRow,
    Cursor,
    InterviewCounts,
    Item,
    ItemPage,
    ListedKind,
    PacketQuery,
    PacketResult,
    PolicyProfile,
    ReportOutcome,
    ReportQuery,
    ReportResult,
    StartupCounts,
    StartupPage,
    StartupRow,
    State,
    Topology,
)

CONTENDED_PAUSES = (0.0, 0.005, 0.02, 0.05)
"""Seconds between looks at a startup that somebody else is just reporting."""


LOADING_SECONDS = 30
"""How long loading every credential may take; two hundred thousand keys take one to two seconds."""

TOPOLOGY_PRINCIPALS = 2_000
"""Principals of one page of a topology; about 30 ms."""

SPAN = 100_000
"""Sessions that one filtered page or one summary looks at; about 30 ms."""


class Reader:
    """Safe for concurrent use; every method may raise StoreUnavailable or SchemaMismatch."""

    def __init__(self, pool: NamedQueryPool) -> None:
        self._pool = pool
        self._behind = True  # the next look at the credentials may have much to say
        self.history = HistoryStore(pool)
        self.overviews = OverviewStore(pool)
        self.principals = PrincipalStore(pool)
        self.problematas = ProblemataStore(pool)

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        size: int = 4,
        acquire_timeout: float = 0.3,
        query_timeout: float = 0.45,
        prepared: bool = True,
        name: str = "metagate api",
    ) -> Self:
        """`size` connections, all opened now and kept. Times in seconds. `prepared`: see Pool.open."""
        return cls(
            await NamedQueryPool.open(
                dsn,
                size=size,
                acquire_timeout=acquire_timeout,
                query_timeout=query_timeout,
                prepared=prepared,
                name=name,
            )
        )

    async def close(self) -> None:
        await self._pool.close()

    # ── the hot path ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def bootstrap(self, asks: Sequence[BootstrapQuery]) -> list[BootstrapResult]:
        """One answer per ask, in order. A retry after an error must come with fresh ids."""
        results = await self._bootstrap(asks)
        blind = [at for at, answer in enumerate(results) if _unseen(answer, asks[at])]
        if blind:
            # The winner of a race for a key booted with a packet published after our snapshot; by now it can be seen.
            again = await self._bootstrap([asks[at] for at in blind])
            for at, answer in zip(blind, again, strict=True):
                results[at] = answer
        return results

    async def _bootstrap(self, asks: Sequence[BootstrapQuery]) -> list[BootstrapResult]:
        rows = await self._pool.fetch(
            "read.bootstrap",
            *_speaking(asks),
            [ask.component_key for ask in asks],
            [str(ask.startup_id) for ask in asks],
            [str(ask.packet_id) for ask in asks],
            [ask.idempotency_key for ask in asks],
            [ask.expected_digest for ask in asks],
            [ask.pod.uid if ask.pod else None for ask in asks],
            [ask.pod.name if ask.pod else None for ask in asks],
            [ask.pod.node if ask.pod else None for ask in asks],
            ["t" if ask.mirror else "f" for ask in asks],
        )
        return [BootstrapResult(BootstrapOutcome(row[1]), *row[2:]) for row in rows]

    async def report(self, asks: Sequence[ReportQuery]) -> list[ReportResult]:
        """One answer per ask, in order. CONTENDED only when somebody held the row for longer than a moment."""
        results = await self._report(asks)
        for pause in CONTENDED_PAUSES:
            contended = [at for at, answer in enumerate(results) if answer.outcome is ReportOutcome.CONTENDED]
            if not contended:
                break
            await asyncio.sleep(pause)
            again = await self._report([asks[at] for at in contended])
            for at, answer in zip(contended, again, strict=True):
                results[at] = answer
        return results

    async def _report(self, asks: Sequence[ReportQuery]) -> list[ReportResult]:
        rows = await self._pool.fetch(
            "read.report",
            *_speaking(asks),
            [str(ask.startup_id) for ask in asks],
            [ask.status for ask in asks],
            [ask.payload for ask in asks],
            [ask.pod.uid if ask.pod else None for ask in asks],
            ["t" if ask.mirror else "f" for ask in asks],
        )
        return [ReportResult(ReportOutcome(row[1]), *row[2:]) for row in rows]

    # ── credentials ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def resolve(self, credentials: Sequence[CredentialRow]) -> list[KnownPrincipal | None]:
        """The principal of each credential; None when it belongs to none (any more). Suspension is a field."""
        rows = await self._pool.fetch(
            "read.resolve",
            [credential.kind for credential in credentials],
            [credential.issuer for credential in credentials],
            [credential.subject for credential in credentials],
            [credential.kid for credential in credentials],
        )
        by_number = {row["n"]: decoding.identity(row) for row in rows}
        return [by_number.get(n) for n in range(1, len(credentials) + 1)]

    async def credentials(self, since: int = 0) -> CredentialChanges:
        """What changed after the mark `since`; everything when it is 0, or newer than this database is."""
        rows = await self._changed(since)
        if rows[0]["newest"] < since:  # another database, or one restored from a backup
            self._behind, since = True, 0
            rows = await self._changed(since)
        return credential_changes(rows, full=since == 0)

    async def _changed(self, since: int) -> list[Record]:
        """Patient only when there may be much: no request waits for this, but each look holds a connection."""
        apart, self._behind = self._behind, True
        if apart:
            rows = await self._pool.fetch_apart("read.credentials", since, seconds=LOADING_SECONDS)
        else:
            rows = await self._pool.fetch("read.credentials", since)
        self._behind = False
        return rows

    # ── the other reads ──────────────────────────────────────────────────────────────────────────────────────────────

    async def packet(self, ask: PacketQuery) -> PacketResult:
        """The packet as of now for the owner of a startup (D-47); nothing is written."""
        rows = await self._pool.fetch(
            "read.packet",
            ask.tenant,
            ask.principal_key,
            ask.credential.kind,
            ask.credential.issuer,
            ask.credential.subject,
            ask.credential.kid,
            ask.startup_id,
            ask.expected_digest,
            ask.pod.uid if ask.pod else None,
        )
        return decoding.packet(rows[0])

    async def startup(self, tenant: UUID, startup_id: UUID) -> StartupRow | None:
        rows = await self._pool.fetch("read.startup", tenant, startup_id)
        return decoding.startup(rows[0]) if rows else None

    async def startups(
        self,
        tenant: UUID | None,
        *,
        status: str | None = None,
        component_key: str | None = None,
        principal_key: str | None = None,
        after: Cursor | None = None,
        limit: int = 100,
        span: int | None = None,
    ) -> StartupPage:
        """Newest first. `status`: OPEN, READY, FAILED or overdue. `tenant` None: every tenant (D-51).

        A filtered page looks at `span` (None: `SPAN`) sessions at most: it may hold fewer than `limit`, or none, and
        have a next.
        """
        filters = (status, component_key, principal_key)
        seen_tenant, seen_startup = (UUID(after[0]), UUID(after[1])) if after else (None, None)
        bounds = (seen_startup, limit + 1, SPAN if span is None else span)
        if tenant is None:
            rows = await self._pool.fetch("read.startups_everywhere", *filters, seen_tenant, *bounds)
        else:
            rows = await self._pool.fetch("read.startups", tenant, *filters, *bounds)
        return decoding.startup_page(rows, limit)

    async def summary(self, tenant: UUID, *, principal_key: str | None = None, span: int = SPAN) -> StartupCounts:
        """The newest `span` sessions of a tenant, or a principal's among them, by state (INV-095)."""
        return StartupCounts(*(await self._pool.fetch("read.summary", tenant, principal_key, span))[0])

    async def interview(self, tenant: UUID, *, span: int = SPAN) -> InterviewCounts:
        """What is served in a tenant and how its sessions stand, in one statement (INV-095)."""
        return InterviewCounts(*(await self._pool.fetch("read.interview", tenant, span))[0])

    async def listing(
        self, kind: ListedKind, tenant: UUID | None, *, after: Cursor | None = None, limit: int = 100
    ) -> ItemPage:
        """By name. `tenant` None: every tenant, by tenant and name (D-51)."""
        seen_tenant, seen_name = (UUID(after[0]), after[1]) if after else (None, None)
        if tenant is None:
            rows = await self._pool.fetch("read.items_everywhere", kind, seen_tenant, seen_name, limit + 1)
        else:
            rows = await self._pool.fetch("read.items", tenant, kind, seen_name, limit + 1)
        items = tuple(decoding.item(row) for row in rows[:limit])
        more = len(rows) > limit
        return ItemPage(items, (str(items[-1].tenant), items[-1].name) if more else None)

    async def item(self, kind: ListedKind, tenant: UUID, name: str) -> Item | None:
        rows = await self._pool.fetch("read.item", tenant, kind, name)
        return decoding.item(rows[0]) if rows else None

    async def policy_profile(self, tenant: UUID, name: str) -> PolicyProfile | None:
        rows = await self._pool.fetch("read.policy_profile", tenant, name)
        return replace(PolicyProfile(**rows[0]), body=json.loads(rows[0]["body"])) if rows else None

    async def topology(self, tenant: UUID, *, after: str | None = None, limit: int = TOPOLOGY_PRINCIPALS) -> Topology:
        """At most `limit` principals, by name, and the services that they use (D-49)."""
        return decoding.topology((await self._pool.fetch("read.topology", tenant, after, limit))[0])

    async def state(self) -> State:
        return decoding.state((await self._pool.fetch("read.state"))[0])


def _speaking(asks: Sequence[BootstrapQuery] | Sequence[ReportQuery]) -> tuple[list[str | None], ...]:
    """Who asks, as the columns that both functions begin with; UUIDs as text, see read.sql."""
    return (
        [str(ask.tenant) for ask in asks],
        [ask.principal_key for ask in asks],
        [ask.credential.kind for ask in asks],
        [ask.credential.issuer for ask in asks],
        [ask.credential.subject for ask in asks],
        [ask.credential.kid for ask in asks],
    )


def _unseen(answer: BootstrapResult, ask: BootstrapQuery) -> bool:
    return answer.digest is not None and answer.body is None and answer.digest != ask.expected_digest
