"""DepotGate served on a real PostgreSQL and a real directory: MetaGate's tables, the ledger's, AsyncGate's and its own in one
database, principals with real API keys.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.memorygate.ledger_fixture import free_port, ready

from depotgate.gate import GATE
from depotgate.settings import Settings
from legivellum.gate.composition import serving


def content_digest(content: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(content).digest()).decode()}:"


@dataclass(slots=True)
class Depot:
    """A served gate, its directory, and who asks it."""

    tenant: TaskTenant
    database: DepotDatabase
    client: httpx.AsyncClient
    url: str
    directory: Path
    files_before: set[Path] = field(default_factory=set)

    def headers(self, who: str, **headers: str) -> dict[str, str]:
        return {
            **self.tenant.principals[who].headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }

    async def deposit(
        self,
        content: Any = b"bytes",
        who: str = "principal",
        role: str = "input",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> httpx.Response:
        return await self.client.post(
            "/artifacts",
            params={"role": role, **query},
            content=content,
            headers={**self.headers(who), **(headers or {})},
        )

    async def kept(self, content: bytes = b"bytes", **more: Any) -> dict[str, Any]:
        answer = await self.deposit(content, **more)
        assert answer.status_code == 201, answer.text
        deposited: dict[str, Any] = answer.json()
        return deposited

    async def get(
        self, path: str, who: str = "observer", params: dict[str, str] | None = None, **headers: str
    ) -> httpx.Response:
        return await self.client.get(path, params=params, headers=self.headers(who, **headers))

    def files(self) -> list[Path]:
        """Every file in the store."""
        return sorted(path for path in self.directory.rglob("*") if path.is_file())

    async def until_known(self) -> "Depot":
        """Waits until the gate has read of the tenant's principals."""
        async with asyncio.timeout(20):
            while (await self.get("/artifacts")).status_code != 200:
                await asyncio.sleep(0.02)
        return self


def settings_of(database: DepotDatabase, directory: Path, **settings: Any) -> Settings:
    defaults = {
        "database_url": SecretStr(database.keeper),
        "identity_database_url": SecretStr(database.database.identity),
        "port": free_port(),
        "deadline_ms": 10_000,
        "rate_per_second": 0,
        "identity_poll_ms": 20,
        "store": f"file://{directory}",
    }
    return Settings(**{**defaults, **settings})


@asynccontextmanager
async def serving_depotgate(
    tenant: TaskTenant, database: DepotDatabase, directory: Path, **settings: Any
) -> AsyncIterator[Depot]:
    """One process of the gate inside the test's loop, on a real socket."""
    async with serving(GATE, settings_of(database, directory, **settings)) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=40) as client:
            yield await Depot(tenant, database, client, url, directory).until_known()
