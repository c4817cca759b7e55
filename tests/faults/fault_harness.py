"""Where the faults play: a durable PostgreSQL of our own, a proxy before it, the gate behind the proxy, a live world.

`trial` is one row: load, fault, recovery, settling, and the one check of everything that was promised. While it runs,
editions of the world are published every half second, so that a mixed packet would have something to mix.
"""

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from tests.databases import ROLES, Database, Server
from tests.faults import fairness, results, signals
from tests.faults.gate import ServedGate, serving, through
from tests.faults.history import RecordedCall, RequestHistory, Sample, StoredSession
from tests.faults.load import FaultLoad, backing_off, client_of
from tests.faults.promises import Bounds, FaultFigures, broken, figures, recovery
from tests.faults.proxy import Proxy
from tests.faults.stalls import Stalls
from tests.faults.wire import KeptConnections
from tests.integration.api.gate_fixture import SECRET, PrincipalFixture, shared_body
from tests.integration.api.processes import free_port

from metagate_postgres import EmbeddedPostgres
from metagate_store.errors import StoreError
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

HISTORIES = Path(__file__).parents[2] / "build" / "faults"
SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "60",
    "synchronous_commit": "on",
    "max_wal_size": "256MB",
    # Nobody but the commit itself writes the log: one that does not wait for it is lost in a crash, and seen.
    "wal_writer_delay": "10s",
}


def edition(principal: PrincipalFixture, number: int) -> PrincipalFixture:
    """The principal's world in its `number`-th edition: each section says which it is."""
    body = shared_body(
        environment={"edition": number, "tenant": str(principal.tenant)},
        capabilities={"edition": number},
        services={"memorygate": {"type": "memorygate", "endpoint": f"http://memorygate-{number}"}},
    )
    return replace(principal, body=body)


@dataclass(slots=True)
class Postgres:
    """A server that can be killed and comes back at the same port."""

    embedded: EmbeddedPostgres
    make: Callable[[], EmbeddedPostgres]

    @classmethod
    def launcher(
        cls, directory: Path, kind: type[EmbeddedPostgres] = EmbeddedPostgres, settings: Mapping[str, str] | None = None
    ) -> "Postgres":
        directory.chmod(0o755)
        port = free_port()

        def make() -> EmbeddedPostgres:
            return kind(directory, port=port, settings={**SETTINGS, **(settings or {})})

        return cls(make(), make)

    async def start(self) -> None:
        self.embedded = self.make()
        await asyncio.to_thread(self.embedded.start)

    async def stop(self) -> None:
        """Cleanly (SIGINT: fast shutdown), or what is left of one that was killed."""
        await asyncio.to_thread(self.embedded.stop)

    @property
    def running(self) -> bool:
        pid = self.embedded.server_pid
        return pid is not None and signals.alive(pid)

    @property
    def pid(self) -> int:
        pid = self.embedded.server_pid
        assert pid is not None
        return pid


@dataclass(slots=True)
class FaultHarness:
    postgres: Postgres
    database: Database
    proxy: Proxy
    gate: ServedGate
    principals: list[PrincipalFixture]
    editions: int = 0

    # ── the world ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def publish(self, publisher: Publisher) -> None:
        """The next edition for everybody, in one publish."""
        self.editions += 1
        people = [edition(principal, self.editions) for principal in self.principals]
        upserts: dict[str, list[dict[str, Any]]] = {}
        for person in people:
            for table, rows in person.rows().items():
                upserts.setdefault(table, []).extend(rows)
        created = datetime.now(UTC) - timedelta(days=1)
        await publisher.publish(
            Change(
                upserts=upserts,
                packets={person.digest: person.body for person in people if person.digest and person.body},
                tenants=[TenantRow(item, f"team-{item.hex[:8]}", created) for item in {c.tenant for c in people}],
            )
        )

    async def keep_publishing(self, pause: float = 0.5) -> None:
        """A writer that comes back after whatever happens to the database. Seconds between editions."""
        while True:
            with contextlib.suppress(StoreError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                publisher = await Publisher.open(self.database.publisher)
                try:
                    await publisher.load()
                    while True:
                        await self.publish(publisher)
                        await asyncio.sleep(pause)
                finally:
                    with contextlib.suppress(Exception):
                        await publisher.close()
            await asyncio.sleep(0.3)

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def superuser(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.database.superuser)
        try:
            yield connection
        finally:
            await connection.close(timeout=2)

    async def backends(self) -> list[int]:
        """Process ids of the gate's backends, idle ones first."""
        async with self.superuser() as connection:
            rows = await connection.fetch(
                "SELECT pid FROM pg_stat_activity WHERE usename = 'metagate_api' ORDER BY (state = 'idle') DESC, pid"
            )
            return [row["pid"] for row in rows]

    async def stored(self, prefix: str) -> tuple[list[StoredSession], str]:
        async with self.superuser() as connection:
            rows = await connection.fetch(
                "SELECT *, s::text AS everything FROM metagate.startup s WHERE component_key LIKE $1", f"{prefix}-%"
            )
        sessions = [
            StoredSession(
                str(row["startup_id"]),
                f"{row['tenant']}/{row['principal_key']}",
                row["component_key"],
                row["digest"],
                row["status"],
                row["deadline_at"].timestamp(),
                row["acknowledged_at"].timestamp() if row["acknowledged_at"] else None,
                row["late"],
            )
            for row in rows
        ]
        return sessions, "\n".join(row["everything"] for row in rows)

    # ── playing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def trial(
        self,
        row: str,
        fault: Callable[["Trial"], Awaitable[None]],
        *,
        bounds: Bounds | None = None,
        pause: Callable[[int], float] = backing_off,
        publishing: bool = True,
        gates: tuple[ServedGate, ...] = (),
    ) -> "Trial":
        """Play one row. Raises AssertionError with what broke which promise, and where the history lies."""
        trial = Trial(self, row, bounds or Bounds(), pause, gates or (self.gate,))
        async with trial.playing(publishing=publishing):
            await trial.warm()
            trial.fault_began = trial.load.now
            try:
                await fault(trial)
            finally:
                trial.fault_ended = trial.load.now
            await trial.recovered()
        await trial.judge()
        return trial


@dataclass(slots=True)
class Trial:
    harness: FaultHarness
    row: str
    bounds: Bounds
    pause: Callable[[int], float]
    gates: tuple[ServedGate, ...]
    load: FaultLoad = field(init=False)
    stalls: Stalls = field(init=False)
    samples: list[Sample] = field(default_factory=list)
    fault_began: float = 0.0
    fault_ended: float = 0.0
    fault_lifted: float | None = None
    history: RequestHistory = field(init=False)
    figures: FaultFigures = field(init=False)
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        prefix = f"{self.row.lower()}-{uuid4().hex[:6]}"
        line = KeptConnections(*(gate.address for gate in self.gates))
        self.load = FaultLoad(line, self.harness.principals, prefix, self.pause)
        self.stalls = Stalls(self._watched)

    def _watched(self) -> list[int]:
        return [pid for gate in self.gates for pid in gate.pids]

    @asynccontextmanager
    async def playing(self, *, publishing: bool) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._look())]
        if publishing:
            tasks.append(asyncio.create_task(self.harness.keep_publishing()))
        self.stalls.start()
        self.load.start()
        try:
            yield
        finally:
            await self.load.stop()
            await self.load.settle()
            await self.stalls.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.load.line.close()

    async def _look(self) -> None:
        while True:
            for gate in self.gates:
                gate.look()
            resources = [gate.resources() for gate in self.gates]
            rss, files = sum(resource[0] for resource in resources), max(resource[1] for resource in resources)
            self.samples.append(Sample(self.load.now, rss, self.harness.proxy.connections, files))
            await asyncio.sleep(0.25)

    async def warm(self, calls: int = 30) -> None:
        """Until the load runs as it should without a fault."""
        for _ in range(200):
            if sum(call.acked for call in self.load.made[-calls:]) >= calls - 4:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{self.row}: the load did not succeed before the fault: {self.load.made[-3:]}")

    async def recovered(self, *, calm: float = 1.2, most: float = 9.0) -> None:
        """Until nothing failed for a while, or for as long as the promise could need."""
        while (self.load.now - self.fault_ended) < most:
            await asyncio.sleep(0.1)
            late = self._since(self.load.now - calm)
            if self.load.now - self.fault_ended > calm and len(late) > 20 and all(call.acked for call in late):
                return

    def _since(self, moment: float) -> list[RecordedCall]:
        recent = itertools.takewhile(lambda call: call.end > moment, reversed(self.load.made))
        return [call for call in recent if call.operation != "stranger"]

    @property
    def starved(self) -> float:
        """Share of the fault and its recovery in which the machine kept load or gate from running."""
        began, ended = self.load.began + self.fault_began, self.load.began + self.load.made[-1].end
        return self.stalls.between(began, ended) / max(0.1, ended - began)

    def lifting(self) -> None:
        """The fault is about to end: what is answered after this may have met it or not. `fault_ended` is later, by what
        lifting it and leaving its connection take on a busy machine.
        """
        self.fault_lifted = self.load.now

    def inside(self, *operations: str, after: float = 0.0) -> list[RecordedCall]:
        """Calls that began and were answered while the fault held, as far as is known for certain."""
        lifted = self.fault_ended if self.fault_lifted is None else self.fault_lifted
        return [call for call in self.during(*operations, after=after) if call.end < lifted]

    def during(self, *operations: str, after: float = 0.0) -> list[RecordedCall]:
        """Calls that began while the fault held, `after` seconds into it or later."""
        began, ended = self.fault_began + after, self.fault_ended
        return [
            call
            for call in self.history.calls
            if began <= call.start and call.end <= ended + 1 and call.start < ended
            if (call.operation in operations if operations else call.operation != "stranger")
        ]

    async def collect_history(self) -> RequestHistory:
        """Everything that happened, with what is stored in the end and what was said meanwhile."""
        load = self.load
        stored, text = await self.harness.stored(load.prefix)
        calls = [
            replace(call, stall=self.stalls.between(load.began + call.start, load.began + call.end))
            for call in load.made
        ]
        return RequestHistory(
            calls,
            stored,
            (self.fault_began, self.fault_ended),
            self.samples,
            {"the log": "\n".join(gate.log.read_text(errors="replace") for gate in self.gates), "the database": text}
            | {f"metrics of {gate.port}": await _metrics(gate) for gate in self.gates if gate.process.poll() is None},
            [SECRET, *(principal.key for principal in self.harness.principals)],
        )

    async def judge(self) -> None:
        self.history = await self.collect_history()
        self.figures = figures(self.history)
        result = broken(self.history, self.bounds)
        path = HISTORIES / f"{self.row}.jsonl"
        self.history.write(path)
        fairness.remember(self.starved, hard=bool(set(result) - fairness.OF_TIME))
        results.record(
            self.row,
            self.figures,
            timed=self.bounds.deadline is not None,
            broken=sorted(result),
            machine_kept_away=round(self.starved, 2),
        )
        if result:
            collect_history = "\n".join(
                f"  {name}: {len(says)} times, first: {says[:3]}" for name, says in result.items()
            )
            raise AssertionError(f"{self.row} broke promises ({path}):\n{collect_history}\n  {self.figures}")

    def add_figures(self, **extra: Any) -> None:
        """Figures of this row alone."""
        results.record(self.row, self.figures, **extra)

    @property
    def recovery(self) -> float:
        return recovery(self.history)


async def _metrics(gate: ServedGate) -> str:
    answer = await KeptConnections(gate.address).ask("GET", "/metrics", headers={}, keep=False)
    return answer.body.decode()


@asynccontextmanager
async def database(postgres: Postgres) -> AsyncIterator[tuple[Database, list[PrincipalFixture]]]:
    """A migrated database on a started server, with six principals of three tenants in their first edition."""
    embedded = postgres.embedded
    passwords = {role: embedded.password(role) for role in ROLES}
    server = Server(embedded.dsn("postgres", database="postgres", tcp=True), passwords, embedded)
    await server.make_template()
    made = await server.make()
    tenants = [uuid4() for _ in range(3)]
    principals = [PrincipalFixture(tenant=tenants[at % 3], name=f"worker-{at}") for at in range(6)]
    yield made, principals


@asynccontextmanager
async def fault_harness(
    *,
    kind: type[EmbeddedPostgres] = EmbeddedPostgres,
    settings: Mapping[str, str] | None = None,
    directory: Path | None = None,
    workers: int = 2,
    **environment: str,
) -> AsyncIterator[FaultHarness]:
    """A harness with everything running and the first edition served."""
    own = directory or Path(tempfile.mkdtemp(prefix="metagate-faults-"))
    postgres = Postgres.launcher(own, kind, settings)
    await postgres.start()
    try:
        async with database(postgres) as (made, principals):
            proxy = await Proxy(("127.0.0.1", postgres.embedded.port)).start()
            try:
                async with serving(through(made.api, proxy.port), workers=workers, **environment) as gate:
                    harness = FaultHarness(postgres, made, proxy, gate, principals)
                    await first_edition(harness)
                    yield harness
            finally:
                await proxy.close()
    finally:
        await postgres.stop()
        shutil.rmtree(own, ignore_errors=True)


async def first_edition(harness: FaultHarness) -> None:
    """Publish, and wait until every worker knows the keys."""
    publisher = await Publisher.open(harness.database.publisher)
    try:
        await publisher.load()
        await harness.publish(publisher)
    finally:
        await publisher.close()
    await wait_until_known(harness, harness.gate)


async def wait_until_known(harness: FaultHarness, gate: ServedGate) -> None:
    """Wait until each worker of `gate` lets everybody in: a dozen fresh connections reach all of them."""
    good, deadline = 0, time.monotonic() + 20
    while good < 12:
        answer = await KeptConnections(gate.address).ask(
            "GET", "/v1/startups?limit=1", headers=harness.principals[-1].by_key, keep=False
        )
        good = good + 1 if answer.status == 200 else 0
        if time.monotonic() > deadline:
            raise AssertionError(f"the gate does not know its principals: {answer}")
        await asyncio.sleep(0.02)


__all__ = [
    "Bounds",
    "FaultHarness",
    "Postgres",
    "Trial",
    "client_of",
    "fault_harness",
    "first_edition",
    "wait_until_known",
]
