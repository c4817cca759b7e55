"""AsyncGate's schema beside the ledger's, and tasks as its parser makes them: these tests are about what is stored."""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.memorygate.conftest import PASSWORD, LedgerDatabase, _as, make_ledger, new_id, rows

from asyncgate.database import AsyncGateDatabase, BookkeepingCounts
from asyncgate.lease import (
    Claim,
    EndedTask,
    EscalationRequest,
    Lease,
    LeaseRequest,
    ReleaseRequest,
    RenewRequest,
    RevokeRequest,
)
from asyncgate.outcomes import EndOutcome, ParkOutcome, VerbOutcome
from asyncgate.schema import ASYNCGATE, BROKER
from asyncgate.task import EMITTER, LeaseTerms, ParkedTask, Parking, ParkingBatch, Task, TaskAdmission
from legivellum.base.canonical_json import canonical
from legivellum.postgres.migrations import migrate
from legivellum.receipts.receipt import Receipt, examine

TERMS = LeaseTerms(ttl_seconds=60, max_ttl_seconds=900, max_renewals=10, max_lifetime_seconds=7200)


@dataclass(frozen=True, slots=True)
class TaskDatabase:
    """A ledger with AsyncGate's schema in it."""

    ledger: LedgerDatabase
    broker: str

    @property
    def database(self) -> Database:
        return self.ledger.database

    @property
    def superuser(self) -> str:
        return self.ledger.superuser


async def make_tasks(postgres: Server) -> TaskDatabase:
    ledger = await make_ledger(postgres)
    await migrate(ASYNCGATE, ledger.owner, passwords={BROKER: PASSWORD})
    return TaskDatabase(ledger, _as(ledger.owner, BROKER))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def task_database(postgres: Server) -> AsyncIterator[TaskDatabase]:
    made = await make_tasks(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def connected(task_database: TaskDatabase) -> AsyncIterator[AsyncGateDatabase]:
    made = await AsyncGateDatabase.connect(task_database.broker, size=4, query_timeout=10)
    yield made
    await made.close()


def receipt_body(tenant: UUID, emitter: str, **fields: Any) -> str:
    """A receipt in its canonical form."""
    receipt = examine({"receipt_id": new_id(), **fields}, tenant=str(tenant), emitter=emitter)
    assert isinstance(receipt, Receipt), receipt
    return receipt.form.decode()


async def append(where: str | asyncpg.Connection, bodies: Sequence[str], right: str = "open-for-others") -> list[str]:
    """Store receipts as the ledger's HTTP endpoint does; the outcomes."""
    fields = [json.loads(body) for body in bodies]
    empty = [""] * len(bodies)
    connection = await asyncpg.connect(where) if isinstance(where, str) else where
    try:
        answers = await connection.fetch(
            "SELECT * FROM memorygate.append($1::text[]::uuid[], $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) ORDER BY ordinal",
            *([item[name] for item in fields] for name in ("tenant_id", "receipt_id", "kind", "phase")),
            [right] * len(bodies),
            *([item.get(name, "") for item in fields] for name in ("emitter", "task_id", "parent_task_id", "obligation_id",
                                                                   "principal_ai", "recipient_ai", "status", "caused_by_receipt_id")),
            empty, [b""] * len(bodies), empty, list(bodies), [hashlib.sha256(body.encode()).digest() for body in bodies], empty,
        )  # fmt: skip
    finally:
        if isinstance(where, str):
            await connection.close()
    return [row["outcome"] for row in answers]


def task_of(tenant: UUID, task_id: str | None = None, **fields: Any) -> Task:
    """A task as the parser makes it; `fields` of Task."""
    task_id = task_id or new_id()
    values: dict[str, Any] = {
        "tenant": tenant, "task_id": task_id, "obligation_id": task_id, "principal_ai": "alice", "capability": "default",
        "not_before": None, "parent_task_id": None, "task_type": None, "task_summary": None, "authority": None, "needs": (),
        "terms": TERMS, "max_leases": 32, "escalation_to": ("alice",), **fields,
    }  # fmt: skip
    document = {
        "task_id": task_id, "obligation_id": values["obligation_id"], "principal_ai": values["principal_ai"],
        "capability": values["capability"], "needs": list(values["needs"]), "payload_pointer": "s3://jobs/1",
        "max_leases": values["max_leases"], "escalation_to": list(values["escalation_to"]),
        "authority": None if values["authority"] is None else json.loads(values["authority"]),
        "not_before": None if values["not_before"] is None else values["not_before"].isoformat(),
    }  # fmt: skip
    form = canonical(document)
    values.setdefault("document", form.decode())
    values.setdefault("digest", hashlib.sha256(form).digest())
    return Task(**values)


@dataclass(slots=True)
class Tenant:
    """A tenant of a test's own: what its principals ask of AsyncGate, and what the ledger holds of it."""

    database: AsyncGateDatabase
    dsn: str
    uid: UUID = field(default_factory=uuid4)

    async def mint(self, *tasks: Task, minter: str = "planner", recipient: str = EMITTER) -> None:
        bodies = [
            receipt_body(self.uid, minter, phase="accepted", task_id=task.task_id, obligation_id=task.obligation_id,
                         principal_ai=task.principal_ai, recipient_ai=recipient, parent_task_id=task.parent_task_id)
            for task in tasks
        ]  # fmt: skip
        assert set(await append(self.dsn, bodies)) <= {"STORED"}

    async def mint_elsewhere(self, *obligation_ids: str, custodian: str = "bob") -> None:
        await self.mint(*(task_of(self.uid, name) for name in obligation_ids), recipient=custodian)

    async def close_elsewhere(self, obligation_id: str, custodian: str = "bob", status: str = "success") -> None:
        """As a person does over HTTP."""
        body = receipt_body(
            self.uid, custodian, phase="complete", task_id=obligation_id, principal_ai="alice", status=status, outcome_kind="none",
            completed_at="2027-01-01T00:00:00Z",
        )  # fmt: skip
        assert await append(self.dsn, [body], "custodian") == ["STORED"]

    async def enqueue(
        self, *tasks: Task, all_or_none: bool = False, admission: TaskAdmission | None = None, minter: str = "planner"
    ) -> list[VerbOutcome[ParkOutcome, ParkedTask]]:
        batch = ParkingBatch(tuple(Parking(task, minter, admission) for task in tasks), all_or_none)
        [outcomes] = await self.database.enqueue([batch])
        return outcomes

    async def park(self, *tasks: Task, **more: Any) -> list[ParkedTask]:
        """Mint and park."""
        await self.mint(*tasks)
        outcomes = await self.enqueue(*tasks, **more)
        assert [outcome.name for outcome in outcomes] == ["PARKED"] * len(tasks)
        return [outcome.value for outcome in outcomes if outcome.value is not None]

    async def lease(self, holder: str = "worker", *capabilities: str, most: int = 1, **more: Any) -> tuple[Lease, ...]:
        request = LeaseRequest(self.uid, holder, capabilities or ("default",), most, **more)
        [leases] = await self.database.lease([request])
        return leases

    def claim(self, lease_id: str, holder: str = "worker", **fields: Any) -> Claim:
        values = {"status": "success", "outcome_kind": "none", **fields}
        return Claim(self.uid, holder, lease_id, values, hashlib.sha256(canonical(values)).digest())

    async def complete(
        self, lease_id: str, holder: str = "worker", **fields: Any
    ) -> VerbOutcome[EndOutcome, EndedTask]:
        [outcome] = await self.database.complete([self.claim(lease_id, holder, **fields)])
        return outcome

    async def escalate(
        self, lease_id: str, to: str = "alice", holder: str = "worker", reason: str = "cannot"
    ) -> VerbOutcome[EndOutcome, EndedTask]:
        digest = hashlib.sha256(f"{to}/{reason}".encode()).digest()
        request = EscalationRequest(self.uid, holder, lease_id, "capability", reason, to, digest)
        [outcome] = await self.database.escalate([request])
        return outcome

    async def renew(
        self, lease_id: str, holder: str = "worker", ttl_seconds: int | None = None
    ) -> VerbOutcome[Any, Any]:
        [outcome] = await self.database.renew([RenewRequest(self.uid, holder, lease_id, ttl_seconds)])
        return outcome

    async def release(self, lease_id: str, holder: str = "worker", **more: Any) -> VerbOutcome[Any, Any]:
        [outcome] = await self.database.release([ReleaseRequest(self.uid, holder, lease_id, **more)])
        return outcome

    def revocation(self, task_id: str, by: str = "alice", **more: Any) -> RevokeRequest:
        return RevokeRequest(self.uid, task_id, by, **more)

    async def keep_books(self) -> BookkeepingCounts | None:
        return await self.database.keep_books(archive_days=30)

    async def expire(self, lease_id: str) -> None:
        """Let the time of a lease be over, as if its holder had slept."""
        await self.execute(
            "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 second' WHERE tenant = $1 AND lease_id = $2",
            self.uid, lease_id,
        )  # fmt: skip

    async def execute(self, statement: str, *values: Any) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement, *values)
        finally:
            await connection.close()

    async def receipts(self, task_id: str | None = None) -> list[dict[str, Any]]:
        """Those of AsyncGate, oldest first."""
        stored = await rows(
            self.dsn,
            "SELECT body FROM memorygate.receipt WHERE tenant = $1 AND ($2::text IS NULL OR task_id = $2) ORDER BY stored_at, receipt_id",
            self.uid, task_id,
        )  # fmt: skip
        receipts = [json.loads(body) for (body,) in stored]
        return [receipt for receipt in receipts if receipt["emitter"] == EMITTER]

    async def phases(self, task_id: str | None = None) -> list[str]:
        return [receipt["phase"] for receipt in await self.receipts(task_id)]


@pytest.fixture
def tenant(connected: AsyncGateDatabase, task_database: TaskDatabase) -> Tenant:
    return Tenant(connected, task_database.superuser)
