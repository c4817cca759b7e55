"""InterroGate where the faults play: the ledger's database and MetaGate's are two servers, each behind a proxy of its
own, so that a fault befalls one of them; the gate runs as it is served, with two workers.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

from tests.faults import admission_promises
from tests.faults.admission_load import AdmissionLoad
from tests.faults.admission_promises import StoredAdmission
from tests.faults.database_sides import DatabaseSide, GateHarness, database_server
from tests.faults.gate import ServedGate, serving_process, through
from tests.faults.wire import KeptConnections
from tests.integration.api.processes import free_port
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import OPEN_POLICY, PublishedWorld
from tests.integration.memorygate.conftest import LedgerDatabase
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

COMMAND = [sys.executable, "-c", "from interrogate.main import main; main()", "serve"]


@dataclass
class AdmissionHarness(GateHarness):
    database: AdmissionDatabase
    world: PublishedWorld

    @asynccontextmanager
    async def serving(self, *, workers: int = 2, **environment: str) -> AsyncIterator[ServedGate]:
        """A gate that knows its principals and their policy."""
        port = free_port()
        environ = {
            "INTERROGATE_DATABASE_URL": through(self.database.writer, self.proxy.port),
            "INTERROGATE_IDENTITY_DATABASE_URL": self.identity,
            "INTERROGATE_PORT": str(port),
            "INTERROGATE_WORKERS": str(workers),
            "INTERROGATE_DEADLINE_MS": "500",
            "INTERROGATE_QUEUE": "32",
            "INTERROGATE_RATE_PER_SECOND": "0",
            "INTERROGATE_LOG_FORMAT": "json",
            **environment,
        }
        async with serving_process(COMMAND, environ, port=port, workers=workers) as gate:
            yield gate

    async def stored(self, _prefix: str) -> tuple[list[StoredAdmission], str]:
        """The decisions on this harness's principals, and all text in which no key may stand."""
        async with self.sides["ledger"].superuser() as connection:
            rows = await connection.fetch(
                "SELECT tenant::text, body FROM memorygate.receipt WHERE kind = 'admission' AND phase <> 'escalate'"
            )
        admissions = []
        for row in rows:
            receipt = json.loads(row["body"])
            admissions.append(
                StoredAdmission(
                    receipt["receipt_id"],
                    f"{row['tenant']}/{receipt['principal_ai']}",
                    receipt["body"]["claimed"]["causality"]["task_id"],
                    receipt["body"]["outcome"],
                )
            )
        return admissions, "\n".join(row["body"] for row in rows)

    def make_load(self, line: KeptConnections, row: str, pause: Callable[[int], float]) -> AdmissionLoad:
        return AdmissionLoad(line, self.principals, row, pause)

    def own(self, load: AdmissionLoad, stored: Sequence[StoredAdmission]) -> list[StoredAdmission]:
        asked_for = {key for life in load.lives for key in (life.root, life.child)}
        return [admission for admission in stored if admission.key in asked_for]

    broken = staticmethod(admission_promises.broken)
    figures = staticmethod(admission_promises.figures)


@asynccontextmanager
async def admission_harness() -> AsyncIterator[AdmissionHarness]:
    async with database_server() as ledger, database_server() as metagate:
        database = await make_admissions(ledger[1])
        published = await metagate[1].make()
        # The world is published in the other server: of this one nothing but the publisher's address is used.
        world = PublishedWorld(AdmissionDatabase(LedgerDatabase(published, "", ""), ""))
        sides = {
            "ledger": DatabaseSide(
                "ledger", ledger[0], ledger[2], database.superuser, "interrogate_writer", "interrogate.root"
            ),
            "metagate": DatabaseSide(
                "metagate", metagate[0], metagate[2], published.superuser, "metagate_identity", "metagate.principal"
            ),
        }
        identity = through(published.identity, metagate[2].port)
        tenants: list[UUID] = [world.tenant, uuid4()]
        principals = [LedgerPrincipal(tenants[number % 2], f"worker-{number}", "principal") for number in range(4)]
        for tenant in tenants:
            await world.publish(*principals, policies={"strict": OPEN_POLICY}, tenant=tenant)
        harness = AdmissionHarness(sides, identity, principals, database, world)
        async with harness.serving() as gate:
            harness.gate = gate
            yield harness
