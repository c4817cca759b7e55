"""Does the ledger still say what it said? Walks every chain, and compares every derived table with what it derives
from.

The first receipt that is wrong is named; whoever can rewrite a whole chain with its head rewrites history undetected by
this, which is what signatures and exported archives are for (docs/memorygate/integrity.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from legivellum.receipts.chain import ChainedReceipt, ChainVerdict, ChainVerifier, Defect

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
async def verify(dsn: str, *, rebuild: bool = False) -> ChainVerdict:
    """Everything, in one snapshot; what was found is kept in the database as the last verification.

    `rebuild` derives the projections anew (as the owner) when the receipts hold.
    """
    connection = await connect(dsn, server_settings={"application_name": "memorygate verify"})
    started_at = datetime.now(UTC)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=not rebuild):
            if rebuild:
                # No append between what is read and what is written; readers go on.
                await connection.execute("LOCK TABLE memorygate.receipt IN SHARE ROW EXCLUSIVE MODE")
            verdict = await verify_receipts(connection)
            if verdict.bad is None and rebuild:
                await connection.execute("SELECT memorygate.rebuild()")
            elif verdict.bad is None:
                verdict.bad = await _projection_defect(connection)
        await _record(connection, started_at, verdict, rebuilt=rebuild and verdict.bad is None)
        return verdict
    finally:
        await connection.close(timeout=5)


async def verify_receipts(connection: asyncpg.Connection) -> ChainVerdict:
    """Every chain, as far as the first receipt that is wrong, inside a transaction of the caller's."""
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


async def _record(
    connection: asyncpg.Connection, started_at: datetime, verdict: ChainVerdict, *, rebuilt: bool
) -> None:
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
