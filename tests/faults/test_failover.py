"""F13, F14: the primary becomes read-only, and is lost; a standby takes its place."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path

import asyncpg
import pytest
from tests.faults import signals
from tests.faults.fairness import fairly
from tests.faults.fault_harness import SETTINGS, Bounds, FaultHarness, Trial, fault_harness
from tests.faults.gate import through
from tests.faults.proxy import Proxy
from tests.integration.api.processes import free_port

from metagate_postgres import EmbeddedPostgres

pytestmark = [pytest.mark.timeout(150), pytest.mark.invariant("INV-016", "INV-025")]


@fairly
async def test_f13_read_only(shared: FaultHarness) -> None:
    """What becomes a replica refuses to write for 3 s: 503, and no packet without its receipt."""

    async def fault(trial: Trial) -> None:
        async with shared.superuser() as connection:
            await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await connection.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(3)
            trial.lifting()
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await connection.execute("SELECT pg_reload_conf()")

    trial = await shared.trial("F13", fault)
    inside = trial.inside("bootstrap", after=0.3)
    assert {call.status for call in inside} == {503}


@fairly
async def test_f13_synchronous_standby_promoted() -> None:
    """The primary is killed under load, its synchronous standby promoted: nothing acknowledged is lost."""
    async with fault_harness() as harness, standby(harness, synchronous=True) as (other, _between):
        trial = await harness.trial("F13", lambda _trial: fail_over(harness, other))
        assert trial.figures.lost == 0


@fairly
async def test_f14_asynchronous_standby_promoted() -> None:
    """A standby that lags is promoted: the tail it never got is lost, and counted; everything else holds."""
    async with fault_harness() as harness, standby(harness, synchronous=False) as (other, between):

        async def fault(_trial: Trial) -> None:
            between.blackhole = True
            await asyncio.sleep(1)
            await fail_over(harness, other)

        trial = await harness.trial("F14", fault, bounds=Bounds(lost=True), publishing=False)
        trial.add_figures(lost=0, lost_tail=trial.figures.lost)
        began = trial.fault_began
        gone = {session.startup_id for session in trial.history.stored}
        for call in trial.history.calls:
            if call.operation == "bootstrap" and call.acked and call.end < began - 0.2:
                assert call.answer["startup_id"] in gone, "lost, although the standby had it"


@asynccontextmanager
async def standby(harness: FaultHarness, *, synchronous: bool) -> AsyncIterator[tuple[EmbeddedPostgres, Proxy]]:
    """A streaming standby of the harness's server, and the proxy through which it streams."""
    primary = harness.postgres.embedded
    hba = primary.directory / "pgdata" / "pg_hba.conf"
    hba.write_text(hba.read_text() + "host replication all 127.0.0.1/32 scram-sha-256\n")
    async with harness.superuser() as connection:
        await connection.execute("SELECT pg_reload_conf()")
    directory = Path(tempfile.mkdtemp(prefix="metagate-standby-"))
    directory.chmod(0o755)
    between = await Proxy(("127.0.0.1", primary.port)).start()
    source = f"host=127.0.0.1 port={between.port} user=postgres password={primary.password('postgres')}"
    try:
        await asyncio.to_thread(_copy, primary, source, directory)
        other = EmbeddedPostgres(directory, port=free_port(), settings={**SETTINGS, "primary_conninfo": source})
        await asyncio.to_thread(other.start)
        try:
            await _streaming(harness, synchronous=synchronous)
            yield other, between
        finally:
            await asyncio.to_thread(other.stop)
    finally:
        await between.close()
        shutil.rmtree(directory, ignore_errors=True)


def _copy(primary: EmbeddedPostgres, source: str, directory: Path) -> None:
    data = directory / "pgdata"
    command = [str(primary.binaries / "pg_basebackup"), "-d", source, "-D", str(data), "-X", "stream", "-c", "fast"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (data / "standby.signal").touch()
    shutil.copy2(primary.directory / "passwords.json", directory / "passwords.json")
    owner = (primary.directory / "pgdata").stat()
    for path in (data, *data.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


async def _streaming(harness: FaultHarness, *, synchronous: bool) -> None:
    async with harness.superuser() as connection:
        if synchronous:
            await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            await connection.execute("SELECT pg_reload_conf()")
        wanted = "sync" if synchronous else "async"
        for _ in range(200):
            if await connection.fetchval("SELECT sync_state FROM pg_stat_replication") == wanted:
                return
            await asyncio.sleep(0.05)
    raise AssertionError("the standby does not stream")


async def fail_over(harness: FaultHarness, other: EmbeddedPostgres) -> None:
    """kill -9 of the primary, promote, and lead everybody to the new one."""
    pid = harness.postgres.pid
    signals.kill(signals.family(pid))
    await asyncio.to_thread(signals.wait_for_end, pid)
    connection = await asyncpg.connect(other.dsn("postgres", database="postgres", tcp=True))
    try:
        assert await connection.fetchval("SELECT pg_promote(true, 30)")
    finally:
        await connection.close()
    moved = {
        field.name: through(getattr(harness.database, field.name), other.port)
        for field in fields(harness.database)
        if field.name != "name"
    }
    harness.database = replace(harness.database, **moved)
    harness.proxy.target = ("127.0.0.1", other.port)
    harness.proxy.abort()
