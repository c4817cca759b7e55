"""A gate's pool: a fixed number of connections in which nothing is ever set.

Because no session state exists, giving a connection back costs nothing: no reset query (with 100 ms of round trip it
alone took success from 100 % to 0 %). A statement that was cut short leaves a connection of unknown state behind;
that one is ended at once. Each missing connection is opened by a task of its own with a patience of its own, never by
the request that happens to need it: over a slow network a login takes several round trips, more than any request may
wait. While nobody can connect at all, callers hear so at once.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Final, Protocol, Self

import asyncpg

from legivellum.base.backoff import Backoff
from legivellum.postgres.connecting import CONNECT_FAILURES, HostConnector
from legivellum.postgres.driver import translate, translated
from legivellum.postgres.errors import Unavailable

CONNECT_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

# A database that is away is logged once, by whoever polls it; the driver would print a traceback at every attempt.
logging.getLogger("asyncpg.pool").setLevel(logging.ERROR)


class Transaction:
    """An open transaction on a connection of the pool."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    @translated
    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a query. Raises Unavailable, SchemaMismatch; then the transaction is lost."""
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *arguments)
        return rows

    @translated
    async def begin(self) -> None:
        await self._connection.execute("BEGIN")

    @translated
    async def commit(self) -> None:
        await self._connection.execute("COMMIT")


class Pool:
    """Safe for concurrent use in one event loop."""

    def __init__(
        self, dsn: str, *, size: int, acquire_timeout: float, query_timeout: float, prepared: bool, name: str
    ) -> None:
        self._connector = HostConnector(
            dsn,
            seconds=CONNECT_SECONDS,
            statement_cache_size=200 if prepared else 0,
            # A statement is prepared once for the life of a connection: the driver would prepare it again every five
            # minutes.
            max_cached_statement_lifetime=0,
            server_settings={"application_name": name},
        )
        self._size = size
        self._acquire_timeout = acquire_timeout
        self._query_timeout = query_timeout
        self._name = name
        self._idle: list[asyncpg.Connection] = []
        self._busy: set[asyncpg.Connection] = set()
        self._waiting: deque[asyncio.Future[asyncpg.Connection]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._refused: Exception | None = None
        self._closing = False

    @classmethod
    @translated
    async def open(
        cls,
        dsn: str,
        *,
        size: int,
        query_timeout: float,
        name: str,
        acquire_timeout: float | None = None,
        prepared: bool = True,
    ) -> Self:
        """Open all connections now, or fail. Times in seconds.

        `acquire_timeout` None: as long as a query may take. `prepared` off: no named statements, for a PgBouncer that
        does not track them (transaction mode, < 1.21).
        """
        pool = cls(
            dsn,
            size=size,
            acquire_timeout=query_timeout if acquire_timeout is None else acquire_timeout,
            query_timeout=query_timeout,
            prepared=prepared,
            name=name,
        )
        # All at once: one login takes several round trips, and a pool of four would start four times as slowly.
        opened = await asyncio.gather(*(pool._connect() for _ in range(size)), return_exceptions=True)
        pool._idle = [connection for connection in opened if not isinstance(connection, BaseException)]
        failed = [error for error in opened if isinstance(error, BaseException)]
        if failed:
            await pool.close()
            raise failed[0]
        return pool

    @property
    def live(self) -> int:
        """Connections that work, as far as is known."""
        return len(self._idle) + len(self._busy)

    async def close(self) -> None:
        """End everything; what still runs is cut off."""
        self._closing = True
        for task in self._opening:
            task.cancel()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(Unavailable("the pool is closed"))
        for connection in self._busy:
            connection.terminate()
        idle, self._idle = self._idle, []
        for connection in idle:
            with contextlib.suppress(Exception):
                await connection.close(timeout=1)

    @translated
    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of a query. Raises Unavailable within acquire + query timeout, SchemaMismatch."""
        connection = await self._take()
        try:
            async with asyncio.timeout(self._query_timeout):
                rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
                return rows
        except asyncpg.ReadOnlySQLTransactionError:
            # This server is a standby, or was made read-only: the next connection may find the primary.
            connection.terminate()
            raise
        except asyncpg.PostgresError:
            raise  # the server answered: the connection is as good as before
        except BaseException:
            # Cut short between request and answer: the next user of this connection would read the rest of this answer.
            connection.terminate()
            raise
        finally:
            self._give(connection)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row, or None."""
        rows = await self.fetch(query, *arguments)
        return rows[0] if rows else None

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row, or None."""
        row = await self.fetchrow(query, *arguments)
        return None if row is None else row[0]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """A transaction that commits at the end of the block and rolls back when the block raises.

        For statements between which this process computes while locks are held. It costs two more round trips, and
        whoever waits for the locks waits for this process: use a single statement wherever one is enough. The whole
        block ends within the query timeout. Raises Unavailable.
        """
        connection = await translated(self._take)()
        try:
            async with asyncio.timeout(self._query_timeout):
                transaction = Transaction(connection)
                await transaction.begin()
                yield transaction
                await transaction.commit()
        except BaseException as error:
            # The server rolls back when the connection ends, whatever state it is in: no round trip is needed for it.
            connection.terminate()
            if isinstance(error, TimeoutError):
                raise translate(error) from error
            raise
        finally:
            self._give(connection)

    @translated
    async def fetch_apart(self, query: str, *arguments: Any, seconds: int) -> list[asyncpg.Record]:
        """Like `fetch`, for a large answer that nobody waits for: on a connection of its own, for so many seconds."""
        async with asyncio.timeout(seconds + CONNECT_SECONDS):
            connection = await self._connect()
            try:
                # One message, so that the role's limits never apply inside the transaction. While this process reads
                # rows that were sent already, the server sees an idle transaction.
                limit = int(seconds) * 1_000
                await connection.execute(
                    f"BEGIN READ ONLY; SET LOCAL statement_timeout = {limit}; "
                    f"SET LOCAL idle_in_transaction_session_timeout = {limit}"
                )
                rows: list[asyncpg.Record] = await connection.fetch(query, *arguments)
                return rows
            finally:
                connection.terminate()

    async def _take(self) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                self._busy.add(connection)
                return connection
            self._replace(connection)
        if self._closing:
            raise Unavailable("the pool is closed")
        # With a busy connection there is hope that it is given back; without one waiting would only delay the 503.
        if self._refused is not None and not self._busy:
            raise Unavailable(f"nobody can connect ({type(self._refused).__name__})") from self._refused
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(self._acquire_timeout):
                taken: asyncpg.Connection = await waiter
                return taken
        except BaseException:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._give(waiter.result())  # it came in the moment we gave up
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(waiter)

    def _give(self, connection: asyncpg.Connection) -> None:
        """Hand a connection to the next who waits, or keep it; one that ended is replaced."""
        self._busy.discard(connection)
        if self._closing:
            connection.terminate()
        elif connection.is_closed():
            self._replace(connection)
        else:
            self._offer(connection)

    def _offer(self, connection: asyncpg.Connection) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self._busy.add(connection)
                waiter.set_result(connection)
                return
        self._idle.append(connection)

    def _replace(self, connection: asyncpg.Connection) -> None:
        connection.terminate()  # frees what a connection closed by the other side still holds
        if not self._closing:
            task = asyncio.get_running_loop().create_task(self._reopen(), name=f"{self._name}: open a connection")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _reopen(self) -> None:
        """Try until it works. The first failure tells everybody who waits, unless others can still serve them."""
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                connection = await self._connect()
            except CONNECT_FAILURES as error:
                self._refused = error
                self._turn_away(error)
                await asyncio.sleep(backoff.pause())
            else:
                self._refused = None
                self._offer(connection)
                return

    def _turn_away(self, error: Exception) -> None:
        if self._busy:
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(Unavailable(f"nobody can connect ({type(error).__name__})"))

    async def _connect(self) -> asyncpg.Connection:
        return await self._connector.connect()


QUERY_SHARE: Final = 0.8
"""A statement ends before its request's deadline, so that the client hears of the database and not of the clock."""


class ServedPoolSettings(Protocol):
    """What a gate's settings say of its pool."""

    @property
    def dsn(self) -> str: ...
    @property
    def pool_size(self) -> int: ...
    @property
    def deadline_seconds(self) -> float: ...


class PooledDatabase:
    """A gate's database over a pool: a gate adds one method for each statement."""

    application_name: ClassVar[str]
    """How its connections appear in pg_stat_activity."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str, *, size: int = 4, query_timeout: float = 0.8) -> Self:
        """Raises Unavailable."""
        return cls(await Pool.open(dsn, size=size, query_timeout=query_timeout, name=cls.application_name))

    @classmethod
    async def served(cls, settings: ServedPoolSettings) -> Self:
        """As the serving process connects. Raises Unavailable."""
        seconds = settings.deadline_seconds * QUERY_SHARE
        return await cls.connect(settings.dsn, size=settings.pool_size, query_timeout=seconds)

    async def close(self) -> None:
        await self._pool.close()
