"""InterroGate's schema beside the ledger's, and requests that are decided without a policy: these tests are about what is stored."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID, uuid4

import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.memorygate.conftest import PASSWORD, LedgerDatabase, _as, make_ledger, new_id

from interrogate.database import InterrogateDatabase, Record, Recorded
from interrogate.decision import AdmittedTask
from interrogate.observation import ObservationRequest, Observed
from interrogate.schema import INTERROGATE, WRITER
from legivellum.postgres.migrations import migrate
from legivellum.receipts.receipt import Receipt, examine

EMITTER = "svc:interrogate"


@dataclass(frozen=True, slots=True)
class AdmissionDatabase:
    """A ledger with InterroGate's schema in it."""

    ledger: LedgerDatabase
    writer: str

    @property
    def database(self) -> Database:
        return self.ledger.database

    @property
    def superuser(self) -> str:
        return self.ledger.superuser


async def make_admissions(postgres: Server) -> AdmissionDatabase:
    ledger = await make_ledger(postgres)
    await migrate(INTERROGATE, ledger.owner, passwords={WRITER: PASSWORD})
    return AdmissionDatabase(ledger, _as(ledger.owner, WRITER))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admission_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def admissions(admission_database: AdmissionDatabase) -> AsyncIterator[InterrogateDatabase]:
    made = await InterrogateDatabase.connect(admission_database.writer, size=4, query_timeout=10)
    yield made
    await made.close()


@dataclass(frozen=True, slots=True)
class AdmissionTree:
    """A tenant and a root task of a test's own, and the requests that name them."""

    tenant: UUID = field(default_factory=uuid4)
    root: str = field(default_factory=new_id)

    def request(self, task_id: str | None = None, **fields: Any) -> ObservationRequest:
        """A child of the root, or the root itself where its id is named."""
        task_id = task_id or new_id()
        made = ObservationRequest(
            tenant=self.tenant, principal_key="alice", receipt_id=new_id(), digest=b"", idempotency_key=None,
            profile="strict", root_task_id=self.root, task_id=task_id,
            parent_task_id=None if task_id == self.root else self.root, capability_id="code.write",
            caused_by_receipt_id=None, rate_keys=(), lease_id=None,
        )  # fmt: skip
        made = replace(made, **fields)
        return made if made.digest else replace(made, digest=hashlib.sha256(made.receipt_id.encode()).digest())


def receipt_of(request: ObservationRequest, *, allowed: bool, **fields: Any) -> str:
    """The canonical receipt of a decision; a rejected one is filed under its own id."""
    sent = {
        "receipt_id": request.receipt_id, "kind": "admission", "phase": "accepted" if allowed else "rejected",
        "task_id": (request.task_id or request.receipt_id) if allowed else request.receipt_id,
        "parent_task_id": request.parent_task_id if allowed else None,
        "principal_ai": request.principal_key, "body": {"root": request.root_task_id}, **fields,
    }  # fmt: skip
    receipt = examine(sent, tenant=str(request.tenant), emitter=EMITTER)
    assert isinstance(receipt, Receipt), receipt
    return receipt.form.decode()


def record_of(request: ObservationRequest, observed: Observed, *, allowed: bool = True, **fields: Any) -> Record:
    """A decision on what was observed: an admitted task with its lineage, or a rejection."""
    parent = observed.parent
    admitted = None
    if allowed:
        admitted = AdmittedTask(
            task_id=request.task_id or request.receipt_id,
            root_task_id=request.root_task_id or request.receipt_id,
            parent_task_id=request.parent_task_id,
            depth=0 if parent is None else parent.depth + 1,
            budget=None,
            capability_id=request.capability_id,
            recent=(request.capability_id or "", *(parent.recent if parent else ())),
            begins=True,
        )
    made = Record(
        request=request, observed=observed, body=receipt_of(request, allowed=allowed), policy_hash="sha256:1",
        policy_revision=1, ruleset="{}", admitted=admitted, rate_tats=None, spawns_under_lease=False, forwards=(),
    )  # fmt: skip
    return replace(made, **fields)


async def decide_one(
    database: InterrogateDatabase, request: ObservationRequest, *, allowed: bool = True, **fields: Any
) -> Recorded:
    """Observe and record once, whatever is observed."""
    [answer] = await database.observe([request])
    [recorded] = await database.record([record_of(request, answer.observed, allowed=allowed, **fields)])
    return recorded


async def begin(database: InterrogateDatabase, tree: AdmissionTree) -> Recorded:
    """Admit the root."""
    recorded = await decide_one(database, tree.request(tree.root))
    assert recorded.outcome == "STORED"
    return recorded
