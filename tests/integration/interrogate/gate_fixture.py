"""InterroGate served on a real PostgreSQL: MetaGate's tables, the ledger's and its own in one database, principals with
real API keys, policies published as MetaGate's operator publishes them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from pydantic import SecretStr
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ready
from tests.integration.store.worlds import row

from interrogate.gate import GATE
from interrogate.settings import Settings
from legivellum.gate.composition import serving
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.models import PolicyProfileSpec, ProblemataSpec
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

CREATED = datetime(2026, 1, 1, tzinfo=UTC)

OPEN_POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 3, "maxTotalDescendants": 50},
    "surfaces": [
        {"surfaceId": "public", "principals": ["*"], "capabilities": {"allow": ["doc.*"]}, "parentage": "Tenant"}
    ],
}


def policy_row(tenant: UUID, name: str, spec: Mapping[str, Any], owner: UUID) -> dict[str, Any]:
    """A row as the compiler makes it: the normalised spec and its digest."""
    body = PolicyProfileSpec.model_validate(spec).model_dump(mode="json", by_alias=True, exclude_none=True)
    return row(owner, tenant=str(tenant), name=name, body=body, policy_hash=digest(canonical(body)), generation=1)


def problemata_row(tenant: UUID, name: str, spec: Mapping[str, Any], owner: UUID) -> dict[str, Any]:
    """As the compiler makes it of a Problemata that it serves."""
    body = ProblemataSpec.model_validate(spec).declared()
    return row(owner, tenant=str(tenant), name=name, body=body, content_hash=digest(canonical(body)), generation=1)


@dataclass(slots=True)
class PublishedWorld:
    """What MetaGate has published: tenants, their principals and policies."""

    database: AdmissionDatabase
    tenant: UUID = field(default_factory=uuid4)
    _owners: dict[tuple[UUID, str], UUID] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.namespace_of(self.tenant)

    @staticmethod
    def namespace_of(tenant: UUID) -> str:
        return f"team-{tenant.hex[:8]}"

    def principal(self, name: str, role: str = "principal", **more: Any) -> LedgerPrincipal:
        more.setdefault("tenant", self.tenant)
        return LedgerPrincipal(name=name, type=role, **more)

    async def publish(
        self,
        *principals: LedgerPrincipal,
        policies: Mapping[str, Mapping[str, Any]] | None = None,
        problematas: Mapping[str, Mapping[str, Any]] | None = None,
        gone: tuple[str, ...] = (),
        tenant: UUID | None = None,
    ) -> int:
        """Principals of any tenant; policies and Problematas by name of one, and names of policies that are removed."""
        of_tenant = tenant or self.tenant
        tables: dict[str, list[dict[str, Any]]] = {}
        for principal in principals:
            for table, values in principal.rows().items():
                tables.setdefault(table, []).extend(values)
        for name, spec in (policies or {}).items():
            owner = self._owners.setdefault((of_tenant, name), uuid4())
            tables.setdefault("policy_profile", []).append(policy_row(of_tenant, name, spec, owner))
        for name, spec in (problematas or {}).items():
            # The owner's key tells the kinds apart: a Problemata may have the name of its policy.
            owner = self._owners.setdefault((of_tenant, f"problemata {name}"), uuid4())
            tables.setdefault("problemata", []).append(problemata_row(of_tenant, name, spec, owner))
        tenants = {of_tenant, *(principal.tenant for principal in principals)}
        publisher = await Publisher.open(self.database.database.publisher)
        try:
            await publisher.load()
            return await publisher.publish(
                Change(
                    tenants=tuple(TenantRow(uid, self.namespace_of(uid), CREATED) for uid in tenants),
                    upserts=tables,
                    deletes={"policy_profile": [[str(of_tenant), name] for name in gone]},
                )
            )
        finally:
            await publisher.close()


@dataclass(frozen=True, slots=True)
class Requesting:
    """A principal that asks a gate."""

    client: httpx.AsyncClient
    principal: LedgerPrincipal
    profile: str = "strict"
    surface: str = "public"

    def envelope(self, **changes: Any) -> dict[str, Any]:
        """A root request of this principal. `causality` is merged, None removes a member."""
        root = new_id()
        causality: dict[str, Any] = {
            "root_task_id": root,
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": 0,
            "capability_id": "doc.write",
        }
        causality |= changes.pop("causality", {})
        made = {
            "tenant_id": str(self.principal.tenant),
            "surface_id": self.surface,
            "policy_profile_id": self.profile,
            "payload_kind": "task",
            "payload": {"text": "hello"},
            "causality": causality,
        }
        return {**made, **changes}

    def child(self, parent: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """A request below an admitted one, whose answer is given."""
        causality = {
            "root_task_id": parent["root_task_id"],
            "parent_task_id": parent["task_id"],
            "caused_by_receipt_id": parent["receipt_id"],
            "spawn_depth": parent["depth"] + 1,
            **changes.pop("causality", {}),
        }
        return self.envelope(causality=causality, **changes)

    async def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        sent = {"content-type": "application/json", **self.principal.headers}
        return await self.client.post(
            path,
            content=content,
            headers={**sent, **{name.replace("_", "-"): value for name, value in headers.items()}},
        )

    async def evaluate(self, body: Any = None, **headers: str) -> httpx.Response:
        return await self.post("/v1/evaluate", self.envelope() if body is None else body, **headers)

    def by(self, profile: str) -> "Requesting":
        return replace(self, profile=profile)


@dataclass(slots=True)
class GateClient:
    world: PublishedWorld
    client: httpx.AsyncClient
    url: str

    def requesting(self, principal: LedgerPrincipal, **more: Any) -> Requesting:
        return Requesting(self.client, principal, **more)

    async def awaited(self, requesting: Requesting) -> Requesting:
        """Waits until the gate has read of this principal and its policy."""
        async with asyncio.timeout(20):
            while True:
                answer = await requesting.post("/v1/check", requesting.envelope())
                if answer.status_code == 200 and answer.json()["reason_code"] != "POLICY_NOT_FOUND":
                    return requesting
                await asyncio.sleep(0.02)

    async def receipts(self, **where: Any) -> list[dict[str, Any]]:
        """The admission receipts of the world's tenant, as they are stored, oldest first."""
        connection = await asyncpg.connect(self.world.database.superuser)
        try:
            rows = await connection.fetch(
                "SELECT body FROM memorygate.receipt WHERE tenant = $1 AND kind = 'admission' ORDER BY stored_at, receipt_id",
                self.world.tenant,
            )
        finally:
            await connection.close()
        receipts = [json.loads(row["body"]) for row in rows]
        return [receipt for receipt in receipts if all(receipt.get(name) == value for name, value in where.items())]


def settings_of(database: AdmissionDatabase, **settings: Any) -> Settings:
    defaults = {
        "database_url": SecretStr(database.writer),
        "identity_database_url": SecretStr(database.database.identity),
        "port": free_port(),
        "deadline_ms": 10_000,
        "rate_per_second": 0,
        "identity_poll_ms": 20,
    }
    return Settings(**{**defaults, **settings})


@asynccontextmanager
async def serving_interrogate(world: PublishedWorld, **settings: Any) -> AsyncIterator[GateClient]:
    """One process of the gate inside the test's loop, on a real socket."""
    async with serving(GATE, settings_of(world.database, **settings)) as url:
        await ready(url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield GateClient(world, client, url)
