"""Following a database: connect when it is there, then read what was published, again and again.

Nothing here ends the process. A database that is away is a 503 per request and another attempt; what was read last
stays in force meanwhile. The log says once when a database was lost and once when it was reached again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from legivellum.postgres.errors import DatabaseError, SchemaMismatch

LOST = (DatabaseError, OSError, TimeoutError)
"""What says that a database cannot be read now. Anything else is a defect, and logged with its traceback."""

_RETRY_SECONDS = 1.0


@dataclass(slots=True)
class DatabaseStatus:
    """What polling found last. Ready stays ready: a later outage is a 503 per request (D-52)."""

    ready: bool = False
    present: bool = True
    """Whether the gate has a database of its own; one that has none begins with `up`."""
    up: bool = False
    fits: bool = True
    """Whether the schema is new enough for this release."""
    identity: bool = False
    followed: bool = True
    """Whether what the gate follows beside identity was read; a gate that follows more begins with False."""
    schema_version: int | None = None

    def settle(self) -> None:
        """Become ready once everything was there at the same time."""
        self.ready = self.ready or (self.up and self.fits and self.identity and self.followed)


class SnapshotPoller:
    """`look` reads the present snapshot, takes it over, and returns what the log says when the database was reached.

    `name` begins the names of the log's events: `<name>_reached`, `<name>_lost`. `on_lost` is called for each failed
    look; `seconds` is the time between two looks, `retry_seconds` after one that failed.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], Awaitable[Mapping[str, object]]],
        *,
        logger: str,
        seconds: float,
        retry_seconds: float = _RETRY_SECONDS,
        on_lost: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self._name = name
        self._look = look
        self._log = structlog.get_logger(logger)
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._on_lost = on_lost
        self._reached = False
        self._failure: type[Exception] | None = None

    async def step(self) -> None:
        """One look. It never raises: whatever goes wrong, the next look may succeed."""
        try:
            facts = await self._look()
        except Exception as error:  # noqa: BLE001 - a defect in one look must not end the polling
            self._lost(error)
            return
        if not self._reached:
            self._log.info(f"{self._name}_reached", **facts)
        self._failure, self._reached = None, True

    def _lost(self, error: Exception) -> None:
        # Also the first failure of all is logged: nothing else says why the gate is not ready.
        if type(error) is not self._failure:
            facts = {"error": type(error).__qualname__, "reason": str(error)}
            if isinstance(error, LOST):
                self._log.warning(f"{self._name}_lost", **facts)
            else:
                self._log.error(f"{self._name}_lost", **facts, exc_info=error)
        self._failure, self._reached = type(error), False
        self._on_lost(error)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(self._seconds if self._reached else self._retry_seconds)
            await self.step()


@asynccontextmanager
async def polling(*pollers: SnapshotPoller, first_look_seconds: float) -> AsyncIterator[None]:
    """Poll while the block runs. The first looks happen before it begins, if the databases answer that fast."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*(poller.step() for poller in pollers)), first_look_seconds)
    # A gate whose database is slow starts all the same and is not ready yet: these look again.
    tasks = [asyncio.create_task(poller.run(), name="poll a database") for poller in pollers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Closable(Protocol):
    async def close(self) -> None: ...


Connection = TypeVar("Connection", bound=Closable)
Snapshot = TypeVar("Snapshot")


class ConnectionHolder(Protocol[Connection]):
    """Whatever keeps a gate's one connection (a pool, usually)."""

    connected: Connection | None


async def read_connected(
    holder: ConnectionHolder[Connection],
    connect: Callable[[], Awaitable[Connection]],
    read: Callable[[Connection], Awaitable[Snapshot]],
) -> Snapshot:
    """What `read` reads over the holder's connection. Without one it connects first, and keeps the new connection only
    when the read succeeded: a database whose schema does not fit serves no request.
    """
    connection = holder.connected or await connect()
    try:
        snapshot = await read(connection)
    except BaseException:
        if holder.connected is None:
            await connection.close()
        raise
    holder.connected = connection
    return snapshot


def require_version(version: int, needed: int) -> None:
    """Raises SchemaMismatch for a schema that is older than this release."""
    if version < needed:
        raise SchemaMismatch(f"schema version {version}, this release needs {needed}")


async def close_quietly(connection: Any, *, seconds: float = 2.0) -> None:
    """Close what may be unreachable already; at the end of a process nobody waits for it."""
    if connection is not None:
        with contextlib.suppress(*LOST):
            await asyncio.wait_for(connection.close(), timeout=seconds)
