"""F18, F19: the disk says no: fsync fails, and nothing is left."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.faults.debian import install
from tests.faults.fairness import fairly
from tests.faults.fault_harness import FaultHarness, Trial, fault_harness

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-016", "INV-025")]


@fairly
async def test_f18_fsync_fails(shared: FaultHarness) -> None:
    """EIO from the first fdatasync of the gate's backends: the server ends itself and recovers, nothing acked is lost."""
    if (strace := shutil.which("strace")) is None and install("strace"):
        strace = shutil.which("strace")
    if strace is None:
        pytest.skip("there is no strace here, and it cannot be installed")

    async def fault(_trial: Trial) -> None:
        pids = [part for pid in await shared.backends() for part in ("-p", str(pid))]
        inject = ["-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=1"]
        with tempfile.TemporaryFile() as file:
            tracing = subprocess.Popen([strace, "-qq", *inject, *pids], stdout=file, stderr=file)
            try:
                await asyncio.sleep(2)
            finally:
                tracing.terminate()
                tracing.wait(10)
            file.seek(0)
            if b"Operation not permitted" in file.read():
                pytest.skip("processes may not be traced here")

    await shared.trial("F18", fault)
    log = (shared.postgres.embedded.directory / "postgres.log").read_text(errors="replace")
    assert "PANIC" in log


@fairly
async def test_f19_disk_full() -> None:
    """Nothing can be written: bootstraps are 503, reads go on, and so does everything once there is room again."""
    with volume(320) as directory:
        async with fault_harness(
            directory=directory / "base", settings={"max_wal_size": "64MB", "min_wal_size": "32MB"}
        ) as harness:
            filling = directory / "filling"

            async def fault(_trial: Trial) -> None:
                async with harness.superuser() as connection:
                    await connection.execute("CHECKPOINT; SELECT pg_switch_wal()")
                    await connection.execute("SELECT txid_current()")
                await asyncio.to_thread(fill, filling)
                await asyncio.sleep(4)
                filling.unlink()

            try:
                trial = await harness.trial("F19", fault)
            finally:
                filling.unlink(missing_ok=True)
            statuses = {call.status for call in trial.during("bootstrap")}
            assert 503 in statuses
            assert all(call.acked for call in trial.during("list"))


@contextmanager
def volume(megabytes: int) -> Iterator[Path]:
    """A small file system of our own."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    place = Path(tempfile.mkdtemp(prefix="metagate-volume-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        place.rmdir()
        pytest.skip("no file system may be mounted here")
    try:
        (place / "base").mkdir()
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=False)
        with suppress(OSError):
            place.rmdir()


def fill(file: Path) -> None:
    """Take every byte that is left."""
    with suppress(OSError), file.open("wb", buffering=0) as written:
        block = b"\0" * (1 << 20)
        while written.write(block) == len(block):
            pass
    with suppress(OSError), file.open("ab", buffering=0) as written:
        while written.write(b"\0" * 4096):
            pass
