"""Does the ledger still say what it said? Walks every chain, and compares every derived table with what it derives
from.

A receipt is wrong when its body does not hash to its digest, when its columns say something else than its body, when it
does not follow its predecessor in the chain of its root task, or when a predecessor is missing. The first one is named;
whoever can rewrite a whole chain with its head rewrites history undetected by this, which is what signatures and
exported archives are for (docs/memorygate/integrity.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
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
class Link:
    """One receipt as verified: from the database, or from an archive."""

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
class Bad:
    """The first thing that is wrong."""

    tenant: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"tenant {self.tenant}, {self.where}: {self.reason}"


@dataclass(slots=True)
class Verdict:
    receipts: int = 0
    roots: int = 0
    bad: Bad | None = None


def link(previous: bytes, digest: bytes, receipt_id: str, position: int, stored_at: datetime) -> bytes:
    """`memorygate.link` of the database, in Python: an archive is checked without one."""
    tail = f"{receipt_id}/{position}/{microseconds(stored_at)}".encode()
    return hashlib.sha256(previous + digest + tail).digest()


def seed(tenant: str, root_task_id: str) -> bytes:
    return hashlib.sha256(f"{tenant}/{root_task_id}".encode()).digest()


class Walk:
    """Follows the chains. Fed with links ordered by tenant, root and position.

    `whole`: every chain begins at its first receipt; an archive of one month begins anywhere.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._root: tuple[str, str] | None = None
        self._position = 0
        self._chain = b""
        self.verdict = Verdict()

    def step(self, one: Link) -> Bad | None:
        """What is wrong with this link, or None."""
        root = (one.tenant, one.root_task_id)
        fresh = root != self._root
        if fresh:
            self.verdict.roots += 1
        self.verdict.receipts += 1
        reason = _alone(one) or self._in_chain(one, fresh=fresh)
        self._root, self._position, self._chain = root, one.position, one.chain
        if reason is None:
            return None
        self.verdict.bad = Bad(one.tenant, f"receipt {one.receipt_id}", reason)
        return self.verdict.bad

    def _in_chain(self, one: Link, *, fresh: bool) -> str | None:
        if fresh and one.position == 1 and one.previous != seed(one.tenant, one.root_task_id):
            return "it does not begin its chain"
        if self._whole and one.position != (1 if fresh else self._position + 1):
            return "a receipt before it is missing"
        if not fresh and one.position == self._position + 1 and one.previous != self._chain:
            return "it does not follow the receipt before it"
        if link(one.previous, one.digest, one.receipt_id, one.position, one.stored_at) != one.chain:
            return "its place in the chain was altered"
        return None


def _alone(one: Link) -> str | None:
    """What a receipt shows by itself."""
    if hashlib.sha256(one.body.encode()).digest() != one.digest:
        return "its body was altered"
    try:
        body = json.loads(one.body)
        if canonical(body, round_trip=True) != one.body.encode():
            return "its body is not in canonical form"
    except (ValueError, Uncanonical):
        return "its body is not JSON"
    for column, field in _COLUMNS:
        if column in one.columns and one.columns[column] != body.get(field):
            return f"its column {column} says something else than its body"
    return None


_RECEIPTS = """
SELECT tenant::text, root_task_id, position, receipt_id, stored_at, body, digest, previous, chain,
       kind, phase, task_id, obligation_id, caused_by, signature
FROM memorygate.receipt ORDER BY tenant::text COLLATE "C", root_task_id, position
"""


def row_link(row: asyncpg.Record) -> Link:
    columns = {
        name: row[name] for name in ("tenant", "receipt_id", "kind", "phase", "task_id", "obligation_id", "caused_by")
    }
    return Link(
        row["tenant"], row["root_task_id"], row["position"], row["receipt_id"], row["stored_at"],
        row["body"], row["digest"], row["previous"], row["chain"], row["signature"], columns,
    )  # fmt: skip


async def links(connection: asyncpg.Connection, query: str = _RECEIPTS, *args: Any) -> AsyncIterator[Link]:
    """Inside a transaction of the caller's: one snapshot for everything."""
    async for row in connection.cursor(query, *args, prefetch=500):
        yield row_link(row)


@translated
async def verify(dsn: str, *, rebuild: bool = False) -> Verdict:
    """Everything, in one snapshot. `rebuild` derives the projections anew (as the owner) when the receipts hold."""
    connection = await asyncpg.connect(dsn, server_settings={"application_name": "memorygate verify"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=not rebuild):
            if rebuild:
                # No append between what is read and what is written; readers go on.
                await connection.execute("LOCK TABLE memorygate.receipt IN SHARE ROW EXCLUSIVE MODE")
            verdict = await _receipts(connection)
            if verdict.bad is None and rebuild:
                await connection.execute("SELECT memorygate.rebuild()")
            elif verdict.bad is None:
                verdict.bad = await _projections(connection)
        return verdict
    finally:
        await connection.close(timeout=5)


async def _receipts(connection: asyncpg.Connection) -> Verdict:
    walk = Walk()
    async for one in links(connection):
        if walk.step(one) is not None:
            break
    return walk.verdict


async def _projections(connection: asyncpg.Connection) -> Bad | None:
    """The first row of a derived table that is not what the receipts say; both directions."""
    rows: Iterable[asyncpg.Record] = await connection.fetch("SELECT * FROM memorygate.drifted(1)")
    for row in rows:
        return Bad(
            str(row["tenant"]),
            f"{row['projection']} {row['name']}",
            "is not what the receipts say; --rebuild derives it anew",
        )
    return None
