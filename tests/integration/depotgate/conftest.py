"""DepotGate's schema beside the ledger's and AsyncGate's, and uploads whose bytes lie in no store: these tests are about rows and receipts."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.asyncgate.conftest import TaskDatabase, make_tasks
from tests.integration.memorygate.conftest import PASSWORD, _as, new_id

from depotgate.artifact import Deposit, Upload
from depotgate.database import DepotGateDatabase
from depotgate.schema import DEPOTGATE, KEEPER
from legivellum.postgres.migrations import migrate

LOCATION = "https://depot.example"


@dataclass(frozen=True, slots=True)
class DepotDatabase:
    """A ledger with the schemas of AsyncGate and DepotGate in it."""

    tasks: TaskDatabase
    keeper: str

    @property
    def database(self) -> Database:
        return self.tasks.database

    @property
    def superuser(self) -> str:
        return self.tasks.superuser


async def make_depot(postgres: Server) -> DepotDatabase:
    tasks = await make_tasks(postgres)
    owner = tasks.ledger.owner
    await migrate(DEPOTGATE, owner, passwords={KEEPER: PASSWORD})
    return DepotDatabase(tasks, _as(owner, KEEPER))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def depot_database(postgres: Server) -> AsyncIterator[DepotDatabase]:
    made = await make_depot(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def depot(depot_database: DepotDatabase) -> AsyncIterator[DepotGateDatabase]:
    made = await DepotGateDatabase.connect(depot_database.keeper, size=4, query_timeout=10)
    yield made
    await made.close()


def upload_of(tenant: UUID, content: bytes = b"", **fields: Any) -> Upload:
    """An upload of some content by alice; `fields` of Deposit."""
    deposit = Deposit(**{"tenant": tenant, "depositor": "alice", "role": "input", "media_type": "text/plain", **fields})
    return Upload(deposit, f"{tenant}/{new_id()}", hashlib.sha256(content).hexdigest(), len(content))
