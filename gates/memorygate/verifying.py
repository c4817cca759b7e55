"""Does the ledger still say what it said? Walks every chain, and compares every derived table with what it derives
from.

A receipt is wrong when its body does not hash to its digest, when its columns say something else than its body, when it
does not follow its predecessor in the chain of its root task, or when a predecessor is missing. The first one is named;
whoever can rewrite a whole chain with its head rewrites history undetected by this, which is what signatures and
exported archives are for (docs/memorygate/integrity.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg

from legivellum.base.canonical_json import Uncanonical, canonical
from legivellum.postgres.driver import translated
from memorygate.ledger import microseconds

_COLUMNS = (
    ("receipt_id", "receipt_id"),
    ("kind", "kind"),
    ("phase", "phase"),
    ("task_id", "task_id"),
    ("obligation_id", "obligation_id"),
    ("caused_by", "caused_by_receipt_id"),
    ("tenant", "tenant_id"),
)


@dataclass(frozen=True, slots=True)
class ChainedReceipt:
    """One receipt with its place in its chain: from the database, or from an archive."""

    tenant: str
    root_task_id: str
    position: int
    receipt_id: str
    stored_at: datetime
    body: str
    digest: bytes
    previous: bytes
    chain: bytes
    signature: str | None
    columns: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Defect:
    """The first thing that is wrong."""

    tenant: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"tenant {self.tenant}, {self.place}: {self.reason}"


@dataclass(slots=True)
class Verdict:
    receipts: int = 0
    roots: int = 0
    bad: Defect | None = None


def link(previous: bytes, digest: bytes, receipt_id: str, position: int, stored_at: datetime) -> bytes:
    """`memorygate.link` of the database, in Python: an archive is checked without one."""
    tail = f"{receipt_id}/{position}/{microseconds(stored_at)}".encode()
    return hashlib.sha256(previous + digest + tail).digest()


def chain_seed(tenant: str, root_task_id: str) -> bytes:
    """What the first receipt of a chain follows."""
    return hashlib.sha256(f"{tenant}/{root_task_id}".encode()).digest()


class ChainVerifier:
    """Follows the chains. Fed with receipts ordered by tenant, root and position.

    `whole`: every chain begins at its first receipt; an archive of one month begins anywhere.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._root: tuple[str, str] | None = None
        self._position = 0
        self._chain = b""
        self.verdict = Verdict()

    def check(self, receipt: ChainedReceipt) -> Defect | None:
        """What is wrong with this receipt, or None."""
        root = (receipt.tenant, receipt.root_task_id)
        is_first = root != self._root
        if is_first:
            self.verdict.roots += 1
        self.verdict.receipts += 1
        reason = _own_defect(receipt) or self._defect_in_chain(receipt, is_first=is_first)
        self._root, self._position, self._chain = root, receipt.position, receipt.chain
        if reason is None:
            return None
        self.verdict.bad = Defect(receipt.tenant, f"receipt {receipt.receipt_id}", reason)
        return self.verdict.bad

    def _defect_in_chain(self, receipt: ChainedReceipt, *, is_first: bool) -> str | None:
        if is_first and receipt.position == 1 and receipt.previous != chain_seed(receipt.tenant, receipt.root_task_id):
            return "it does not begin its chain"
        if self._whole and receipt.position != (1 if is_first else self._position + 1):
            return "a receipt before it is missing"
        if not is_first and receipt.position == self._position + 1 and receipt.previous != self._chain:
            return "it does not follow the receipt before it"
        if (
            link(receipt.previous, receipt.digest, receipt.receipt_id, receipt.position, receipt.stored_at)
            != receipt.chain
        ):
            return "its place in the chain was altered"
        return None


def _own_defect(receipt: ChainedReceipt) -> str | None:
    """What a receipt shows by itself."""
    if hashlib.sha256(receipt.body.encode()).digest() != receipt.digest:
        return "its body was altered"
    try:
        body = json.loads(receipt.body)
        if canonical(body, round_trip=True) != receipt.body.encode():
            return "its body is not in canonical form"
    except (ValueError, Uncanonical):
        return "its body is not JSON"
    for column, field in _COLUMNS:
        if column in receipt.columns and receipt.columns[column] != body.get(field):
            return f"its column {column} says something else than its body"
    return None


_RECEIPTS = """
SELECT tenant::text, root_task_id, position, receipt_id, stored_at, body, digest, previous, chain,
       kind, phase, task_id, obligation_id, caused_by, signature
FROM memorygate.receipt ORDER BY tenant::text COLLATE "C", root_task_id, position
"""


def receipt_of(row: asyncpg.Record) -> ChainedReceipt:
    columns = {
        name: row[name] for name in ("tenant", "receipt_id", "kind", "phase", "task_id", "obligation_id", "caused_by")
    }
    return ChainedReceipt(
        row["tenant"], row["root_task_id"], row["position"], row["receipt_id"], row["stored_at"],
        row["body"], row["digest"], row["previous"], row["chain"], row["signature"], columns,
    )  # fmt: skip


async def read_receipts(
    connection: asyncpg.Connection, query: str = _RECEIPTS, *args: Any
) -> AsyncIterator[ChainedReceipt]:
    """Inside a transaction of the caller's: one snapshot for everything."""
    async for row in connection.cursor(query, *args, prefetch=500):
        yield receipt_of(row)


@translated
async def verify(dsn: str, *, rebuild: bool = False) -> Verdict:
    """Everything, in one snapshot; what was found is kept in the database as the last verification.

    `rebuild` derives the projections anew (as the owner) when the receipts hold.
    """
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "memorygate verify"})
    started_at = datetime.now(UTC)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=not rebuild):
            if rebuild:
                # No append between what is read and what is written; readers go on.
                await connection.execute("LOCK TABLE memorygate.receipt IN SHARE ROW EXCLUSIVE MODE")
            verdict = await _verify_receipts(connection)
            if verdict.bad is None and rebuild:
                await connection.execute("SELECT memorygate.rebuild()")
            elif verdict.bad is None:
                verdict.bad = await _projection_defect(connection)
        await _record(connection, started_at, verdict, rebuilt=rebuild and verdict.bad is None)
        return verdict
    finally:
        await connection.close(timeout=5)


async def _verify_receipts(connection: asyncpg.Connection) -> Verdict:
    verifier = ChainVerifier()
    async for receipt in read_receipts(connection):
        if verifier.check(receipt) is not None:
            break
    return verifier.verdict


async def _projection_defect(connection: asyncpg.Connection) -> Defect | None:
    """The first row of a derived table that is not what the receipts say; both directions."""
    row = await connection.fetchrow("SELECT * FROM memorygate.drifted(1)")
    if row is None:
        return None
    return Defect(
        str(row["tenant"]),
        f"{row['projection']} {row['name']}",
        "is not what the receipts say; --rebuild derives it anew",
    )


async def _record(connection: asyncpg.Connection, started_at: datetime, verdict: Verdict, *, rebuilt: bool) -> None:
    """Keep it for whoever asks the ledger. The auditor's role is read-only but for this one row.

    A standby, a database of an earlier release or a role without the right cannot keep it: what was found is found.
    """
    bad = verdict.bad
    values = (
        started_at, verdict.receipts, verdict.roots, rebuilt,
        bad and bad.tenant, bad and bad.place, bad and bad.reason,
    )  # fmt: skip
    with contextlib.suppress(
        asyncpg.ReadOnlySQLTransactionError, asyncpg.UndefinedFunctionError, asyncpg.InsufficientPrivilegeError
    ):
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute("SELECT memorygate.record_verification($1, $2, $3, $4, $5, $6, $7)", *values)
