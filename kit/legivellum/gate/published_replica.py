"""What MetaGate publishes, followed from its database and held in memory (D-60): what the followers of its kinds of
objects share.

A poll asks for the revision first and for the rest only when it moved; a body travels once, because bodies are named by
their digest. What was read last is believed for `stale_seconds` and no longer: a boundary that may have missed a
restriction must not go on admitting (INV-107, INV-116).
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from legivellum.gate.snapshot_poller import SnapshotPoller, close_quietly, polling
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import PooledDatabase

FIRST_LOOK_SECONDS: Final = 3.0


class PublishedDatabase(PooledDatabase):
    """MetaGate's database as the role `metagate_identity`."""

    async def revision(self) -> int:
        return int(await self._pool.fetchval("SELECT revision FROM metagate.state()") or 0)


Database = TypeVar("Database", bound=PublishedDatabase)


class PublishedReplica(Generic[Database]):
    """The last snapshot of one kind of object. `look` is what a poller repeats."""

    unknown: type[Unavailable] = Unavailable
    """Raised where what was published is not known, or not known well enough."""
    gate: str
    """Whose log it writes to."""
    subject: str
    """What is published, as the log's events and errors name it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Database]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connect = connect
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._database: Database | None = None
        self._confirmed_at: float | None = None
        self._revision = -1
        self._looking = asyncio.Lock()

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    @property
    def revision(self) -> int:
        """Of the listing that was read last: that an object is missing is known as of it."""
        return self._revision

    def require_current(self) -> None:
        """Raises `unknown` before the first read, and when the last one is too long ago: then it fails closed."""
        age = self.age
        if age is None or age > self._stale_seconds:
            raise self.unknown(f"The {self.subject} are not known.")

    async def look(self) -> Mapping[str, object]:
        async with self._looking:
            if self._database is None:
                self._database = await self._connect()
            revision = await self._database.revision()
            if revision != self._revision:
                await self._read(self._database)
                self._revision = revision
            self._confirmed_at = self._clock()
        return {"revision": revision, self.subject: self._size()}

    @abstractmethod
    async def _read(self, database: Database) -> None:
        """Take the present snapshot over, or raise and keep the last one."""

    @abstractmethod
    def _size(self) -> int:
        """How many objects are held."""

    async def close(self) -> None:
        await close_quietly(self._database)

    @asynccontextmanager
    async def following(self, *, seconds: float, on_look: Callable[[bool], None]) -> AsyncIterator[None]:
        """Poll while the block runs. `on_look` is told whether each look succeeded."""

        async def look() -> Mapping[str, object]:
            facts = await self.look()
            on_look(True)
            return facts

        poller = SnapshotPoller(
            self.subject,
            look,
            logger=f"{self.gate}.{self.subject}",
            seconds=seconds,
            on_lost=lambda _error: on_look(False),
        )
        try:
            async with polling(poller, first_look_seconds=FIRST_LOOK_SECONDS):
                yield
        finally:
            await self.close()
