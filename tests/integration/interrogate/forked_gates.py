"""Processes of the gate that start in a moment, because they are forked by one that has imported everything; and that
can end themselves with kill -9 at a named point of a request.

Each is a process with its own pid, connections and socket, and runs the gate's own code; nothing of the gate knows of
fault points. Run as `python -m tests.integration.interrogate.forked_gates`: each line of its input is a process to
fork (settings, and where it dies), each line of its output the pid.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import httpx
import psutil
from tests.integration.interrogate.gate_fixture import GateClient, PublishedWorld
from tests.integration.memorygate.ledger_fixture import free_port, ready

from interrogate.call_table import CallTable
from interrogate.contention import Contention
from interrogate.database import InterrogateDatabase, LockedAdmissions
from interrogate.forwarding import TargetClient
from interrogate.gate import GATE
from interrogate.mcp_gateway.upstream import Upstreams
from interrogate.settings import Settings
from legivellum.gate.composition import serving

ROOT = Path(__file__).parents[3]
STEPS: dict[str, tuple[type, str]] = {
    "observe": (InterrogateDatabase, "observe"),
    "record": (InterrogateDatabase, "record"),
    "locked observe": (LockedAdmissions, "observe"),
    "locked record": (LockedAdmissions, "record"),
    "forward": (TargetClient, "deliver_all"),
    "settle": (InterrogateDatabase, "settle_forwards"),
    "call": (Upstreams, "call"),
    "outcome": (CallTable, "settle"),
}
"""What a request does one after the other. The commit of the locked form is after its record."""


def die_at(point: str) -> None:
    """This process ends with kill -9 `before` or `after` a step, whenever one gets there."""
    moment, _, step = point.partition(" ")
    owner, name = STEPS[step]
    method: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @wraps(method)
    async def dying(*arguments: Any, **named: Any) -> None:
        if moment == "after":
            await method(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)
    if step.startswith("locked"):
        # As if others had contended for the root just now.
        setattr(Contention, "expected", lambda *_arguments: True)  # noqa: B010 - of this process only


async def serve(settings: Settings) -> None:
    async with serving(GATE, settings):
        await asyncio.Event().wait()


def fork(command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(2, 1)  # the first one's output is pids and nothing else
    if command["point"] is not None:
        die_at(command["point"])
    try:
        asyncio.run(serve(Settings(**command["settings"])))
    finally:
        os._exit(1)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed ones
    print("ready", flush=True)
    pids = []
    for line in sys.stdin:
        pids.append(fork(json.loads(line)))
        print(pids[-1], flush=True)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class ForkedGate:
    gate: GateClient
    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            while psutil.pid_exists(self.pid):
                await asyncio.sleep(0.005)


@dataclass(frozen=True, slots=True)
class GateForks:
    """Where the gates are forked."""

    process: asyncio.subprocess.Process

    @asynccontextmanager
    async def serving(
        self, world: PublishedWorld, point: str | None = None, **settings: Any
    ) -> AsyncIterator[ForkedGate]:
        """One process, which ends at `point`, or when the block ends."""
        port = free_port()
        chosen = {
            "database_url": world.database.writer,
            "identity_database_url": world.database.database.identity,
            "port": port,
            "deadline_ms": 10_000,
            "rate_per_second": 0,
            "identity_poll_ms": 20,
            **settings,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"point": point, "settings": chosen}).encode() + b"\n")
        pid = int(await self.process.stdout.readline())
        try:
            url = f"http://127.0.0.1:{port}"
            await ready(url)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                yield ForkedGate(GateClient(world, client, url), pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def gate_forks() -> AsyncIterator[GateForks]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.interrogate.forked_gates", cwd=ROOT, stdin=pipe, stdout=pipe
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield GateForks(process)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


if __name__ == "__main__":
    main()
