"""What the relay does to the database: drain the outbox, remove expired sessions, make the next partitions.

Role `metagate_publisher`, a connection of its own; nothing here is on the path of a request, and nothing here waits for
locks: whatever is busy is done the next time (INV-028).
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import asyncpg

from metagate_store.driver import translated
from metagate_store.queries import sql
from metagate_store.rows import OutboxRow


@dataclass(frozen=True, slots=True)
class Purged:
    startups: int
    partitions: int
    keys: int


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

    async def prepare_partitions(self, days: int = 2) -> int:
        """Partitions made, today's to `days` ahead. Without one the default partition takes the rows."""
        [row] = await self._fetch("witness.partitions", days)
        return int(row[0])

    async def purge(self, retention: timedelta, *, mirroring: bool, batch: int = 5000) -> Purged:
        """Remove what D-39 lets go, at most `batch` sessions and keys; call again while it returns as many."""
        [row] = await self._fetch("witness.purge", retention, mirroring, batch)
        return Purged(**row)

    @translated
    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(
                    self._dsn, timeout=5, command_timeout=60, server_settings={"application_name": "metagate relay"}
                )
            try:
                rows: list[asyncpg.Record] = await self._connection.fetch(sql(query), *arguments)
            except (asyncio.CancelledError, TimeoutError, OSError, asyncpg.InterfaceError):
                self._connection.terminate()
                raise
            return rows
