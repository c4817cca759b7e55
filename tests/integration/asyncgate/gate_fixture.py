"""AsyncGate served on a real PostgreSQL: MetaGate's tables, the ledger's and its own in one database, principals with real
API keys, obligations opened as the ledger opens them.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from pydantic import SecretStr
from tests.integration.asyncgate.conftest import TaskDatabase, append, receipt_body
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ready

from asyncgate.gate import GATE
from asyncgate.settings import Settings
from asyncgate.task import EMITTER
from legivellum.gate.composition import serving
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
TYPES = ("principal", "delegate", "worker", "service", "component", "observer", "admin")


@dataclass(slots=True)
class TaskTenant:
    """A tenant with one principal of each type, and two more that work."""

    database: TaskDatabase
    uid: UUID = field(default_factory=uuid4)
    principals: dict[str, LedgerPrincipal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.principals = {name: LedgerPrincipal(self.uid, name, name) for name in TYPES}
        self.principals |= {name: LedgerPrincipal(self.uid, name, "worker") for name in ("other", "third")}

    @property
    def namespace(self) -> str:
        return f"team-{self.uid.hex[:8]}"

    async def publish(self, *others: "TaskTenant") -> None:
        publisher = await Publisher.open(self.database.database.publisher)
        tables: dict[str, list[dict[str, object]]] = {}
        tenants = (self, *others)
        for tenant in tenants:
            for principal in tenant.principals.values():
                for table, values in principal.rows().items():
                    tables.setdefault(table, []).extend(values)
        try:
            await publisher.load()
            await publisher.publish(
                Change(
                    tenants=tuple(TenantRow(tenant.uid, tenant.namespace, CREATED) for tenant in tenants),
                    upserts=tables,
                )
            )
        finally:
            await publisher.close()

    async def mint(self, *task_ids: str, principal: str = "principal", recipient: str = EMITTER) -> None:
        """The obligations of tasks, opened by their principal for AsyncGate."""
        bodies = [
            receipt_body(
                self.uid,
                principal,
                phase="accepted",
                task_id=name,
                obligation_id=name,
                principal_ai=principal,
                recipient_ai=recipient,
            )
            for name in task_ids
        ]
        assert await append(self.database.ledger.writer, bodies) == ["STORED"] * len(bodies)

    async def receipts(self, task_id: str) -> list[dict[str, Any]]:
        """What the ledger holds of a task, oldest first."""
        connection = await asyncpg.connect(self.database.superuser)
        try:
            rows = await connection.fetch(
                "SELECT body FROM memorygate.receipt WHERE tenant = $1 AND task_id = $2 ORDER BY stored_at, position",
                self.uid,
                task_id,
            )
        finally:
            await connection.close()
        return [json.loads(row["body"]) for row in rows]

    async def stored_at(self, task_id: str) -> list[tuple[str, datetime]]:
        """Phase and time of each receipt of a task, oldest first."""
        query = "SELECT phase, stored_at FROM memorygate.receipt WHERE tenant = $1 AND task_id = $2 ORDER BY stored_at, position"
        connection = await asyncpg.connect(self.database.superuser)
        try:
            return [(row["phase"], row["stored_at"]) for row in await connection.fetch(query, self.uid, task_id)]
        finally:
            await connection.close()

    async def phases(self, task_id: str) -> list[str]:
        return [receipt["phase"] for receipt in await self.receipts(task_id)]


@dataclass(slots=True)
class TaskGate:
    """A served gate, and who asks it."""

    tenant: TaskTenant
    client: httpx.AsyncClient
    url: str

    async def post(self, who: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.post(
            path, json={} if body is None else body, headers={**self.tenant.principals[who].headers, **sent}
        )

    async def get(self, who: str, path: str, **parameters: str) -> httpx.Response:
        return await self.client.get(path, params=parameters, headers=self.tenant.principals[who].headers)

    def task(self, task_id: str | None = None, **fields: Any) -> dict[str, Any]:
        name = task_id or new_id()
        return {"task_id": name, "principal_ai": "principal", "payload_pointer": f"s3://jobs/{name}", **fields}

    async def park(self, task_id: str | None = None, **fields: Any) -> str:
        """Minted and parked; its id."""
        task = self.task(task_id, **fields)
        await self.tenant.mint(task["task_id"])
        answer = await self.post("principal", "/tasks", task)
        assert answer.status_code == 201, answer.text
        return task["task_id"]

    async def leases(self, who: str = "worker", *capabilities: str, **fields: Any) -> list[dict[str, Any]]:
        body = {"capabilities": list(capabilities or ("default",)), **fields}
        answer = await self.post(who, "/lease", body)
        assert answer.status_code == 200, answer.text
        return answer.json()["leases"]

    async def lease(self, who: str = "worker", *capabilities: str, **fields: Any) -> dict[str, Any]:
        [lease] = await self.leases(who, *capabilities, **fields)
        return lease

    async def until_known(self) -> "TaskGate":
        """Waits until the gate has read of the tenant's principals."""
        async with asyncio.timeout(20):
            while (await self.get("observer", "/queue/depth")).status_code != 200:
                await asyncio.sleep(0.02)
        return self


CLAIM = {"status": "success", "outcome_kind": "response_text", "outcome_text": "done"}


def settings_of(database: TaskDatabase, **settings: Any) -> Settings:
    defaults = {
        "database_url": SecretStr(database.broker),
        "identity_database_url": SecretStr(database.database.identity),
        "port": free_port(),
        "deadline_ms": 10_000,
        "rate_per_second": 0,
        "identity_poll_ms": 20,
        "pass_seconds": 0.2,
    }
    return Settings(**{**defaults, **settings})


@asynccontextmanager
async def serving_asyncgate(tenant: TaskTenant, **settings: Any) -> AsyncIterator[TaskGate]:
    """One process of the gate inside the test's loop, on a real socket."""
    async with serving(GATE, settings_of(tenant.database, **settings)) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=40) as client:
            yield await TaskGate(tenant, client, url).until_known()
