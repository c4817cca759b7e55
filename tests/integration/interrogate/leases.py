"""AsyncGate beside InterroGate in one database: leases that are issued and ended by its own verbs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg
from tests.integration.asyncgate.conftest import Tenant, task_of
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.memorygate.conftest import PASSWORD, _as, new_id

from asyncgate.database import AsyncGateDatabase
from asyncgate.lease import Lease
from asyncgate.schema import ASYNCGATE, BROKER
from legivellum.postgres.migrations import migrate


async def add_asyncgate(database: AdmissionDatabase) -> str:
    """Its schema, and how its process reaches it. A database that has the schema keeps what a test changed in it."""
    connection = await asyncpg.connect(database.superuser)
    try:
        if await connection.fetchval("SELECT to_regclass('asyncgate.task') IS NOT NULL"):
            return _as(database.ledger.owner, BROKER)
    finally:
        await connection.close()
    await migrate(ASYNCGATE, database.ledger.owner, passwords={BROKER: PASSWORD})
    return _as(database.ledger.owner, BROKER)


@dataclass(slots=True)
class LeaseIssuer:
    """Parks tasks in mailboxes of their own, so that each lease is one of the wanted task."""

    database: AsyncGateDatabase
    superuser: str
    _mailboxes: dict[tuple[UUID, str], str] = field(default_factory=dict)

    async def issue(
        self, tenant_id: UUID, task_id: str, *, holder: str, principal: str, authority: dict[str, Any], number: int = 1
    ) -> Lease:
        """A lease on the task, which is parked first; the lease that it had is over. `number`: of so many leases the last."""
        tenant = Tenant(self.database, self.superuser, tenant_id)
        if (mailbox := self._mailboxes.get((tenant_id, task_id))) is None:
            mailbox = self._mailboxes[tenant_id, task_id] = f"mailbox-{new_id().lower()}"
            names = {"principal_ai": principal, "escalation_to": (principal,), "capability": mailbox}
            await tenant.park(task_of(tenant_id, task_id, authority=json.dumps(authority), **names))
        for _ in range(number):
            await tenant.execute(
                "UPDATE asyncgate.task SET lease_until = clock_timestamp() WHERE tenant = $1 AND task_id = $2 AND lease_id IS NOT NULL",
                tenant_id, task_id,
            )  # fmt: skip
            [lease] = await tenant.lease(holder, mailbox)
        return lease

    async def release(self, tenant_id: UUID, lease_id: str, holder: str) -> None:
        outcome = await Tenant(self.database, self.superuser, tenant_id).release(lease_id, holder)
        assert outcome.name == "RELEASED"

    async def expire(self, tenant_id: UUID, lease_id: str) -> None:
        await Tenant(self.database, self.superuser, tenant_id).expire(lease_id)


@asynccontextmanager
async def issuing(database: AdmissionDatabase) -> AsyncIterator[LeaseIssuer]:
    asyncgate = await AsyncGateDatabase.connect(await add_asyncgate(database), size=1, query_timeout=10)
    try:
        yield LeaseIssuer(asyncgate, database.superuser)
    finally:
        await asyncgate.close()
