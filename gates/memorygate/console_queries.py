"""What the console asks the ledger's database beside what the API asks: lists that go backwards in time.

Each question looks at a bounded number of rows (docs/memorygate/console.md). A page's `after` is where the next one
begins; None: there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from legivellum.postgres.pool import PooledDatabase

Entry = TypeVar("Entry")
Place = TypeVar("Place")

TreePlace = tuple[int, datetime]
"""The transaction that wrote a tree's last receipt, and the receipt's time."""
AdmissionPlace = tuple[datetime, str]

_LAST_TRANSACTION: Final = 2**64 - 1
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_SCANNED_RECEIPTS: Final = 2_000
SCANNED_ADMISSIONS: Final = 1_000
"""Newest decisions that are counted by reason, and most decisions that one page looks at."""
_SCANNED_OF_TREE: Final = 100_000
"""Receipts among which a principal is looked for in one tree, of its root and below it each."""


class BackwardListing(NamedTuple, Generic[Entry, Place]):
    entries: list[Entry]
    after: Place | None


class TreeEnd(NamedTuple):
    """A tree by the last receipt of its chain: how long the chain is, and its head."""

    root_task_id: str
    length: int
    head: bytes
    last_id: str
    last_task_id: str
    last_kind: str
    last_phase: str
    last_at: datetime


class DecisionReceipt(NamedTuple):
    """A decision of InterroGate's. `body` is its receipt in canonical form."""

    receipt_id: str
    stored_at: datetime
    root_task_id: str
    body: str


class ReasonCount(NamedTuple):
    """How often a reason occurs among the newest decisions; the reason of an admitted request is ALLOW."""

    reason: str
    decisions: int
    latest: datetime


class VerificationResult(NamedTuple):
    """What the last `memorygate verify` found in the whole database.

    `place` and `reason` are None where everything held, and where the bad receipt is another tenant's.
    """

    started_at: datetime
    finished_at: datetime
    held: bool
    receipts: int
    roots: int
    rebuilt: bool
    place: str | None
    reason: str | None


class ConsoleQueries(PooledDatabase):
    async def newest_trees(
        self, tenant: UUID, *, principal: str | None, before: TreePlace | None = None, most: int
    ) -> BackwardListing[TreeEnd, TreePlace]:
        """Trees by their last receipt, newest first; with `principal` only those that name it."""
        written, moment = before or (_LAST_TRANSACTION, _LATEST)
        rows = await self._pool.fetch(
            "SELECT root_task_id, length, head, last_id, last_task_id, last_kind, last_phase, last_at, "
            "written_by::text AS written_by FROM memorygate.newest_trees($1, $2, $3::text::xid8, $4, $5, $6)",
            tenant, principal, str(written), moment, most, _SCANNED_RECEIPTS,
        )  # fmt: skip
        trees, end = _divided(rows, "root_task_id")
        after = None if end is None else (int(end["written_by"]), end["last_at"])
        return BackwardListing([TreeEnd(*list(row)[:-1]) for row in trees], after)

    async def tree_names(self, tenant: UUID, task_id: str, principal: str) -> bool:
        """Whether the principal emitted, owns or was given something in the tree in which the task hangs."""
        query = "SELECT memorygate.tree_names($1, $2, $3, $4)"
        return bool(await self._pool.fetchval(query, tenant, task_id, principal, _SCANNED_OF_TREE))

    async def admissions(
        self, tenant: UUID, *, principal: str | None, reason: str | None, before: AdmissionPlace | None, most: int
    ) -> BackwardListing[DecisionReceipt, AdmissionPlace]:
        """Decisions, newest first; with `principal` only of what it asked."""
        rows = await self._pool.fetch(
            "SELECT receipt_id, stored_at, root_task_id, body FROM memorygate.admissions($1, $2, $3, $4, $5, $6, $7)",
            tenant, principal, reason, *(before or (_LATEST, "")), most, SCANNED_ADMISSIONS,
        )  # fmt: skip
        decisions, end = _divided(rows, "body")
        after = None if end is None else (end["stored_at"], end["receipt_id"])
        return BackwardListing([DecisionReceipt(*row) for row in decisions], after)

    async def admission_reasons(self, tenant: UUID, *, principal: str | None) -> list[ReasonCount]:
        query = "SELECT * FROM memorygate.admission_reasons($1, $2, $3)"
        return [ReasonCount(*row) for row in await self._pool.fetch(query, tenant, principal, SCANNED_ADMISSIONS)]

    async def verification(self, tenant: UUID) -> VerificationResult | None:
        row = await self._pool.fetchrow("SELECT * FROM memorygate.verification($1)", tenant)
        return None if row is None else VerificationResult(*row)


def _divided(rows: Sequence[Any], name: str) -> tuple[Sequence[Any], Any]:
    """The entries, and the last row where it has no `name` and says where the next page begins."""
    return (rows[:-1], rows[-1]) if rows and rows[-1][name] is None else (rows, None)
