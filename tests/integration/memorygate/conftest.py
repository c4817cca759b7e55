"""A ledger beside MetaGate's tables in one database, and a gate whose callers say themselves who they are."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.databases import Database, Server
from ulid import ULID

from legivellum.gate.composition import application
from legivellum.gate.process import GateProcess
from legivellum.identity.caller import AuthFailure, Caller, Credential, FailureReason
from memorygate.gate import GATE
from memorygate.ledger import MemoryGateDatabase
from memorygate.ledger_gate import LedgerProcess
from memorygate.schema import AUDITOR, WRITER, migrate_ledger
from memorygate.settings import Settings

PASSWORD = "of-the-tests"


@dataclass(frozen=True, slots=True)
class LedgerDatabase:
    database: Database
    writer: str
    auditor: str

    @property
    def owner(self) -> str:
        return self.database.owner

    @property
    def superuser(self) -> str:
        return self.database.superuser


def _as(dsn: str, role: str) -> str:
    before, _, rest = dsn.partition("://")
    return f"{before}://{role}:{PASSWORD}@{rest.partition('@')[2]}"


async def make_ledger(postgres: Server) -> LedgerDatabase:
    database = await postgres.make()
    await migrate_ledger(database.owner, passwords={WRITER: PASSWORD, AUDITOR: PASSWORD})
    return LedgerDatabase(database, _as(database.owner, WRITER), _as(database.owner, AUDITOR))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ledger_database(postgres: Server) -> AsyncIterator[LedgerDatabase]:
    made = await make_ledger(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_ledger(postgres: Server) -> AsyncIterator[LedgerDatabase]:
    made = await make_ledger(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ledger(ledger_database: LedgerDatabase) -> AsyncIterator[MemoryGateDatabase]:
    made = await MemoryGateDatabase.connect(ledger_database.writer, size=4, query_timeout=10)
    yield made
    await made.close()


class SelfDeclared:
    """An authenticator's double: the header `X-Me` holds who speaks, as JSON."""

    async def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller | AuthFailure:
        output = dict(headers).get(b"x-me")
        if output is None:
            return AuthFailure(FailureReason.MISSING, "No credential.")
        document = json.loads(output)
        return Caller(
            tenant=UUID(document["tenant"]),
            namespace="team",
            principal_key=document["name"],
            type=document["type"],
            scope=document["scope"],
            rights=frozenset(document["rights"]),
            suspended=document["suspended"],
            credential=Credential("key", "", "0" * 64, None),
            pod=None,
            expires_at=None,
        )


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who talks to the gate."""

    client: httpx.AsyncClient
    tenant: UUID
    name: str
    type: str = "principal"
    scope: str = "Namespace"
    rights: tuple[str, ...] = ()
    suspended: bool = False

    @property
    def headers(self) -> dict[str, str]:
        principal = {
            "tenant": str(self.tenant),
            "name": self.name,
            "type": self.type,
            "scope": self.scope,
            "rights": self.rights,
            "suspended": self.suspended,
        }
        return {"X-Me": json.dumps(principal)}

    async def post(self, body: Any, path: str = "/receipts") -> httpx.Response:
        return await self.client.post(path, json=body, headers=self.headers)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.client.get(path, params=params or None, headers=self.headers)

    async def accepted(self, **fields: Any) -> httpx.Response:
        return await self.post(accepted(**{"principal_ai": self.name, **fields}))

    async def complete(self, **fields: Any) -> httpx.Response:
        return await self.post(complete(**{"principal_ai": self.name, **fields}))

    async def escalate(self, to: str, **fields: Any) -> httpx.Response:
        return await self.post(escalate(to, **{"principal_ai": self.name, **fields}))

    async def inbox(self, **params: Any) -> list[str]:
        answer = await self.get("/inbox", **params)
        assert answer.status_code == 200, answer.text
        return [item["obligation_id"] for item in answer.json()["items"]]


def new_id() -> str:
    return str(ULID())


def accepted(**fields: Any) -> dict[str, Any]:
    return {"receipt_id": new_id(), "phase": "accepted", **fields}


def complete(**fields: Any) -> dict[str, Any]:
    return {
        "receipt_id": new_id(),
        "phase": "complete",
        "status": "success",
        "outcome_kind": "none",
        "completed_at": "2027-01-01T00:00:00Z",
        **fields,
    }


def escalate(to: str, **fields: Any) -> dict[str, Any]:
    return {
        "receipt_id": new_id(),
        "phase": "escalate",
        "escalation_class": "capability",
        "escalation_reason": "somebody else knows how",
        "escalation_to": to,
        **fields,
    }


@dataclass(slots=True)
class RunningLedger:
    """A gate inside the test's loop, without a socket."""

    process: LedgerProcess
    client: httpx.AsyncClient
    tenant: UUID = field(default_factory=uuid4)

    def peer(self, name: str = "alice", role: str = "principal", **more: Any) -> Peer:
        more.setdefault("tenant", self.tenant)
        return Peer(self.client, name=name, type=role, **more)

    def stranger(self, name: str = "alice", role: str = "principal", **more: Any) -> Peer:
        """Somebody of another tenant."""
        return self.peer(name, role, tenant=uuid4(), **more)

    def witness(self, **more: Any) -> Peer:
        return self.peer("metagate", "service", rights=("witness",), **more)


def process_on(ledger: MemoryGateDatabase, **settings: Any) -> LedgerProcess:
    """A gate's process on a ledger that is connected already, whose callers say themselves who they are."""
    chosen = Settings(database_url="postgresql://unused", **settings)
    # Callers say themselves who they are, so every recipient is somebody.
    process = GateProcess(
        GATE, chosen, authenticator=SelfDeclared(), connected=ledger, is_principal=lambda _tenant, _name: True
    )
    process.status.ready = process.status.up = process.status.identity = True
    return process


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def module_client(ledger: MemoryGateDatabase) -> AsyncIterator[tuple[LedgerProcess, httpx.AsyncClient]]:
    process = process_on(ledger, deadline_ms=10_000, rate_per_second=0)
    transport = httpx.ASGITransport(application(GATE, process).asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://ledger.test") as client:
        yield process, client


@pytest.fixture
def gate(module_client: tuple[LedgerProcess, httpx.AsyncClient]) -> RunningLedger:
    """The gate, with a tenant of this test's own."""
    return RunningLedger(*module_client)


async def rows(dsn: str, query: str, *args: Any) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query, *args)]
    finally:
        await connection.close()
