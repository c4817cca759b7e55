"""The scripted and the real API server behind one surface, so that one suite runs on both."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import asyncpg
from tests.cluster.control_plane import Cluster
from tests.databases import Database
from tests.operator.fake_api_server import FakeApiServer
from tests.operator.machinery import METAGATE, SYSTEM, Operator, Tenancy, resource

from metagate_crds.kinds import KINDS

Spec = dict[str, Any]


class Surface(Protocol):
    """Somewhere to declare things, and to read what is said about them."""

    namespace: str

    async def put(self, kind: str, name: str, spec: Any) -> None: ...
    async def delete(self, kind: str, name: str) -> None: ...
    async def body(self, kind: str, name: str) -> dict[str, Any]: ...
    def kubeconfig(self) -> str | None: ...


class Real:
    """kubectl, a real API server, a namespace of one's own."""

    def __init__(self, tenancy: Tenancy) -> None:
        self.tenancy = tenancy
        self.namespace = tenancy.namespace

    async def put(self, kind: str, name: str, spec: Any) -> None:
        await asyncio.to_thread(self.tenancy.apply, self.tenancy.resource(kind, name, spec))

    async def delete(self, kind: str, name: str) -> None:
        await asyncio.to_thread(self.tenancy.kubectl.run, "delete", "-n", self.namespace, KINDS[kind].plural, name)

    async def body(self, kind: str, name: str) -> dict[str, Any]:
        return dict(await asyncio.to_thread(self.tenancy.get, kind, name))

    def kubeconfig(self) -> str | None:
        return None


class ScriptedSurface:
    """The fake API server."""

    def __init__(self, api: FakeApiServer, directory: Path) -> None:
        self.api = api
        self.namespace = f"t-{secrets.token_hex(4)}"
        self._directory = directory
        for name in (SYSTEM, "kube-system", self.namespace):
            api.namespace(name)

    async def put(self, kind: str, name: str, spec: Any) -> None:
        self.api.put(kind, self.namespace if KINDS[kind].namespaced else "", name, spec)

    async def delete(self, kind: str, name: str) -> None:
        self.api.delete(kind, self.namespace, name)

    async def body(self, kind: str, name: str) -> dict[str, Any]:
        return self.api.objects[(KINDS[kind].plural, self.namespace, name)]

    def kubeconfig(self) -> str | None:
        return self.api.kubeconfig(self._directory)


class DeclaredSurface:
    """A surface, a database, and the operator between them."""

    def __init__(self, surface: Surface, database: Database, tenancy: Tenancy) -> None:
        self.surface = surface
        self.database = database
        self._tenancy = tenancy

    @asynccontextmanager
    async def operator(self, *arguments: str, wait: bool = True, **environment: str) -> AsyncIterator[Operator]:
        process = await asyncio.to_thread(
            lambda: Operator(
                self._tenancy,
                *arguments,
                kubeconfig=self.surface.kubeconfig(),
                dsn=self.database.publisher,
                **environment,
            )
        )
        try:
            if wait:
                await asyncio.to_thread(process.until_published)
            yield process
        except BaseException:
            print(f"\n--- operator\n{process.log[-6000:]}\n")
            raise
        finally:
            await asyncio.to_thread(process.close)

    async def declare(self, name: str = "indexer", **manifest: Any) -> None:
        """A Principal that may boot."""
        for item in self._tenancy.world(name, **manifest):
            await self.surface.put(item["kind"], item["metadata"]["name"], item["spec"])

    def binding(self, name: str, **spec: Any) -> Spec:
        return dict(self._tenancy.binding(name, **spec)["spec"])

    async def rows(self, query: str, *arguments: object) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self.database.superuser)
        try:
            return [dict(row) for row in await connection.fetch(query, *arguments)]
        finally:
            await connection.close()

    async def revision(self) -> int:
        return int((await self.rows("SELECT coalesce(max(revision), 0) AS r FROM metagate.revision"))[0]["r"])

    async def packet(self, principal: str = "indexer") -> dict[str, Any] | None:
        rows = await self.rows(
            "SELECT body FROM metagate.packet JOIN metagate.binding USING (digest) JOIN metagate.tenant USING (tenant) "
            "WHERE principal_key = $1 AND namespace = $2",
            principal,
            self.surface.namespace,
        )
        return json.loads(rows[0]["body"]) if rows else None

    async def condition(self, kind: str, name: str, condition: str = "Ready") -> dict[str, Any]:
        """The condition, once it speaks of the present generation; {} when it is absent then."""

        async def found() -> dict[str, Any] | None:
            body = await self.surface.body(kind, name)
            status = body.get("status") or {}
            if status.get("observedGeneration") != body["metadata"]["generation"]:
                return None
            return next((item for item in status["conditions"] if item["type"] == condition), {"status": "absent"})

        return dict(await until(found))

    async def ready(self, kind: str, name: str, status: str = "True") -> dict[str, Any]:
        async def found() -> dict[str, Any] | None:
            condition = await self.condition(kind, name)
            return condition if condition["status"] == status else None

        return dict(await until(found))


async def until(check: Callable[[], Any], *, seconds: float = 20, every: float = 0.05) -> Any:
    """The first true answer of an async check."""
    answer = None
    try:
        async with asyncio.timeout(seconds):
            while not (answer := await check()):
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"{check.__qualname__} never became true within {seconds} s: {answer!r}") from None
    return answer


def scripted_tenancy(cluster: Cluster | None, database: Database, namespace: str) -> Tenancy:
    """A tenancy of the fake server: only its texts are used."""
    return Tenancy(cluster, database, namespace)  # type: ignore[arg-type]


__all__ = ["METAGATE", "DeclaredSurface", "Real", "ScriptedSurface", "Surface", "resource", "scripted_tenancy", "until"]
