"""What the benchmark runs on: a durable PostgreSQL, a published world, the served API, pgbench."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import asyncpg
import load

from legivellum.identity import api_keys
from metagate_crds import packet
from metagate_crds.canonical_json import canonical, digest
from metagate_postgres import EmbeddedPostgres
from metagate_store.migrating import PROCESS_ROLES, migrate
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

BODY = packet.assemble(
    {
        name: canonical(value)
        for name, value in {
            "capabilities": {"index": True, "languages": ["en", "de"]},
            "environment": {"region": "eu"},
            "manifest": "prod",
            "memory_map": {"inbox": "memorygate"},
            "policy": {"max_parallel": 4},
            "polling": {"inbox": {"endpoint": "http://memorygate:8001/inbox", "interval": "5s"}},
            "profile": "worker",
            "required_env": [{"name": "db", "ref_kind": "env", "ref_name": "DB_PASSWORD", "required": True}],
            "schemas": {"receipt": {"ref": "urn:legivellum:receipt:1.1"}},
            "services": {f"gate{n}": {"type": "memorygate", "endpoint": f"http://gate{n}:8001"} for n in range(6)},
        }.items()
    }
)


SERVE = "from metagate_api.server import run; from metagate_api.settings import Settings; run(Settings())"


@dataclass(frozen=True, slots=True)
class BenchPrincipal:
    """A principal of the benchmark."""

    tenant: UUID
    name: str
    key: str = field(default_factory=lambda: api_keys.mint().key)

    @property
    def sha256(self) -> str:
        return api_keys.digest_of(self.key)

    def request(self, *, keyed: bool = False) -> bytes:
        """`keyed`: with an Idempotency-Key, a new one each time that it is sent."""
        body = json.dumps({"component_key": "indexer_1"}).encode()
        key = b"Idempotency-Key: %s\r\n" % load.KEY_SLOT if keyed else b""
        return (
            b"POST /v1/bootstrap HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
            b"%sContent-Length: %d\r\n\r\n%s" % (self.key.encode(), key, len(body), body)
        )

    def statement(self, *, keyed: bool = False) -> str:
        """The one statement that a bootstrap of this principal is, as pgbench sends it."""
        key = "replace(gen_random_uuid()::text, '-', '')" if keyed else "null"
        return (
            f"SELECT * FROM metagate.bootstrap(ARRAY['{self.tenant}']::uuid[], ARRAY['{self.name}'], ARRAY['key'], "
            f"ARRAY[''], ARRAY['{self.sha256}'], ARRAY[null]::text[], ARRAY['indexer_1'], ARRAY[uuidv7()], "
            f"ARRAY[uuidv7()], ARRAY[{key}]::text[], ARRAY['{digest(BODY)}'], ARRAY[null]::text[], "
            "ARRAY[null]::text[], ARRAY[null]::text[], ARRAY[false]);"
        )


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A running, migrated server; `tcp` and `socket` DSNs of the API's role."""

    postgres: EmbeddedPostgres
    api: str
    publisher: str
    superuser: str


@contextlib.contextmanager
def base(kept: Path | None = None) -> Iterator[BenchServer]:
    """PostgreSQL as it is installed: fsync and synchronous commits on. `kept`: a directory that stays."""
    directory = kept or Path(tempfile.mkdtemp(prefix="metagate-bench-"))
    directory.mkdir(exist_ok=True)
    directory.chmod(0o755)
    try:
        # As it is installed but for this: pgbench needs a connection for each of its clients.
        with EmbeddedPostgres(directory, settings={"max_connections": "400"}) as postgres:
            passwords = {role: postgres.password(role) for role in PROCESS_ROLES}
            asyncio.run(migrate(postgres.dsn(), passwords=passwords))
            yield BenchServer(
                postgres,
                postgres.dsn("metagate_api"),
                postgres.dsn("metagate_publisher"),
                postgres.dsn("postgres"),
            )
    finally:
        if kept is None:
            shutil.rmtree(directory, ignore_errors=True)  # ten million receipts are twenty gigabytes


def _row(**values: object) -> dict[str, object]:
    content = digest(canonical({name: value for name, value in values.items() if value is not None}))
    return {**values, "owner": str(uuid4()), "content": content}


async def publish(on: BenchServer, number: int) -> list[BenchPrincipal]:
    tenant = uuid4()
    booters = [BenchPrincipal(tenant, f"worker-{n}") for n in range(number)]
    publisher = await Publisher.open(on.publisher)
    await publisher.load()
    principal = [{"tenant": str(tenant), "principal_key": booter.name} for booter in booters]
    await publisher.publish(
        Change(
            tenants=[TenantRow(tenant, "bench", datetime.now(UTC))],
            packets={digest(BODY): BODY},
            upserts={
                "principal": [
                    _row(**item, type="component", scope="Namespace", rights=[], suspended=False, generation=1)
                    for item in principal
                ],
                "api_key": [
                    _row(sha256=booter.sha256, key_id=api_keys.id_of(booter.key.encode()), expires_at=None, **item)
                    for booter, item in zip(booters, principal, strict=True)
                ],
                "binding": [
                    _row(
                        **item,
                        name=f"{item['principal_key']}-binding",
                        digest=digest(BODY),
                        components=["indexer_*"],
                        sla_seconds=120,
                        profile="worker",
                        manifest="prod",
                        generation=1,
                    )
                    for item in principal
                ],
            },
        )
    )
    await publisher.close()
    return booters


async def opened(on: BenchServer) -> int:
    connection = await asyncpg.connect(on.superuser)
    try:
        return await connection.fetchval("SELECT count(*) FROM metagate.startup")
    finally:
        await connection.close()


async def written(on: BenchServer) -> int:
    """Bytes of write-ahead log so far."""
    connection = await asyncpg.connect(on.superuser)
    try:
        return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    finally:
        await connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def served(on: BenchServer, *, workers: int, **environment: str) -> Iterator[int]:
    """The API as it is served, its settings the defaults; yields its port."""
    with served_process(on, workers=workers, **environment) as (port, _):
        yield port


@contextlib.contextmanager
def served_process(
    on: BenchServer, *, workers: int, patience: float = 20, **environment: str
) -> Iterator[tuple[int, int]]:
    """Like `served`, with the id of the process as well. `patience`: seconds until it must be ready."""
    port = free_port()
    environ = {
        **os.environ,  # noqa: TID251
        "DATABASE_URL": on.api,
        "METAGATE_PORT": str(port),
        "METAGATE_WORKERS": str(workers),
        **environment,
    }
    process = subprocess.Popen([sys.executable, "-c", SERVE], env=environ, stderr=subprocess.DEVNULL)
    try:
        _until_ready(port, process, patience)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _until_ready(port: int, process: "subprocess.Popen[bytes]", patience: float = 20) -> None:
    for _ in range(int(patience * 10)):
        if process.poll() is not None:
            raise SystemExit("the API ended before it was ready")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2):
            time.sleep(1)  # the other workers
            return
        time.sleep(0.1)
    raise SystemExit(f"the API was not ready within {patience:.0f} s")


def pgbench(
    on: BenchServer, booters: list[BenchPrincipal], *, connections: int, seconds: int, keyed: bool = False
) -> dict[str, float]:
    """The same single-row statement by PostgreSQL's own client: prepared, one script per principal."""
    with tempfile.TemporaryDirectory(prefix="metagate-pgbench-") as directory:
        scripts = []
        for booter in booters[:64]:
            script = Path(directory) / f"{booter.name}.sql"
            script.write_text(booter.statement(keyed=keyed))
            scripts += ["-f", str(script)]
        command = [str(_binary(on)), "-n", "-M", "prepared", "-c", str(connections), "-j", str(min(2, connections))]
        command += ["-T", str(seconds), *scripts, on.api]
        output = ""
        while not (
            rate := re.search(r"tps = ([\d.]+)", output)
        ):  # a busy machine may finish nothing in so short a time
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {
        "rate": float(rate[1]),
        "transactions": float(re.search(r"actually processed: (\d+)", output)[1]),
        "mean_ms": float(re.search(r"latency average = ([\d.]+)", output)[1]),
    }


def _binary(on: BenchServer) -> Path:
    result = on.postgres.binaries / "pgbench"
    return result if result.exists() else on.postgres.binaries / "bin" / "pgbench"
