"""DepotGate as a process of its own, which can be traced, filled up and killed; and which ends itself with kill -9 at a
named point of a deposit.

Run as `python -m tests.integration.depotgate.gate_processes POINT`: it serves with the settings of its environment. The
gate's own code knows of no fault points.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import httpx
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot
from tests.integration.memorygate.ledger_fixture import free_port, ready

ROOT = Path(__file__).parents[3]
POINTS = ("before bytes", "after bytes", "before commit", "after commit", "before unlink", "after unlink")


def die_at(point: str) -> None:
    """This process ends with kill -9 before or after a step, when one gets there."""
    from depotgate.database import DepotGateDatabase
    from depotgate.file_blobs import FileBlobs

    moment, _, step = point.partition(" ")
    owner, name = {
        "bytes": (FileBlobs, "put"), "commit": (DepotGateDatabase, "store"), "unlink": (FileBlobs, "remove")
    }[step]  # fmt: skip
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @wraps(method)
    async def dying(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            await method(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def main() -> None:
    from depotgate.main import main as depotgate

    if sys.argv[1] in POINTS:
        die_at(sys.argv[1])
    sys.argv = ["depotgate", "serve"]
    depotgate()


@dataclass(frozen=True, slots=True)
class GateProcessFixture:
    depot: Depot
    process: subprocess.Popen[bytes]

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, 20)


@asynccontextmanager
async def depot_process(
    tenant: TaskTenant,
    database: DepotDatabase,
    directory: Path,
    *,
    point: str = "never",
    under: tuple[str, ...] = (),
    **settings: str,
) -> AsyncIterator[GateProcessFixture]:
    """One process; `under`: a command that runs it. `settings`: variables without their prefix."""
    port = free_port()
    chosen = {
        "DATABASE_URL": database.keeper, "IDENTITY_DATABASE_URL": database.database.identity, "PORT": str(port),
        "DEADLINE_MS": "10000", "RATE_PER_SECOND": "0", "IDENTITY_POLL_MS": "20", "STORE": f"file://{directory}", **settings,
    }  # fmt: skip
    environment = {
        **os.environ,  # noqa: TID251 - the process is a child of this one
        **{name if name.startswith("AWS_") else f"DEPOTGATE_{name}": value for name, value in chosen.items()},
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "tests.integration.depotgate.gate_processes", point],
            cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            await ready(url)
            async with httpx.AsyncClient(base_url=url, timeout=60) as client:
                depot = await Depot(tenant, database, client, url, directory).until_known()
                yield GateProcessFixture(depot, process)
        finally:
            # The whole group: under a tracer the gate is its child. The tracer ends when the gate has.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT if not under else signal.SIGKILL)
            await asyncio.to_thread(process.wait, 20)


if __name__ == "__main__":
    main()
