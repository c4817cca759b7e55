"""A Source that does what a test tells it, and small worlds to declare with it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import asyncpg

from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_operator.sources.source import Event, Listing, ObjectGone, ObjectPut, SourceUnavailable

START = datetime(2026, 1, 1, tzinfo=UTC)
TEAM = Namespace("team", str(uuid5(NAMESPACE_URL, "team")), START)
SYSTEM = Namespace("metagate-system", str(uuid5(NAMESPACE_URL, "system")), START)
TENANT = UUID(TEAM.uid)
_ages = count()


def declared(kind: str, name: str, spec: Any, *, generation: int = 1, uid: str | None = None) -> DeclaredObject:
    return DeclaredObject(
        ObjectKey(kind, "team", name), uid or str(uuid4()), generation, START + timedelta(seconds=next(_ages)), spec
    )


def changed(before: DeclaredObject, spec: Any) -> DeclaredObject:
    """The next generation of an object."""
    return DeclaredObject(before.key, before.uid, before.generation + 1, before.created, spec)


def principal(name: str) -> DeclaredObject:
    return declared("Principal", name, {"type": "component"})


def binding(name: str, **more: Any) -> DeclaredObject:
    spec = {
        "principalRef": {"name": name},
        "profileRef": {"name": "worker"},
        "manifestRef": {"name": "world"},
        "components": [f"{name}_*"],
    }
    return declared("PrincipalBinding", name, {**spec, **more})


def profile(**spec: Any) -> DeclaredObject:
    return declared("Profile", "worker", {"capabilities": {"read": True}, **spec})


def manifest(region: str = "eu") -> DeclaredObject:
    return declared("Manifest", "world", {"deploymentKey": "d", "version": 1, "environment": {"region": region}})


def team(*names: str) -> list[DeclaredObject]:
    """A profile, a manifest, and for each name a Principal and its binding."""
    return [profile(), manifest(), *(item for name in names for item in (principal(name), binding(name)))]


class ScriptedSource:
    """Holds what is declared now. `unavailable` makes listings fail; `listings` counts them."""

    def __init__(self, objects: Iterable[DeclaredObject] = ()) -> None:
        self.objects = {obj.key: obj for obj in objects}
        self.namespaces = (SYSTEM, TEAM)
        self.unavailable = False
        self.listings = 0
        self.queue: asyncio.Queue[Event | Exception] = asyncio.Queue()

    async def listing(self) -> Listing:
        self.listings += 1
        if self.unavailable:
            raise SourceUnavailable("the script says so")
        return Listing(self.namespaces, tuple(self.objects.values()))

    async def events(self) -> AsyncIterator[Event]:
        while True:
            event = await self.queue.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def put(self, item: DeclaredObject, *, silently: bool = False) -> DeclaredObject:
        self.objects[item.key] = item
        if not silently:
            self.queue.put_nowait(ObjectPut(item))
        return item

    def remove(self, key: ObjectKey, *, silently: bool = False) -> None:
        gone = self.objects.pop(key)
        if not silently:
            self.queue.put_nowait(ObjectGone(key, gone.uid))


TABLES = (
    "principal", "subject", "api_key", "binding", "profile", "manifest", "policy_profile", "problemata", "plan_template", "issuer", "issuer_key",
    "reference", "resource",
)  # fmt: skip


async def stored(dsn: str, tables: Iterable[str] = TABLES) -> dict[str, list[str]]:
    """What the database serves: owner and content of every row by table. Equal worlds give equal answers."""
    connection = await asyncpg.connect(dsn)
    try:
        return {
            table: sorted(
                f"{row['owner']} {row['content']}"
                for row in await connection.fetch(f"SELECT owner, content FROM metagate.{table}")
            )
            for table in tables
        }
    finally:
        await connection.close()


async def fetch(dsn: str, query: str, *values: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetch(query, *values))
    finally:
        await connection.close()


async def revision(dsn: str) -> int:
    return int((await fetch(dsn, "SELECT coalesce(max(revision), 0) AS r FROM metagate.revision"))[0]["r"])
