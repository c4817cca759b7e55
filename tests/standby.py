"""A second PostgreSQL that streams from the first: what a failover needs, on one machine."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from tests.faults import signals
from tests.faults.proxy import Proxy

from metagate_postgres import EmbeddedPostgres


@asynccontextmanager
async def streaming_standby(
    primary: EmbeddedPostgres, *, port: int, synchronous: bool, settings: Mapping[str, str]
) -> AsyncIterator[tuple[EmbeddedPostgres, Proxy]]:
    """A standby at this port that has everything and streams, and the proxy through which it streams."""
    hba = primary.directory / "pgdata" / "pg_hba.conf"
    hba.write_text(hba.read_text() + "host replication all 127.0.0.1/32 scram-sha-256\n")
    await _configure(primary, "SELECT pg_reload_conf()")
    directory = Path(tempfile.mkdtemp(prefix="metagate-standby-"))
    directory.chmod(0o755)
    between = await Proxy(("127.0.0.1", primary.port)).start()
    source = f"host=127.0.0.1 port={between.port} user=postgres password={primary.password('postgres')}"
    try:
        await asyncio.to_thread(_copy, primary, source, directory)
        standby = EmbeddedPostgres(directory, port=port, settings={**settings, "primary_conninfo": source})
        await asyncio.to_thread(standby.start)
        try:
            await _until_streaming(primary, synchronous=synchronous)
            yield standby, between
        finally:
            await asyncio.to_thread(standby.stop)
    finally:
        await between.close()
        shutil.rmtree(directory, ignore_errors=True)


async def kill_server(server: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster and of every process that it has."""
    pid = server.server_pid
    assert pid is not None
    signals.kill(signals.family(pid))
    await asyncio.to_thread(signals.wait_for_end, pid)


async def promote(standby: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(standby.dsn("postgres", database="postgres", tcp=True))
    try:
        assert await connection.fetchval("SELECT pg_promote(true, 30)")
    finally:
        await connection.close()


async def _configure(server: EmbeddedPostgres, *statements: str) -> None:
    connection = await asyncpg.connect(server.dsn("postgres", database="postgres", tcp=True))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _copy(primary: EmbeddedPostgres, source: str, directory: Path) -> None:
    data = directory / "pgdata"
    command = [str(primary.binaries / "pg_basebackup"), "-d", source, "-D", str(data), "-X", "stream", "-c", "fast"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (data / "standby.signal").touch()
    shutil.copy2(primary.directory / "passwords.json", directory / "passwords.json")
    owner = (primary.directory / "pgdata").stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def _until_streaming(primary: EmbeddedPostgres, *, synchronous: bool) -> None:
    if synchronous:
        await _configure(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    expected = "sync" if synchronous else "async"
    connection = await asyncpg.connect(primary.dsn("postgres", database="postgres", tcp=True))
    try:
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT sync_state FROM pg_stat_replication") != expected:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()
