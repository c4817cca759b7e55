"""InterroGate where the faults play: the ledger's database and MetaGate's are two servers, each behind a proxy of its
own, so that a fault befalls one of them; the gate runs as it is served, with two workers.
"""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
from tests.databases import ROLES, Server
from tests.faults import admission_promises, fairness, results
from tests.faults.admission_load import AdmissionLoad
from tests.faults.admission_promises import StoredAdmission
from tests.faults.fault_harness import HISTORIES, Postgres, Trial
from tests.faults.gate import ServedGate, serving_process, through
from tests.faults.load import backing_off
from tests.faults.promises import Bounds
from tests.faults.proxy import Proxy
from tests.faults.stalls import Stalls
from tests.faults.wire import KeptConnections
from tests.integration.api.processes import free_port
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.gate_fixture import OPEN_POLICY, PublishedWorld
from tests.integration.memorygate.conftest import LedgerDatabase
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

COMMAND = [sys.executable, "-c", "from interrogate.main import main; main()", "serve"]


@dataclass(slots=True)
class DatabaseSide:
    """One of the two databases. `role`: that of the gate's sessions there. `table`: what its statements read."""

    name: str
    postgres: Postgres
    proxy: Proxy
    dsn: str
    role: str
    table: str

    @asynccontextmanager
    async def superuser(self) -> AsyncIterator[asyncpg.Connection]:
        """As soon as the server takes connections: after a crash it recovers first, and may still end what it takes."""
        async with asyncio.timeout(20):
            while True:
                try:
                    connection = await asyncpg.connect(self.dsn)
                    break
                except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                    await asyncio.sleep(0.05)
        try:
            yield connection
        finally:
            await connection.close(timeout=2)

    async def backends(self) -> list[int]:
        """Process ids of the gate's backends, idle ones first."""
        async with self.superuser() as connection:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE usename = $1 ORDER BY (state = 'idle') DESC, pid", self.role
            )
            return [row["pid"] for row in rows]


@dataclass(slots=True)
class AdmissionHarness:
    sides: dict[str, DatabaseSide]
    database: AdmissionDatabase
    identity: str
    """The role that follows MetaGate, through the proxy."""
    world: PublishedWorld
    principals: list[LedgerPrincipal]
    gate: ServedGate = field(init=False)

    @property
    def proxy(self) -> Proxy:
        """Whose connections are counted."""
        return self.sides["ledger"].proxy

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

    async def count_receipts(self) -> int:
        async with self.sides["ledger"].superuser() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM memorygate.receipt"))

    async def trial(
        self,
        row: str,
        fault: Callable[["AdmissionTrial"], Awaitable[None]],
        *,
        bounds: Bounds | None = None,
        pause: Callable[[int], float] = backing_off,
    ) -> "AdmissionTrial":
        """Play one row. Raises AssertionError with what broke which promise, and where the history lies."""
        trial = AdmissionTrial(self, row, bounds or Bounds(), pause, (self.gate,))
        async with trial.playing(publishing=False):
            await trial.warm(12)
            trial.fault_began = trial.load.now
            try:
                await fault(trial)
            finally:
                trial.fault_ended = trial.load.now
            await trial.recovered(calm=0.8)
        await trial.judge()
        return trial


@dataclass(slots=True)
class AdmissionTrial(Trial):
    def __post_init__(self) -> None:
        line = KeptConnections(*(gate.address for gate in self.gates))
        self.load = AdmissionLoad(line, self.harness.principals, self.row, self.pause)
        self.stalls = Stalls(self._watched)

    async def judge(self) -> None:
        history = await self.collect_history()
        asked_for = {key for life in self.load.lives for key in (life.root, life.child)}
        mine = [admission for admission in history.stored if admission.key in asked_for]
        self.history = replace(history, stored=mine)
        self.figures = admission_promises.figures(self.history)
        result = admission_promises.broken(self.history, self.bounds)
        path = HISTORIES / f"{self.row}.jsonl"
        self.history.write(path)
        fairness.remember(self.starved, hard=bool(set(result) - fairness.OF_TIME))
        results.record(self.row, self.figures, broken=sorted(result), machine_kept_away=round(self.starved, 2))
        if result:
            sentences = "\n".join(f"  {name}: {len(says)} times, first: {says[:3]}" for name, says in result.items())
            raise AssertionError(f"{self.row} broke promises ({path}):\n{sentences}\n  {self.figures}")


@asynccontextmanager
async def database_server(**settings: str) -> AsyncIterator[tuple[Postgres, Server, Proxy]]:
    """A durable PostgreSQL with the roles, and a proxy before it."""
    directory = Path(tempfile.mkdtemp(prefix="metagate-faults-"))
    postgres = Postgres.launcher(directory, settings=settings)
    await postgres.start()
    proxy = await Proxy(("127.0.0.1", postgres.embedded.port)).start()
    try:
        embedded = postgres.embedded
        passwords = {role: embedded.password(role) for role in ROLES}
        server = Server(embedded.dsn("postgres", database="postgres", tcp=True), passwords, embedded)
        await server.make_template()
        yield postgres, server, proxy
    finally:
        with suppress(OSError):
            await proxy.close()
        await postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


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
        harness = AdmissionHarness(sides, database, identity, world, principals)
        async with harness.serving() as gate:
            harness.gate = gate
            yield harness
