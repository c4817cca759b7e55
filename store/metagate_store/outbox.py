"""The outbox: receipts on their way to the ledger.

Role `metagate_publisher`; nothing here is on the path of a request, and nothing waits for locks: whatever is busy is
done the next time (INV-028).
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import asyncpg
from asyncpg.transaction import Transaction

from legivellum.postgres.driver import translated
from metagate_store.connection import BackgroundConnection
from metagate_store.queries import sql
from metagate_store.rows import OutboxRow


@dataclass(slots=True)
class Batch:
    """Receipts in hand, and what became of them; what is in neither list stays in the outbox."""

    rows: list[OutboxRow]
    delivered: list[int] = field(default_factory=list)
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    """(seq, code, detail)."""


class OutboxStore(BackgroundConnection):
    """What the relay does to the database."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, name="metagate relay")

    @classmethod
    async def open(cls, dsn: str) -> Self:
        store = cls(dsn)
        await store.backlog()
        return store

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

    async def refused(self) -> int:
        """How many dead letters there are: receipts that the ledger will never take (EXT-20)."""
        [row] = await self._fetch("outbox.refused")
        return int(row[0])

    async def backlog(self) -> tuple[int, float]:
        """(receipts waiting, seconds the oldest has waited)."""
        [row] = await self._fetch("outbox.backlog")
        return row["mirror_waiting"], row["mirror_lag_seconds"]

    @translated
    async def _locked(
        self, connection: asyncpg.Connection, limit: int, share: int, shares: int
    ) -> tuple[Transaction, list[OutboxRow]]:
        transaction = connection.transaction()
        await transaction.start()
        if not await connection.fetchval(sql("outbox.share"), share):
            return transaction, []
        rows = await connection.fetch(sql("outbox.batch"), limit, shares, share)
        return transaction, [OutboxRow(**{**row, "body": json.loads(row["body"])}) for row in rows]

    @translated
    async def _settled(self, connection: asyncpg.Connection, transaction: Transaction, batch: Batch) -> None:
        for seq, code, detail in batch.refused:
            await connection.execute(sql("outbox.refuse"), seq, code, detail)
        if batch.delivered:
            await connection.execute(sql("outbox.delivered"), batch.delivered)
        await transaction.commit()
