"""The gate as it is served: a real process with workers, its log kept, its memory, files and waiting looked at."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
from tests.faults.wire import KeptConnections
from tests.integration.api.gate_fixture import SECRET
from tests.integration.api.processes import CODE, free_port


def through(dsn: str, port: int) -> str:
    """The same database by another port of loopback."""
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))


class ServedGate:
    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.log = log
        self._seen: list[psutil.Process] = []

    def look(self) -> None:
        """Remember which processes answer: walking the process table costs more than reading what it leads to."""
        self._seen = self.workers

    @property
    def pids(self) -> list[int]:
        return [item.pid for item in self._seen]

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def workers(self) -> list[psutil.Process]:
        """Those that answer: the children, or the process itself when it is alone."""
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())] or [
                psutil.Process(self.process.pid)
            ]
        return []

    @property
    def everything(self) -> list[int]:
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)] + [self.process.pid]

    def resources(self) -> tuple[int, int]:
        """Resident bytes of all workers, and the most open files of one."""
        rss, files = 0, 0
        for worker in self._seen:
            with contextlib.suppress(psutil.Error):
                rss += worker.memory_info().rss
                files = max(files, worker.num_fds())
        return rss, files


@asynccontextmanager
async def serving(dsn: str, *, workers: int = 2, **environment: str) -> AsyncIterator[ServedGate]:
    """A gate all of whose workers say that they are ready."""
    port = free_port()
    environ = {
        **os.environ,  # noqa: TID251
        "DATABASE_URL": dsn,
        "JWT_SECRET": SECRET,
        "METAGATE_PORT": str(port),
        "METAGATE_WORKERS": str(workers),
        "METAGATE_LOG_FORMAT": "json",
        **environment,
    }
    async with serving_process([sys.executable, "-c", CODE], environ, port=port, workers=workers) as gate:
        yield gate


@asynccontextmanager
async def serving_process(
    command: Sequence[str], environ: Mapping[str, str], *, port: int, workers: int
) -> AsyncIterator[ServedGate]:
    """Any gate, all of whose workers say that they are ready."""
    with tempfile.NamedTemporaryFile(prefix="metagate-faults-", suffix=".log", delete=False) as written:
        log = Path(written.name)
        process = subprocess.Popen(command, env=environ, stderr=written, stdout=written)
    gate = ServedGate(process, port, log)
    try:
        await ready(gate, workers)
        yield gate
    finally:
        await asyncio.to_thread(_end, process)
        log.unlink()


async def ready(gate: ServedGate, workers: int) -> None:
    """Fresh connections reach all workers alike: sixteen good answers in a row mean all of them."""
    good = 0
    for _ in range(600):
        if gate.process.poll() is not None:
            raise AssertionError(f"the gate ended with {gate.process.returncode}: {gate.log.read_text()[-2000:]}")
        if workers == 1 or len(gate.workers) == workers:
            answer = await KeptConnections(gate.address).ask("GET", "/readyz", headers={}, keep=False)
            good = good + 1 if answer.status == 200 else 0
            if good >= 16:
                return
        if not good:
            await asyncio.sleep(0.05)
    raise AssertionError(f"the gate was not ready: {gate.log.read_text()[-2000:]}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            process.kill()
            process.wait()
