"""What the relay does to the database: drain the outbox, remove expired sessions, make the next partitions.

Role `metagate_publisher`, a connection of its own; nothing here is on the path of a request, and nothing here waits for
locks: whatever is busy is done the next time (INV-028).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self

import asyncpg
from asyncpg.transaction import Transaction

from legivellum.postgres.driver import translated
from metagate_store.queries import sql
from metagate_store.rows import OutboxRow


@dataclass(frozen=True, slots=True)
class Purged:
    startups: int
    partitions: int
    keys: int


@dataclass(slots=True)
class Batch:
    """Receipts in hand, and what became of them; what is in neither list stays in the outbox."""

    rows: list[OutboxRow]
    delivered: list[int] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    """(seq, code, detail)."""


class Witness:
    """Calls wait for each other; a connection that broke is opened anew by the next one."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    @classmethod
    async def open(cls, dsn: str) -> Self:
        witness = cls(dsn)
        await witness.backlog()
        return witness

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=2)

    async def take(self, limit: int = 100) -> list[OutboxRow]:
        """Due receipts, oldest first; they stay until `delivered`, so a crash repeats them."""
        rows = await self._fetch("witness.take", limit)
        return [OutboxRow(**{**row, "body": json.loads(row["body"])}) for row in rows]

    @asynccontextmanager
    async def batch(self, limit: int = 256, *, share: int = 0, shares: int = 1) -> AsyncIterator[Batch]:
        """Due receipts, oldest first, locked for this block; free again when this relay dies. What the block says of
        them is done when it ends; an exception leaves them as they were.

        `share` of `shares`: all of one startup's receipts fall into one share, and a share is in one hand at a time, so
        that their order is kept; for a second hand it is empty. All relays must count the same `shares`.
        """
        async with self._turn:
            connection = await self._connected()
            try:
                transaction, rows = await self._locked(connection, limit, share, shares)
                batch = Batch(rows)
                yield batch
                await self._settled(connection, transaction, batch)
            except BaseException:
                connection.terminate()  # and with it the transaction
                raise

    @translated
    async def _locked(
        self, connection: asyncpg.Connection, limit: int, share: int, shares: int
    ) -> tuple[Transaction, list[OutboxRow]]:
        transaction = connection.transaction()
        await transaction.start()
        if not await connection.fetchval(sql("witness.share"), share):
            return transaction, []
        rows = await connection.fetch(sql("witness.batch"), limit, shares, share)
        return transaction, [OutboxRow(**{**row, "body": json.loads(row["body"])}) for row in rows]

    @translated
    async def _settled(self, connection: asyncpg.Connection, transaction: Transaction, batch: Batch) -> None:
        for seq, code, detail in batch.refused:
            await connection.execute(sql("witness.refuse"), seq, code, detail)
        if batch.delivered:
            await connection.execute(sql("witness.delivered"), batch.delivered)
        await transaction.commit()

    async def refused(self) -> int:
        """Dead letters."""
        [row] = await self._fetch("witness.refused")
        return int(row[0])

    async def delivered(self, seqs: Sequence[int]) -> None:
        await self._fetch("witness.delivered", list(seqs))

    async def postpone(self, seqs: Sequence[int], *, seconds: float, reason: str) -> None:
        await self._fetch("witness.postpone", list(seqs), seconds, reason)

    async def refuse(self, seq: int, *, code: str, detail: str) -> None:
        """Put aside what the ledger will never take (EXT-20)."""
        await self._fetch("witness.refuse", seq, code, detail)

    async def backlog(self) -> tuple[int, float]:
        """(receipts waiting, seconds the oldest has waited)."""
        [row] = await self._fetch("witness.backlog")
        return row["mirror_waiting"], row["mirror_lag_seconds"]

    @translated
    async def overdue(self, sessions: int) -> int:
        """Components past their deadline without a report, among the newest `sessions` of each tenant."""
        async with self._turn:
            connection = await self._connected()
            try:
                async with connection.transaction(readonly=True):
                    await connection.fetchval(sql("witness.by_index"))
                    return int(await connection.fetchval(sql("witness.overdue"), sessions))
            except (asyncio.CancelledError, TimeoutError, OSError, asyncpg.InterfaceError):
                connection.terminate()
                raise

    async def prepare_partitions(self, days: int = 2) -> int:
        """Partitions made, today's to `days` ahead. Without one the default partition takes the rows."""
        [row] = await self._fetch("witness.partitions", days)
        return int(row[0])

    async def purge(self, retention: timedelta, *, mirroring: bool, batch: int = 5000) -> Purged:
        """Remove what D-39 lets go, at most `batch` sessions and keys; call again while it returns as many."""
        [row] = await self._fetch("witness.purge", retention, mirroring, batch)
        return Purged(**row)

    async def purge_packets(self, retention: timedelta, *, batch: int = 500) -> int:
        """Remove packets that no binding and no session that is kept refers to; at most `batch`, and none while a
        publication is written: call again while it returns as many.
        """
        [row] = await self._fetch("witness.purge_packets", retention, batch)
        return int(row[0])

    @translated
    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._turn:
            connection = await self._connected()
            try:
                rows: list[asyncpg.Record] = await connection.fetch(sql(query), *arguments)
            except (asyncio.CancelledError, TimeoutError, OSError, asyncpg.InterfaceError):
                connection.terminate()
                raise
            return rows

    @translated
    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(
                self._dsn, timeout=5, command_timeout=60, server_settings={"application_name": "metagate relay"}
            )
        return self._connection
