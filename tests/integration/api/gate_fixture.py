"""Principals for the tests of the gate, with real keys, tokens and checked packets, published as rows."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.store.worlds import row

from legivellum.identity import api_keys
from legivellum.identity.shared_secret import SharedSecret
from metagate_api.declared_files import DeclaredFiles
from metagate_api.server import serving
from metagate_api.settings import Settings
from metagate_crds import packet
from metagate_crds.canonical_json import canonical, digest
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, DeclaredRow, TenantRow

SECRET = "a-secret-of-these-tests-and-nothing-else"
ISSUER = "metagate"
SHARED_SECRET = SharedSecret(issuer=ISSUER, secret=SECRET.encode())


def shared_body(**sections: Any) -> bytes:
    """A canonical shared packet body; sections replace the defaults."""
    values: dict[str, Any] = {
        "capabilities": {"index": True},
        "environment": {"region": "eu"},
        "manifest": "prod",
        "memory_map": {"inbox": "memorygate"},
        "policy": {"max_parallel": 4},
        "polling": {"inbox": {"endpoint": "http://memorygate:8001/inbox", "interval": "5s"}},
        "profile": "worker",
        "required_env": [{"name": "db", "ref_kind": "env", "ref_name": "DB_PASSWORD", "required": True}],
        "schemas": {},
        "services": {"memorygate": {"type": "memorygate", "endpoint": "http://memorygate:8001"}},
        **sections,
    }
    return packet.assemble({name: canonical(value) for name, value in values.items()})


@dataclass(frozen=True, slots=True)
class PrincipalFixture:
    """One principal, and everything that is declared about it."""

    tenant: UUID
    name: str
    type: str = "component"
    scope: str = "Namespace"
    rights: tuple[str, ...] = ()
    suspended: bool = False
    components: tuple[str, ...] = ("*",)
    sla_seconds: int | None = 120
    body: bytes | None = field(default_factory=shared_body)
    bound: bool = True
    key_expires: datetime | None = None
    key: str = field(default_factory=lambda: api_keys.mint().key)
    subject: str = field(default_factory=lambda: f"subject-{uuid4()}")
    uid: UUID = field(default_factory=uuid4)

    @property
    def by_key(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def token(self, **kwargs: Any) -> str:
        return SHARED_SECRET.mint(self.subject, now=time.time(), **kwargs)

    @property
    def by_token(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token()}"}

    @property
    def digest(self) -> str | None:
        return None if self.body is None else digest(self.body)

    def etag(self, component: str) -> str:
        return packet.etag(self.digest or "", self.name, component)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        principal = {"tenant": str(self.tenant), "principal_key": self.name}
        expires = None if self.key_expires is None else self.key_expires.isoformat()
        made = {
            "principal": [
                row(
                    self.uid,
                    **principal,
                    type=self.type,
                    scope=self.scope,
                    rights=list(self.rights),
                    suspended=self.suspended,
                    generation=1,
                )
            ],
            "api_key": [
                row(
                    self.uid,
                    sha256=api_keys.digest_of(self.key),
                    key_id=api_keys.id_of(self.key.encode()),
                    expires_at=expires,
                    **principal,
                )
            ],
            "subject": [row(self.uid, issuer=ISSUER, subject=self.subject, **principal)],
        }
        if self.bound:
            made["binding"] = [
                row(
                    self.uid,
                    **principal,
                    name=f"{self.name}-binding",
                    digest=self.digest,
                    components=list(self.components),
                    sla_seconds=self.sla_seconds,
                    profile="worker",
                    manifest="prod",
                    generation=1,
                )
            ]
        return made


def settings_for(database: Database, **changes: object) -> Settings:
    values: dict[str, object] = {
        "database_url": SecretStr(database.api),
        "jwt_secret": SecretStr(SECRET),
        "port": 0,
        "credentials_poll_ms": 20,
        # Gate and clients share one loop and its core here; deadlines are proven on processes of their own (test_faults).
        "deadline_ms": 5_000,
        **changes,
    }
    return Settings(**values)


class GateFixture:
    """The gate at `url`, the database behind it, and the means to publish and to look."""

    def __init__(self, url: str, database: Database, publisher: Publisher, settings: Settings) -> None:
        self.url = url
        self.database = database
        self.publisher = publisher
        self.settings = settings
        self.client = httpx.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def close(self) -> None:
        await self.client.aclose()
        await self.publisher.close()

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    # ── declaring ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def publish(
        self, *people: PrincipalFixture, deletes: dict[str, list[tuple[str, ...]]] | None = None, **more: Any
    ) -> int:
        """Publish principals (and `more` rows by table) and wait until the gate has seen it."""
        upserts: dict[str, list[dict[str, Any]]] = {}
        for person in people:
            for table, rows in person.rows().items():
                upserts.setdefault(table, []).extend(rows)
        declared: list[DeclaredRow] = more.pop("declared", [])
        for table, rows in more.items():
            upserts.setdefault(table, []).extend(rows)
        created = datetime.now(UTC) - timedelta(days=1)
        tenants = {person.tenant for person in people}
        revision = await self.publisher.publish(
            Change(
                upserts=upserts,
                deletes=deletes or {},
                packets={person.digest: person.body for person in people if person.digest and person.body},
                tenants=[TenantRow(tenant, f"team-{tenant.hex[:8]}", created) for tenant in tenants],
                declared=declared,
            )
        )
        await self.wait_for_revision(revision)
        return revision

    async def wait_for_revision(self, revision: int) -> None:
        """Return when the gate says that it knows this revision."""
        for _ in range(400):
            if (await self.client.get("/readyz")).json().get("revision", 0) >= revision:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"revision {revision} was not seen")

    async def principal(self, name: str = "indexer", **kwargs: Any) -> PrincipalFixture:
        kwargs.setdefault("tenant", uuid4())
        made = PrincipalFixture(name=name, **kwargs)
        await self.publish(made)
        return made

    async def change(self, principal: PrincipalFixture, **changes: Any) -> PrincipalFixture:
        changed = replace(principal, **changes)
        await self.publish(changed)
        return changed

    # ── asking ───────────────────────────────────────────────────────────────────────────────────────────────────────

    async def boot(self, principal: PrincipalFixture, component: str = "indexer_1", **kwargs: Any) -> httpx.Response:
        headers = {**principal.by_key, **kwargs.pop("headers", {})}
        return await self.client.post("/v1/bootstrap", json={"component_key": component, **kwargs}, headers=headers)

    async def ready(self, principal: PrincipalFixture, startup_id: str, **kwargs: Any) -> httpx.Response:
        body = {"startup_id": startup_id, "build_version": "1.2.3", **kwargs}
        return await self.client.post("/v1/startup/ready", json=body, headers=principal.by_key)

    async def failed(self, principal: PrincipalFixture, startup_id: str, **kwargs: Any) -> httpx.Response:
        body = {"startup_id": startup_id, "error": "no disk", **kwargs}
        return await self.client.post("/v1/startup/failed", json=body, headers=principal.by_key)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def ask(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database.superuser)
        try:
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def sessions(self) -> int:
        [result] = await self.ask("SELECT count(*) FROM metagate.startup")
        return int(result[0])

    async def stored(self, startup_id: str) -> asyncpg.Record:
        [result] = await self.ask("SELECT * FROM metagate.startup WHERE startup_id = $1", UUID(startup_id))
        return result


@asynccontextmanager
async def gate_fixture(
    database: Database, *, declared: DeclaredFiles | None = None, **changes: object
) -> AsyncIterator[GateFixture]:
    """A gate on a socket of its own in this loop, over the database; `changes` to its settings."""
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    settings = settings_for(database, **changes)
    async with serving(settings, declared=declared) as url:
        made = GateFixture(url, database, publisher, settings)
        try:
            yield made
        finally:
            await made.close()
