"""AsyncGate where the faults play: it holds tasks in the ledger's database and follows MetaGate's, which are two servers.

No process of the ledger runs: obligations are minted before the load begins, and AsyncGate stores its own receipts.
"""

import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

from tests.faults import task_promises
from tests.faults.database_sides import DatabaseSide, GateHarness, GateTrial, database_server
from tests.faults.gate import ServedGate, serving_process, through
from tests.faults.task_load import MINTER, TaskLoad
from tests.faults.task_promises import StoredTaskReceipt
from tests.faults.wire import KeptConnections
from tests.integration.api.processes import free_port
from tests.integration.asyncgate.conftest import TaskDatabase, append, make_tasks, receipt_body
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from asyncgate.task import EMITTER
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
COMMAND = [sys.executable, "-c", "from asyncgate.main import main; main()", "serve"]
MINTED = 300
"""Obligations of each tenant in a trial: the load parks five a second of each."""


@dataclass
class TaskHarness(GateHarness):
    database: TaskDatabase

    @asynccontextmanager
    async def serving(self, *, workers: int = 2, **environment: str) -> AsyncIterator[ServedGate]:
        port = free_port()
        environ = {
            "ASYNCGATE_DATABASE_URL": through(self.database.broker, self.proxy.port),
            "ASYNCGATE_IDENTITY_DATABASE_URL": self.identity,
            "ASYNCGATE_PORT": str(port),
            "ASYNCGATE_WORKERS": str(workers),
            "ASYNCGATE_DEADLINE_MS": "500",
            "ASYNCGATE_QUEUE": "32",
            "ASYNCGATE_PASS_SECONDS": "1",
            "ASYNCGATE_RATE_PER_SECOND": "0",
            "ASYNCGATE_LOG_FORMAT": "json",
            **environment,
        }
        async with serving_process(COMMAND, environ, port=port, workers=workers) as gate:
            yield gate

    async def prepare(self, trial: GateTrial) -> None:
        load = trial.load
        assert isinstance(load, TaskLoad)
        for tenant in {principal.tenant for principal in self.principals}:
            names = [new_id() for _ in range(MINTED)]
            bodies = [
                receipt_body(tenant, MINTER, phase="accepted", task_id=name, principal_ai=MINTER, recipient_ai=EMITTER)
                for name in names
            ]
            for start in range(0, MINTED, 100):
                assert set(await append(self.database.superuser, bodies[start : start + 100])) == {"STORED"}
            load.minted[tenant] = deque(names)

    def make_load(self, line: KeptConnections, row: str, pause: Callable[[int], float]) -> TaskLoad:
        return TaskLoad(line, self.principals, row, pause)

    async def stored(self, prefix: str) -> tuple[list[StoredTaskReceipt], str]:
        async with self.sides["ledger"].superuser() as connection:
            rows = await connection.fetch(
                "SELECT tenant::text, body FROM memorygate.receipt ORDER BY root_task_id, position"
            )
        receipts = [(row["tenant"], json.loads(row["body"])) for row in rows]
        text = "\n".join(row["body"] for row in rows)
        return [_stored(tenant, receipt) for tenant, receipt in receipts if receipt["emitter"] == EMITTER], text

    def own(self, load: TaskLoad, stored: Sequence[StoredTaskReceipt]) -> list[StoredTaskReceipt]:
        parked = {life.task_id for life in load.lives}
        return [receipt for receipt in stored if receipt.task_id in parked]

    broken = staticmethod(task_promises.broken)
    figures = staticmethod(task_promises.figures)


def _stored(tenant: str, receipt: dict[str, object]) -> StoredTaskReceipt:
    body = receipt.get("body")
    members = body if isinstance(body, dict) else {}
    about = members.get("claimed_by") or members.get("escalated_by") or receipt["recipient_ai"]
    if receipt["phase"] in {"accepted", "queued"}:
        about = receipt["principal_ai"]
    number = receipt.get("attempt") if receipt["phase"] == "lease_issued" else members.get("lease_number")
    return StoredTaskReceipt(
        str(receipt["receipt_id"]),
        f"{tenant}/{about}",
        str(receipt["task_id"]),
        str(receipt["phase"]),
        number if isinstance(number, int) else None,
        members.get("lease_id"),
    )


@asynccontextmanager
async def task_harness() -> AsyncIterator[TaskHarness]:
    async with database_server() as ledger, database_server() as metagate:
        database = await make_tasks(ledger[1])
        published = await metagate[1].make()
        sides = {
            "ledger": DatabaseSide(
                "ledger", ledger[0], ledger[2], database.superuser, "asyncgate_broker", "asyncgate.task"
            ),
            "metagate": DatabaseSide(
                "metagate", metagate[0], metagate[2], published.superuser, "metagate_identity", "metagate.principal"
            ),
        }
        tenants = [uuid4(), uuid4()]
        types = {MINTER: "principal", "worker-1": "worker", "worker-2": "worker"}
        principals = [LedgerPrincipal(tenant, name, type_) for tenant in tenants for name, type_ in types.items()]
        publisher = await Publisher.open(published.publisher)
        upserts: dict[str, list[dict[str, object]]] = {}
        for principal in principals:
            for table, values in principal.rows().items():
                upserts.setdefault(table, []).extend(values)
        try:
            await publisher.load()
            await publisher.publish(
                Change(
                    tenants=tuple(TenantRow(one, f"team-{one.hex[:8]}", CREATED) for one in tenants), upserts=upserts
                )
            )
        finally:
            await publisher.close()
        harness = TaskHarness(sides, through(published.identity, metagate[2].port), principals, database)
        async with harness.serving() as gate:
            harness.gate = gate
            yield harness
