"""A gate that stores in one database and follows MetaGate's: two servers, each behind a proxy of its own, so that a fault
befalls one of them. InterroGate's and AsyncGate's rows are played on it.
"""

import asyncio
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg
from tests.databases import ROLES, Server
from tests.faults import fairness, results
from tests.faults.fault_harness import HISTORIES, Postgres, Trial
from tests.faults.gate import ServedGate
from tests.faults.history import RequestHistory
from tests.faults.load import FaultLoad, backing_off
from tests.faults.promises import Bounds, FaultFigures
from tests.faults.proxy import Proxy
from tests.faults.stalls import Stalls
from tests.faults.wire import KeptConnections
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal


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


@dataclass
class GateHarness(ABC):
    """What a gate's own harness adds: how it is served, its load, what is stored, its promises."""

    sides: dict[str, DatabaseSide]
    identity: str
    """The role that follows MetaGate, through the proxy."""
    principals: list[LedgerPrincipal]
    gate: ServedGate = field(init=False)

    @property
    def proxy(self) -> Proxy:
        """Whose connections are counted."""
        return self.sides["ledger"].proxy

    @abstractmethod
    def make_load(self, line: KeptConnections, row: str, pause: Callable[[int], float]) -> FaultLoad: ...

    @abstractmethod
    async def stored(self, prefix: str) -> tuple[list[Any], str]:
        """What is stored of this harness's principals, and all text in which no key may stand."""

    @abstractmethod
    def own(self, load: Any, stored: Sequence[Any]) -> Sequence[Any]:
        """Of what is stored that which this load asked for."""

    @abstractmethod
    def broken(self, history: RequestHistory, bounds: Bounds) -> dict[str, list[str]]: ...

    @abstractmethod
    def figures(self, history: RequestHistory) -> FaultFigures: ...

    async def prepare(self, trial: "GateTrial") -> None:  # noqa: B027 - a gate that needs nothing leaves it
        """What must be stored before the load begins."""

    async def count_receipts(self) -> int:
        async with self.sides["ledger"].superuser() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM memorygate.receipt"))

    async def trial(
        self,
        row: str,
        fault: Callable[["GateTrial"], Awaitable[None]],
        *,
        bounds: Bounds | None = None,
        pause: Callable[[int], float] = backing_off,
    ) -> "GateTrial":
        """Play one row. Raises AssertionError with what broke which promise, and where the history lies."""
        trial = GateTrial(self, row, bounds or Bounds(), pause, (self.gate,))  # type: ignore[arg-type]
        await self.prepare(trial)
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
class GateTrial(Trial):
    def __post_init__(self) -> None:
        line = KeptConnections(*(gate.address for gate in self.gates))
        self.load = self.harness.make_load(line, self.row, self.pause)
        self.stalls = Stalls(self._watched)

    async def judge(self) -> None:
        history = await self.collect_history()
        self.history = replace(history, stored=self.harness.own(self.load, history.stored))
        self.figures = self.harness.figures(self.history)
        result = self.harness.broken(self.history, self.bounds)
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
