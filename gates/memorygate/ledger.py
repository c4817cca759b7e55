"""What the gate asks its database: one method, one statement. Role `memorygate_writer`, which touches no table.

Every expected outcome of an append is a value (`Outcome`), never an exception: many receipts share one statement and
one commit, and one of them must never spoil the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

from legivellum.base.canonical_json import digest
from legivellum.receipts.chain import microseconds
from legivellum.receipts.receipt import Receipt, form_of
from legivellum.receipts.rights import Right
from memorygate.console_queries import ConsoleQueries

Item = TypeVar("Item")

Position = tuple[datetime, str]
"""Where a page ended: ledger clock, then id."""

PAGE_BYTES = 1024 * 1024
"""Where a page ends, whatever `limit` says: sum of its receipts' bodies (D-66)."""

START: Position = (datetime.min.replace(tzinfo=UTC), "")


class Outcome(StrEnum):
    STORED = "STORED"
    REPLAYED = "REPLAYED"
    """The same receipt again, or the same work under the same dedupe_key: the first answer."""
    RECEIPT_CONFLICT = "RECEIPT_CONFLICT"
    DEDUPE_CONFLICT = "DEDUPE_CONFLICT"
    MAY_NOT_OPEN = "MAY_NOT_OPEN"
    NOT_FOR_OTHERS = "NOT_FOR_OTHERS"
    NOT_CUSTODIAN = "NOT_CUSTODIAN"
    NOT_ITS_PRINCIPAL = "NOT_ITS_PRINCIPAL"
    OBLIGATION_NOT_ACCEPTED = "OBLIGATION_NOT_ACCEPTED"
    OBLIGATION_ALREADY_TERMINATED = "OBLIGATION_ALREADY_TERMINATED"
    TASK_MISMATCH = "TASK_MISMATCH"


class Entry(NamedTuple):
    """One receipt as `memorygate.append` takes it; the order is that of its parameters. What it does not have is ''."""

    tenant: str
    receipt_id: str
    kind: str
    phase: str
    right: str
    emitter: str
    task_id: str
    parent_task_id: str
    obligation_id: str
    principal_ai: str
    recipient_ai: str
    status: str
    caused_by: str
    dedupe_key: str
    dedupe_digest: bytes
    due_at: str
    body: str
    digest: bytes
    signature: str


class Appended(NamedTuple):
    outcome: Outcome
    receipt_id: str
    stored_at: datetime
    root_task_id: str
    position: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A receipt as the ledger keeps it. `body` is its canonical form."""

    receipt_id: str
    stored_at: datetime
    root_task_id: str
    position: int
    digest: bytes
    chain: bytes
    signature: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Open:
    """An open obligation, and the receipt that put it into its custodian's inbox."""

    obligation_id: str
    kind: str
    task_id: str
    principal_ai: str
    opened_at: datetime
    opened_by: str
    moved_by: str
    custody_at: datetime
    due_at: datetime | None
    body: str


@dataclass(frozen=True, slots=True)
class Summary:
    receipts: int
    obligations: int
    succeeded: int
    failed: int
    canceled: int
    startups: int
    startups_ready: int
    startups_failed: int
    oldest_open: datetime | None
    overdue: int
    latest: datetime | None

    @property
    def open_obligations(self) -> int:
        return self.obligations - self.succeeded - self.failed - self.canceled

    @property
    def open_startups(self) -> int:
        return self.startups - self.startups_ready - self.startups_failed


class LedgerPage(NamedTuple, Generic[Item]):
    """As many items as fit, and whether there are more behind them."""

    items: list[Item]
    more: bool


class ChainLink(NamedTuple):
    """A receipt of a chain without its body, whose size is `bytes`."""

    receipt_id: str
    caused_by: str | None
    stored_at: datetime
    bytes: int


class Custody(NamedTuple):
    """What an obligation is now. All but its name is None where nobody accepted it."""

    state: str | None
    custodian: str | None
    principal_ai: str | None
    task_id: str | None
    root_task_id: str | None
    opened_by: str | None
    closed_by: str | None


class Verification(NamedTuple):
    """What the last `memorygate verify` found. `place` and `reason` are told to the tenant whose receipt is bad."""

    started_at: datetime
    finished_at: datetime
    held: bool
    place: str | None
    reason: str | None


class Mark(NamedTuple):
    """A place in the stream: the transaction that wrote a receipt, and the receipt's time within it."""

    written_by: int
    microseconds: int


def entry(receipt: Receipt, right: Right) -> Entry:
    fields = receipt.fields
    key = fields["dedupe_key"]
    return Entry(
        fields["tenant_id"],
        fields["receipt_id"],
        fields["kind"],
        fields["phase"],
        right.value,
        fields["emitter"],
        fields["task_id"],
        fields["parent_task_id"] or "",
        fields["obligation_id"],
        fields["principal_ai"],
        fields["recipient_ai"],
        fields["status"],
        fields["caused_by_receipt_id"] or "",
        key or "",
        # The same work sent again under its key comes with a new id, and from another clock.
        b"" if key is None else digest(form_of(fields, without={"receipt_id", "created_at"})),
        _due(fields["metadata"]) if fields["phase"] == "accepted" else "",
        receipt.form.decode(),
        digest(receipt.form),
        "" if receipt.signature is None else f"{receipt.signature.key_id}:{receipt.signature.value}",
    )


def _due(metadata: dict[str, Any]) -> str:
    """`metadata.deadline_at`, where somebody gave one: counted when it has passed, and nothing else (INV-060)."""
    text = metadata.get("deadline_at")
    if not isinstance(text, str):
        return ""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return "" if moment.tzinfo is None else moment.isoformat()


_PARAMETERS = ["$1::text[]::uuid[]", *(f"${place}" for place in range(2, len(Entry._fields) + 1))]
_APPEND = f"SELECT * FROM memorygate.append({', '.join(_PARAMETERS)})"  # noqa: S608 - numbers of ours
_INTERVIEW = (
    "SELECT now() AS as_of, s.*, v.* "
    "FROM memorygate.summary($1) AS s LEFT JOIN memorygate.last_verification($1) AS v ON true"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MemoryGateDatabase(ConsoleQueries):
    application_name = "memorygate"

    async def append(self, entries: Sequence[Entry]) -> list[Appended]:
        """One answer for each, in their order. What was refused carries no meaning but its outcome."""
        rows = await self._pool.fetch(_APPEND, *map(list, zip(*entries, strict=True)))
        answers: list[Appended | None] = [None] * len(entries)
        for ordinal, outcome, receipt_id, stored_at, root, position in rows:
            answers[ordinal - 1] = Appended(Outcome(outcome), receipt_id, stored_at, root, position)
        assert all(answers)
        return [answer for answer in answers if answer is not None]

    async def stored_digests(self, receipts: Sequence[tuple[UUID, str]]) -> list[bytes | None]:
        """The digest of each receipt that is stored, by (tenant, receipt_id), in their order."""
        digests: list[bytes | None] = [None] * len(receipts)
        tenants, ids = zip(*receipts, strict=True)
        query = "SELECT * FROM memorygate.stored_digests($1, $2)"
        for ordinal, stored_digest in await self._pool.fetch(query, list(tenants), list(ids)):
            digests[ordinal - 1] = stored_digest
        return digests

    async def receipt(self, tenant: UUID, receipt_id: str) -> Stored | None:
        row = await self._pool.fetchrow("SELECT * FROM memorygate.receipt($1, $2)", tenant, receipt_id)
        return None if row is None else Stored(*row)

    async def task(self, tenant: UUID, task_id: str, *, after: Position = START, most: int = 100) -> LedgerPage[Stored]:
        query = "SELECT * FROM memorygate.task_page($1, $2, $3, $4, $5, $6)"
        return _page(Stored, await self._pool.fetch(query, tenant, task_id, *after, most, PAGE_BYTES))

    async def root(
        self, tenant: UUID, task_id: str, *, after: datetime = START[0], most: int = 100
    ) -> LedgerPage[Stored]:
        """The receipts of the whole tree in which the task hangs, in the order of its chain."""
        query = "SELECT * FROM memorygate.tree_page($1, $2, $3, $4, $5)"
        return _page(Stored, await self._pool.fetch(query, tenant, task_id, after, most, PAGE_BYTES))

    async def chain_links(self, tenant: UUID, receipt_id: str, *, most: int) -> list[ChainLink]:
        """Where it came from and what it caused, by ledger time; empty when there is no such receipt."""
        query = "SELECT * FROM memorygate.chain_links($1, $2, $3)"
        return [ChainLink(*row) for row in await self._pool.fetch(query, tenant, receipt_id, most)]

    async def receipts(self, tenant: UUID, receipt_ids: Sequence[str]) -> list[Stored]:
        """These, by ledger time."""
        rows = await self._pool.fetch("SELECT * FROM memorygate.receipts($1, $2)", tenant, list(receipt_ids))
        return [Stored(*row) for row in rows]

    async def custody(self, tenant: UUID, obligation_ids: Sequence[str]) -> list[Custody]:
        """One for each, in their order."""
        query = "SELECT * FROM memorygate.custody($1, $2) ORDER BY ordinal"
        rows = await self._pool.fetch(query, [tenant] * len(obligation_ids), list(obligation_ids))
        return [Custody(*list(row)[1:]) for row in rows]

    async def last_verification(self, tenant: UUID) -> Verification | None:
        row = await self._pool.fetchrow("SELECT * FROM memorygate.last_verification($1)", tenant)
        return None if row is None else Verification(*row)

    async def inbox(
        self,
        tenant: UUID,
        custodian: str,
        *,
        kind: str = "obligation",
        task_id: str | None = None,
        principal_ai: str | None = None,
        after: Position = START,
        most: int = 100,
    ) -> LedgerPage[Open]:
        rows = await self._pool.fetch(
            "SELECT * FROM memorygate.inbox_page($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            tenant, custodian, kind, task_id, principal_ai, *after, most, PAGE_BYTES,
        )  # fmt: skip
        return _page(Open, rows)

    async def settled(self) -> Mark:
        """Before this, nothing can appear any more."""
        return Mark(int(await self._pool.fetchval("SELECT memorygate.settled()::text")), 0)

    async def stream(
        self, tenant: UUID, after: Mark, *, most: int, since: datetime | None = None
    ) -> LedgerPage[tuple[Mark, Stored]]:
        """What was stored after a mark and can no longer be overtaken, in the order of the stream.

        `since`: without what was stored before that time.
        """
        rows = await self._pool.fetch(
            "SELECT written_by::text, receipt_id, stored_at, root_task_id, position, digest, chain, signature, body, "
            "more FROM memorygate.stream_page($1, $2::text::xid8, $3, $4, $5, $6)",
            tenant, str(after.written_by), _moment(after.microseconds), since, most, PAGE_BYTES,
        )  # fmt: skip
        marked = [(Mark(int(row[0]), microseconds(row[2])), Stored(*list(row)[1:-1])) for row in rows]
        return LedgerPage(marked, bool(rows) and rows[0][-1])

    async def stream_start(self, tenant: UUID, since: datetime) -> Mark:
        """A mark before which nothing was stored at that time or later."""
        row = await self._pool.fetchval("SELECT memorygate.stream_start($1, $2)::text", tenant, since)
        return Mark(int(row), 0)

    async def summary(self, tenant: UUID) -> Summary:
        (row,) = await self._pool.fetch("SELECT * FROM memorygate.summary($1)", tenant)
        return Summary(*row)

    async def interview(self, tenant: UUID) -> tuple[datetime, Summary, Verification | None]:
        """The database's time, the summary and the last verification of a tenant, in one statement."""
        (row,) = await self._pool.fetch(_INTERVIEW, tenant)
        summary = Summary(**{name: row[name] for name in Summary.__slots__})
        verified = None if row["held"] is None else Verification(**{name: row[name] for name in Verification._fields})
        return row["as_of"], summary, verified

    async def schema_version(self) -> int:
        return int(await self._pool.fetchval("SELECT schema_version FROM memorygate.state()") or 0)


def _page(made: Callable[..., Item], rows: Sequence[Any]) -> LedgerPage[Item]:
    return LedgerPage([made(*list(row)[:-1]) for row in rows], bool(rows) and rows[0][-1])


def _moment(microseconds_: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds_)
