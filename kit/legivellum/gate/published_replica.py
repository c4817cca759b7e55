"""What MetaGate publishes, followed from its database and held in memory (D-60): what the followers of its kinds of
objects share.

A poll asks for the revision first and for the rest only when it moved; a body travels once, because bodies are named by
their digest. What was read last is believed for `stale_seconds` and no longer: a boundary that may have missed a
restriction must not go on admitting (INV-107, INV-116).
"""

from __future__ import annotations

import asyncio
import json
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, ClassVar, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import structlog

from legivellum.gate.snapshot_poller import SnapshotPoller, close_quietly, polling
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import PooledDatabase
from legivellum.postgres.published_identity import PublishedRevision, read_revision

FIRST_LOOK_SECONDS: Final = 3.0


class PublishedDatabase(PooledDatabase):
    """MetaGate's database as the role `metagate_identity`."""

    async def revision(self) -> PublishedRevision:
        return await read_revision(self._pool)


Database = TypeVar("Database", bound=PublishedDatabase)
Compiled = TypeVar("Compiled")
_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class PublishedObject(NamedTuple):
    """A row of a list of objects; `body` is None where it was known already or another row has the same."""

    tenant: UUID
    namespace: str
    name: str
    revision: int
    """Of the object's last change."""
    content_hash: str
    body: str | None


class ObjectDatabase(PublishedDatabase):
    """Where one kind of object is listed."""

    query: ClassVar[str]
    """Every served object of every tenant; those whose content hash is in $1 without their bodies."""

    async def objects(self, known: Sequence[str]) -> list[PublishedObject]:
        return [PublishedObject(*row) for row in await self._pool.fetch(self.query, list(known))]


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
        self._revision: PublishedRevision | None = None
        self._looking = asyncio.Lock()

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    @property
    def revision(self) -> int:
        """Of the listing that was read last: that an object is missing is known as of it."""
        return -1 if self._revision is None else self._revision.number

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
        return {"revision": revision.number, self.subject: self._size()}

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


class ObjectReplica(PublishedReplica[ObjectDatabase], Generic[Compiled]):
    """Objects by tenant and name. An outage never makes it empty: what is too old is an error."""

    unreadable_event: str
    """The log's event of an object that this release cannot read."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[ObjectDatabase]],
        *,
        stale_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(connect, stale_seconds=stale_seconds, clock=clock)
        self._bodies: dict[str, Mapping[str, Any]] = {}
        self._by_tenant: Mapping[UUID, Mapping[str, tuple[PublishedObject, Compiled]]] = {}
        self._shown: Mapping[UUID, Mapping[str, Compiled]] = {}

    @abstractmethod
    def compiled(self, row: PublishedObject, body: Mapping[str, Any]) -> Compiled:
        """The object as the gate uses it. Whatever it raises: this release cannot read it."""

    def of(self, tenant: UUID) -> Mapping[str, Compiled]:
        """The tenant's objects by name; empty where it declared none. Raises `unknown`.

        The mapping is the same object until something of any tenant changed, so that what is made of it can be kept
        beside it.
        """
        self.require_current()
        return self._shown.get(tenant, _NONE)

    def all(self) -> Mapping[UUID, Mapping[str, Compiled]]:
        """Those of all tenants. Raises `unknown`."""
        self.require_current()
        return self._shown

    async def _read(self, database: ObjectDatabase) -> None:
        published = await database.objects(list(self._bodies))
        bodies = self._bodies | {row.content_hash: json.loads(row.body) for row in published if row.body is not None}
        by_tenant: dict[UUID, dict[str, tuple[PublishedObject, Compiled]]] = {}
        for row in published:
            kept = self._by_tenant.get(row.tenant, {}).get(row.name)
            # What has not changed is not compiled again at every revision: digests and schemas cost time.
            unchanged = kept is not None and kept[0]._replace(body=None) == row._replace(body=None)
            entry = kept if unchanged else self._compiled(row, bodies[row.content_hash])
            if entry is not None:
                by_tenant.setdefault(row.tenant, {})[row.name] = entry
        self._bodies = {row.content_hash: bodies[row.content_hash] for row in published}
        self._by_tenant = by_tenant
        self._shown = {
            tenant: MappingProxyType({name: made for name, (_, made) in named.items()})
            for tenant, named in by_tenant.items()
        }

    def _compiled(self, row: PublishedObject, body: Mapping[str, Any]) -> tuple[PublishedObject, Compiled] | None:
        """A newer MetaGate may publish what this release cannot serve: such a one is not there, others go on."""
        try:
            return row._replace(body=None), self.compiled(row, body)
        except Exception as error:  # noqa: BLE001 - one that cannot be read must not hide all others
            facts = {"content_hash": row.content_hash, "error": type(error).__qualname__}
            structlog.get_logger(f"{self.gate}.{self.subject}").error(self.unreadable_event, **facts)
            return None

    def _size(self) -> int:
        return sum(map(len, self._by_tenant.values()))
