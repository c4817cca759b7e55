"""The one connection of a background task: opened when it is needed, and opened anew after it broke."""

import asyncio
from typing import Any

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from metagate_store.queries import sql

CUT_SHORT = (asyncio.CancelledError, TimeoutError, OSError, asyncpg.InterfaceError)


class BackgroundConnection:
    """Calls wait for each other. Role `metagate_publisher`."""

    def __init__(self, dsn: str, *, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: asyncpg.Connection | None = None
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=2)

    @translated
    async def _fetch(self, query: str, *arguments: Any, before: str | None = None) -> list[asyncpg.Record]:
        """The rows of a named query; `before` is another one that the same read-only transaction begins with."""
        async with self._turn:
            connection = await self._connected()
            try:
                if before is None:
                    rows: list[asyncpg.Record] = await connection.fetch(sql(query), *arguments)
                    return rows
                async with connection.transaction(readonly=True):
                    await connection.fetchval(sql(before))
                    return list(await connection.fetch(sql(query), *arguments))
            except (*CUT_SHORT, asyncpg.ReadOnlySQLTransactionError):
                # A statement that was cut short leaves a connection of unknown state behind, and a server that is
                # read-only is not the one to stay with.
                connection.terminate()
                raise

    @translated
    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(
                self._dsn, seconds=5, command_timeout=60, server_settings={"application_name": self._name}
            )
        return self._connection
