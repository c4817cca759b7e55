"""The readers' pool: a fixed number of connections in which nothing is ever set.

Because no session state exists, giving a connection back costs nothing: the pool's reset query is a no-op (with 100 ms
of round trip it alone took success from 100 % to 0 %). A statement that was cut short leaves a connection of unknown
state behind; it is ended at once and opened anew by the next who needs it: a frozen server costs its slot and no more.
"""

import asyncio
import contextlib
from typing import Any, Self

import asyncpg

from metagate_store.driver import translated
from metagate_store.queries import sql

RELEASE_SECONDS = 1.0


async def _leave_as_it_is(_connection: object) -> None:
    """The pool's reset."""


class Pool:
    def __init__(self, pool: asyncpg.Pool, *, acquire_timeout: float, query_timeout: float) -> None:
        self._pool = pool
        self._acquire_timeout = acquire_timeout
        self._query_timeout = query_timeout

    @classmethod
    @translated
    async def open(
        cls, dsn: str, *, size: int, acquire_timeout: float, query_timeout: float, prepared: bool, name: str
    ) -> Self:
        """`prepared` off: no named statements, for a PgBouncer that does not track them (transaction mode, < 1.21)."""
        pool = await asyncpg.create_pool(
            dsn,
            min_size=size,
            max_size=size,
            max_queries=2**62,  # connections live as long as they work
            max_inactive_connection_lifetime=0,
            reset=_leave_as_it_is,
            timeout=acquire_timeout,
            statement_cache_size=200 if prepared else 0,
            max_cached_statement_lifetime=0,
            server_settings={"application_name": name},
        )
        return cls(pool, acquire_timeout=acquire_timeout, query_timeout=query_timeout)

    async def close(self) -> None:
        """Let what runs finish, for a moment; then end everything."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._pool.close(), 2)
        self._pool.terminate()

    @translated
    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a named query. Raises StoreUnavailable within acquire + query timeout, SchemaMismatch."""
        connection = await self._pool.acquire(timeout=self._acquire_timeout)
        try:
            async with asyncio.timeout(self._query_timeout):
                rows: list[asyncpg.Record] = await connection.fetch(sql(query), *arguments)
                return rows
        except (asyncio.CancelledError, TimeoutError, OSError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            connection.terminate()
            raise
        finally:
            # Its own time: the one given to `acquire` is used up, and a connection must always come back.
            await self._pool.release(connection, timeout=RELEASE_SECONDS)
