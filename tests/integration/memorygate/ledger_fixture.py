"""MetaGate's tables and the ledger's in one database, people with real API keys, and the ledger as its own process."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from tests.cluster.control_plane import free_ports
from tests.integration.memorygate.conftest import LedgerDatabase, rows
from tests.integration.store.worlds import Somebody, change_of, row

from legivellum.identity import api_keys
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapResult, ReportResult


@dataclass(slots=True)
class LedgerPrincipal:
    """A principal with one real API key."""

    tenant: UUID
    name: str
    type: str = "principal"
    scope: str = "Namespace"
    rights: tuple[str, ...] = ()
    suspended: bool = False
    uid: UUID = field(default_factory=uuid4)
    key: str = field(default_factory=lambda: api_keys.mint().key)

    def rows(self) -> dict[str, list[dict[str, object]]]:
        tenant = str(self.tenant)
        return {
            "principal": [row(
                self.uid, tenant=tenant, principal_key=self.name, type=self.type, scope=self.scope, rights=list(self.rights),
                suspended=self.suspended, generation=1,
            )],
            "api_key": [row(
                self.uid, sha256=api_keys.digest_of(self.key), key_id=api_keys.id_of(self.key.encode()), tenant=tenant,
                principal_key=self.name, expires_at=None,
            )],
        }  # fmt: skip

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.key}


@dataclass(slots=True)
class LedgerFixture:
    database: LedgerDatabase
    reader: Reader
    witness: LedgerPrincipal
    components: list[Somebody]

    async def boot(self, principal: Somebody, count: int = 1, *, ready: bool = True) -> list[UUID]:
        """Startups, mirrored; READY or FAILED by turns."""
        asks = [principal.ask(mirror=True) for _ in range(count)]
        opened: list[BootstrapResult] = []
        for at in range(0, count, 200):
            opened += await self.reader.bootstrap(asks[at : at + 200])
        assert {answer.outcome.value for answer in opened} == {"OPENED"}
        ids = [ask.startup_id for ask in asks]
        if ready:
            await self.report(principal, ids)
        return ids

    async def report(self, principal: Somebody, ids: list[UUID]) -> None:
        told: list[ReportResult] = []
        for at in range(0, len(ids), 200):
            told += await self.reader.report([
                principal.tells(item, "FAILED" if n % 2 else "READY", payload='{"error": "no disk"}' if n % 2 else '{"build_version": "1"}', mirror=True)
                for n, item in enumerate(ids[at : at + 200])
            ])  # fmt: skip
        assert {answer.outcome.value for answer in told} == {"RECORDED"}

    async def waiting(self) -> int:
        [(count,)] = await rows(self.database.superuser, "SELECT count(*) FROM metagate.outbox")
        return int(count)

    async def drained(self, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while await self.waiting():
                await asyncio.sleep(0.05)

    async def phases(self) -> dict[tuple[str, str], int]:
        """How many receipts there are of each startup and phase."""
        query = "SELECT task_id, phase, count(*) FROM memorygate.receipt WHERE kind = 'startup' GROUP BY 1, 2"
        return {(task, phase): count for task, phase, count in await rows(self.database.superuser, query)}


@asynccontextmanager
async def ledger_fixture(
    database: LedgerDatabase, *more: LedgerPrincipal, components: int = 2
) -> AsyncIterator[LedgerFixture]:
    witness = LedgerPrincipal(uuid4(), "metagate", "service", rights=("witness",))
    somebodies = [Somebody(uuid4(), f"indexer{n}") for n in range(components)]
    publisher = await Publisher.open(database.database.publisher)
    extra: dict[str, list[dict[str, object]]] = {}
    for principal in (witness, *more):
        for table, result in principal.rows().items():
            extra.setdefault(table, []).extend(result)
    try:
        await publisher.load()
        await publisher.publish(change_of(somebodies, more=extra), mirror=True)
    finally:
        await publisher.close()
    reader = await Reader.connect(database.database.api, size=2, acquire_timeout=10, query_timeout=10)
    try:
        yield LedgerFixture(database, reader, witness, somebodies)
    finally:
        await reader.close()


def free_port() -> int:
    """Below the ports that the kernel gives to outgoing connections: one of those could take it before it is used."""
    return free_ports(1)


@dataclass(slots=True)
class LedgerProcess:
    """A child of the test, its output beside."""

    command: list[str]
    environment: dict[str, str]
    log: Path
    running: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                *self.command, env=self.environment, stdout=log, stderr=log
            )

    async def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        if self.running is not None and self.running.returncode is None:
            self.running.send_signal(signal.SIGKILL)
            await self.running.wait()


def ledger_process(database: LedgerDatabase, port: int, log: Path, **settings: str) -> LedgerProcess:
    return LedgerProcess(
        [sys.executable, "-c", "from memorygate.main import main; main()", "serve"],
        {
            "MEMORYGATE_DATABASE_URL": database.writer,
            "MEMORYGATE_IDENTITY_DATABASE_URL": database.database.identity,
            "MEMORYGATE_PORT": str(port),
            **settings,
        },
        log,
    )


def relay_process(database: LedgerDatabase, url: str, key_file: Path, log: Path) -> LedgerProcess:
    return LedgerProcess(
        [sys.executable, str(Path(__file__).with_name("relaying.py"))],
        {"RELAY_DATABASE": database.database.publisher, "RELAY_LEDGER": url, "RELAY_KEY_FILE": str(key_file)},
        log,
    )


async def ready(url: str, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds), httpx.AsyncClient() as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{url}/readyz")).status_code == 200:
                    return
            await asyncio.sleep(0.05)
