"""One transaction publishes what changed. Role `metagate_publisher`; one writer at a time, the newest epoch wins.

A writer loads once, which takes the next epoch and fences whoever wrote before; from then on it knows what is stored
and sends differences. Each publish takes the advisory lock, looks whether the epoch is still its own and the newest
revision still the one it knows, writes, and mints a revision only when something that is served has changed. Readers
never see half of it: it is one transaction, and they read with one statement.
"""

import asyncio
import functools
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any, Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from metagate_store.errors import Fenced, ForeignCluster, StaleBase
from metagate_store.history import spec_of
from metagate_store.queries import sql
from metagate_store.rows import (
    Change,
    DeclaredRow,
    FileIdentityRow,
    IssuerKeyRow,
    IssuerRow,
    Published,
    StoredRow,
    TenantRow,
)
from metagate_store.tables import TABLES

Failpoint = Callable[[str], None]
"""Called with the name of each step; a test makes it raise or kill the process there (F27)."""

STANDALONE = "standalone"
"""Claims a database for files instead of a cluster, so that neither ever empties the other's (D-46)."""


P = ParamSpec("P")
R = TypeVar("R")


def _one_at_a_time(
    method: Callable[Concatenate["Publisher", P], Awaitable[R]],
) -> Callable[Concatenate["Publisher", P], Coroutine[Any, Any, R]]:
    """The reconciler and the refresher of issuers' keys share one connection, which answers one question at a time."""

    @functools.wraps(method)
    async def call(self: "Publisher", /, *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._lock:
            return await method(self, *args, **kwargs)

    return call


class Publisher:
    """The writer's hold on the database: one connection, whose calls wait for each other."""

    def __init__(self, dsn: str, *, cluster_uid: str, failpoint: Failpoint) -> None:
        self._dsn = dsn
        self._cluster_uid = cluster_uid
        self._failpoint = failpoint
        self._connection: asyncpg.Connection | None = None
        self._lock = asyncio.Lock()
        self._epoch = 0
        self._revision = 0

    @classmethod
    @translated
    async def open(cls, dsn: str, *, cluster_uid: str | None = None, failpoint: Failpoint = lambda _name: None) -> Self:
        """`cluster_uid` None: files, no cluster (standalone). Somebody else's database raises ForeignCluster."""
        publisher = cls(dsn, cluster_uid=cluster_uid or STANDALONE, failpoint=failpoint)
        await publisher._connected()
        return publisher

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            await connection.close(timeout=2)

    @property
    def epoch(self) -> int:
        return self._epoch

    @_one_at_a_time
    @translated
    async def load(self) -> Published:
        """Take over, and learn what is stored."""
        async with self._transaction() as connection:
            self._epoch = await connection.fetchval(sql("publish.take_epoch"))
            self._revision = (await connection.fetchrow(sql("publish.position")))["revision"]
            rows = await connection.fetch(sql("load.rows"))
            declared = await connection.fetch(sql("load.declared"))
            packets = await connection.fetch(sql("load.packets"))
            sightings = await connection.fetch(sql("load.sightings"))
            tenants = await connection.fetch(sql("load.tenants"))
            key_owners = await connection.fetch(sql("load.key_owners"))
        return Published(
            epoch=self._epoch,
            revision=self._revision,
            rows={(row["in_table"], tuple(row["key"])): StoredRow(row["owner"], row["content"]) for row in rows},
            declared=tuple(_declared(row) for row in declared),
            packets=frozenset(row["digest"] for row in packets),
            file_identities=tuple(FileIdentityRow(**row) for row in sightings),
            tenants=tuple(TenantRow(**row) for row in tenants),
            # Few tenants have many keys: each tenant is one string.
            key_owners={row["sha256"]: sys.intern(row["tenant"]) for row in key_owners},
        )

    @_one_at_a_time
    @translated
    async def publish(self, change: Change, *, mirror: bool = False) -> int:
        """Write the difference and return the revision served now: a new one only when a served table changed.

        Raises Fenced, StaleBase, StoreUnavailable; in each case nothing was written, but for a lost commit reply
        (StoreUnavailable), after which the writer must `load` again.
        """
        async with self._transaction() as connection:
            await self._check_turn(connection)
            revision = await self._write(connection, change, mirror=mirror)
            self._failpoint("before_commit")
        self._failpoint("after_commit")
        self._revision = revision
        return revision

    # ── issuers' keys ────────────────────────────────────────────────────────────────────────────────────────────────

    @_one_at_a_time
    @translated
    async def issuers(self) -> Sequence[IssuerRow]:
        connection = await self._connected()
        return [_issuer(row) for row in await connection.fetch(sql("issuers.all"))]

    @_one_at_a_time
    @translated
    async def issuer_keys(self, issuer: str) -> Sequence[IssuerKeyRow]:
        """Retired ones included."""
        connection = await self._connected()
        return [_issuer_key(row) for row in await connection.fetch(sql("issuers.keys"), issuer)]

    @_one_at_a_time
    @translated
    async def keep_issuer_keys(self, keys: Sequence[IssuerKeyRow], gone: Sequence[tuple[str, str]] = ()) -> None:
        """Store what the refresher of Cluster and URL issuers found. Mints no revision; `credentials` shows it."""
        async with self._transaction() as connection:
            await self._check_turn(connection)
            stored = {
                (row["issuer"], row["kid"]): _issuer_key(row)
                for issuer in sorted({key.issuer for key in keys})
                for row in await connection.fetch(sql("issuers.keys"), issuer)
            }
            changed = [key for key in keys if _tells_readers(key, stored.get((key.issuer, key.kid)))]
            unchanged = [key for key in keys if key not in changed and key.last_seen is not None]
            if changed:
                await connection.execute(sql("issuers.keep"), *_columns(changed, _KEY_COLUMNS))
            if unchanged:
                await connection.execute(
                    sql("issuers.touch"), *_columns(unchanged, ("issuer", "kid", "last_seen", "misses"))
                )
            if gone:
                await connection.execute(sql("issuers.forget"), *map(list, zip(*gone, strict=True)))

    @_one_at_a_time
    @translated
    async def tenant(self, namespace: str) -> UUID | None:
        """The present incarnation of a namespace."""
        connection = await self._connected()
        tenant: UUID | None = await connection.fetchval(sql("load.tenant"), namespace)
        return tenant

    # ── how it is done ───────────────────────────────────────────────────────────────────────────────────────────────

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await _connect(self._dsn, self._cluster_uid)
        return self._connection

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """The advisory lock and a transaction. Whatever breaks it ends the connection too: its state is unknown."""
        connection = await self._connected()
        try:
            async with connection.transaction():
                await connection.execute(sql("publish.lock"))
                yield connection
        except (Fenced, StaleBase):
            raise
        except BaseException:
            connection.terminate()
            raise

    async def _check_turn(self, connection: asyncpg.Connection) -> None:
        position = await connection.fetchrow(sql("publish.position"))
        if self._epoch == 0 or position["epoch"] != self._epoch:
            raise Fenced(f"epoch {self._epoch} is over, epoch {position['epoch']} writes now; nothing was written")
        if position["revision"] != self._revision:
            raise StaleBase(
                f"revision {position['revision']} is served, {self._revision} was expected; nothing was written"
            )

    async def _write(self, connection: asyncpg.Connection, change: Change, *, mirror: bool) -> int:
        if change.packets:
            await connection.execute(
                sql("publish.packets"), list(change.packets), [change.packets[digest] for digest in change.packets]
            )
        self._failpoint("after_packets")
        await _write_context(connection, change)
        self._failpoint("after_declared")
        counts = await _write_tables(connection, change, self._revision + 1, served=True)
        served = any(counts.values())
        revision = self._revision + 1 if served else self._revision
        self._failpoint("after_tables")
        await _write_tables(connection, change, revision, served=False)
        if change.audit:
            await connection.execute(sql("publish.audit"), _json([asdict(row) for row in change.audit]), revision)
        if served:
            changed_tables = {table: count for table, count in counts.items() if count}
            await connection.execute(sql("publish.revision"), revision, self._epoch, json.dumps(changed_tables))
            if mirror:
                body = {"counts": changed_tables, "objects": len(change.audit)}
                await connection.execute(sql("publish.mirror"), revision, json.dumps(body))
        return revision


async def _connect(dsn: str, cluster_uid: str) -> asyncpg.Connection:
    connection = await connect(
        dsn, seconds=5, command_timeout=120, server_settings={"application_name": "metagate writer"}
    )
    try:
        owner_uid = await connection.fetchval(sql("publish.claim"), cluster_uid)
    except BaseException:
        connection.terminate()
        raise
    if owner_uid != cluster_uid:
        await connection.close(timeout=2)
        raise ForeignCluster(
            f"the database belongs to {owner_uid}, not to {cluster_uid}; `metagate migrate --adopt` takes it over"
        )
    return connection


async def _write_context(connection: asyncpg.Connection, change: Change) -> None:
    """What is remembered about the declared world, beside what is served of it."""
    if change.tenants:
        await connection.execute(
            sql("publish.tenants"), *_columns(change.tenants, ("tenant", "namespace", "created_at"))
        )
    if change.retired_tenants:
        await connection.execute(sql("publish.retired_tenants"), list(change.retired_tenants))
    if change.file_identities:
        await connection.execute(
            sql("publish.sightings"), *_columns(change.file_identities, tuple(FileIdentityRow.__slots__))
        )
    if change.removed_file_identities:
        removed = list(map(list, zip(*change.removed_file_identities, strict=True)))
        await connection.execute(sql("publish.forgotten"), *removed)
    if change.withdrawn:
        await connection.execute(sql("publish.withdrawn"), list(change.withdrawn))
    if change.declared:
        await connection.execute(sql("publish.declared"), _json([asdict(row) for row in change.declared]))


async def _write_tables(
    connection: asyncpg.Connection, change: Change, revision: int, *, served: bool
) -> Mapping[str, int]:
    """Rows really changed, by table: what is stored already does not count."""
    unknown = (change.upserts.keys() | change.deletes.keys()) - TABLES.keys()
    if unknown:
        raise ValueError(f"not tables of a snapshot: {', '.join(sorted(unknown))}")
    counts: dict[str, int] = {}
    for name, table in TABLES.items():
        if table.served is not served:
            continue
        gone, rows = change.deletes.get(name, ()), change.upserts.get(name, ())
        if gone:
            counts[name] = _count(await connection.execute(sql(f"delete.{name}"), *map(list, zip(*gone, strict=True))))
        if rows:
            done = await connection.execute(sql(f"upsert.{name}"), _json([dict(row) for row in rows]), revision)
            counts[name] = counts.get(name, 0) + _count(done)
    if served and (change.upserts.get("issuer") or change.deletes.get("issuer")):
        await connection.execute(sql("publish.orphaned_issuer_keys"))
    return counts


_KEY_COLUMNS = ("issuer", "kid", "jwk", "alg", "first_seen", "last_seen", "misses", "retired_at")


def _tells_readers(key: IssuerKeyRow, stored: IssuerKeyRow | None) -> bool:
    return stored is None or (key.jwk, key.alg, key.retired_at) != (stored.jwk, stored.alg, stored.retired_at)


def _columns(rows: Sequence[object], names: Sequence[str]) -> list[list[Any]]:
    return [[_plain(getattr(row, name)) for row in rows] for name in names]


def _plain(value: object) -> object:
    return json.dumps(dict(value)) if isinstance(value, Mapping) else value


def _json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(rows, default=_spelt)


def _spelt(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | frozenset | set):
        return list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])


def _declared(row: Mapping[str, Any]) -> DeclaredRow:
    return DeclaredRow(
        uid=row["uid"],
        generation=row["generation"],
        kind=row["kind"],
        tenant=row["tenant"],
        namespace=row["namespace"],
        name=row["name"],
        created=row["created_at"],
        spec=spec_of(row["spec"]),
        manager=row["manager"],
    )


def _issuer(row: Mapping[str, Any]) -> IssuerRow:
    return IssuerRow(
        issuer=row["issuer"],
        name=row["name"],
        audiences=tuple(row["audiences"]),
        algorithms=tuple(row["algorithms"]),
        max_token_lifetime_seconds=row["max_token_lifetime_seconds"],
        source=row["source"],
        url=row["url"],
    )


def _issuer_key(row: Mapping[str, Any]) -> IssuerKeyRow:
    return IssuerKeyRow(**{**row, "jwk": json.loads(row["jwk"])})
