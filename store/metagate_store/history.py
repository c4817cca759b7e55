"""What was: who changed what, what was declared at a revision, and what made the packet of a session.

Nothing of the past changes any more, so an answer may be put together from more than one statement.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from metagate_store.pool import NamedQueryPool

EXACT = 2**53 - 1
SPECS = 1_048_576
"""Bytes of specs that one page of changes compares."""


@dataclass(frozen=True, slots=True)
class Boot:
    """What a session was told, or what a principal would be told now: then component, session and opening are None.

    `digest` and `body` are None while the binding refers to something missing; `body` is also None when the packet is
    not stored any more, which never happens by itself.
    """

    principal_key: str
    component_key: str | None
    startup_id: UUID | None
    opened_at: datetime | None
    binding: str | None
    revision: int
    compiled_at: datetime
    digest: str | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Declaration:
    """One valid generation of a declared object; `revision` and `changed_at` are when it began to be served like this.

    `packet_digest` is the packet that a Binding gave since.
    """

    kind: str
    namespace: str
    name: str
    uid: UUID
    generation: int
    created_at: datetime
    manager: str | None
    spec: Any
    revision: int
    changed_at: datetime
    packet_digest: str | None


@dataclass(frozen=True, slots=True)
class DeclarationPage:
    """`next` is the kind and name to go on from, None on the last page. A page may be short, or empty, and have one."""

    items: tuple[Declaration, ...]
    next: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class ChangeEvent:
    """One object that a publish changed (EXT-04)."""

    seq: int
    revision: int
    changed_at: datetime
    kind: str
    tenant: UUID | None
    namespace: str
    name: str
    uid: UUID
    generation: int
    served_generation: int | None
    manager: str | None
    before_digest: str | None
    after_digest: str | None
    principal_key: str | None
    packet_digest: str | None


@dataclass(frozen=True, slots=True)
class ChangeEventPage:
    """`next` is the revision and seq to go on from."""

    items: tuple[ChangeEvent, ...]
    next: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class SpecChange:
    """What was declared before a change and after it; None: nothing. `complete` is False when one of them is not
    remembered, or was too long for the answer.
    """

    before: Any
    after: Any
    complete: bool


class HistoryStore:
    """Safe for concurrent use; every method may raise StoreUnavailable or SchemaMismatch."""

    def __init__(self, pool: NamedQueryPool) -> None:
        self._pool = pool

    async def boot_of(self, tenant: UUID, startup_id: UUID) -> Boot | None:
        """What this session was told."""
        rows = await self._pool.fetch("read.booted", tenant, startup_id)
        return Boot(**rows[0]) if rows else None

    async def current_boot(self, tenant: UUID, principal_key: str) -> Boot | None:
        """What this principal would be told now; None without a binding."""
        rows = await self._pool.fetch("read.standing", tenant, principal_key)
        return Boot(**rows[0]) if rows else None

    async def layers(self, tenant: UUID, principal_key: str, revision: int) -> Sequence[Declaration]:
        """Binding, Profile and Manifest of the principal's packet at this revision; fewer when one is not known."""
        rows = await self._pool.fetch("read.layers", tenant, principal_key, revision)
        return [declaration(row) for row in rows]

    async def change_events(
        self,
        tenant: UUID | None,
        *,
        kind: str | None = None,
        name: str | None = None,
        before: tuple[int, int] | None = None,
        limit: int = 100,
    ) -> ChangeEventPage:
        """Newest first. `tenant` None: every tenant's (D-51), and then no kind or name."""
        seen = before or (None, None)
        if tenant is None:
            rows = await self._pool.fetch("read.history_everywhere", *seen, limit + 1)
        else:
            rows = await self._pool.fetch("read.history", tenant, kind, name, *seen, limit + 1)
        items = tuple(ChangeEvent(**row) for row in rows[:limit])
        return ChangeEventPage(items, (items[-1].revision, items[-1].seq) if len(rows) > limit else None)

    async def spec_changes(
        self, tenant: UUID | None, events: Sequence[ChangeEvent], *, budget: int = SPECS
    ) -> dict[int, SpecChange]:
        """By `seq`: the specs around each of these changes, of the newest ones until `budget` bytes are spent."""
        asked = (tenant, tenant is None, [event.seq for event in events], budget)
        rows = await self._pool.fetch("console.changed_specs", *asked)
        return {
            row["seq"]: SpecChange(_spec(row["before_spec"]), _spec(row["after_spec"]), row["complete"]) for row in rows
        }

    async def declared_at(
        self, tenant: UUID, revision: int, *, after: tuple[str, str] | None = None, limit: int = 100
    ) -> DeclarationPage:
        """What of a tenant was declared and valid at this revision, by kind and name."""
        rows = await self._pool.fetch("read.declared_at", tenant, revision, *(after or (None, None)), limit + 1)
        last = rows[:limit][-1:] if len(rows) > limit else []
        items = tuple(declaration(row) for row in rows[:limit] if row["uid"] is not None)
        return DeclarationPage(items, (last[0]["kind"], last[0]["name"]) if last else None)


def declaration(row: Any) -> Declaration:
    return Declaration(**{**row, "spec": spec_of(row["spec"])})


def spec_of(text: str) -> Any:
    """The spec as it was declared: jsonb writes 1e300 with all its zeros, and what has no exact integer was a float."""
    return json.loads(text, parse_int=_number)


def _spec(text: str | None) -> Any:
    return None if text is None else spec_of(text)


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= 17 and abs(int(digits)) <= EXACT else float(digits)
