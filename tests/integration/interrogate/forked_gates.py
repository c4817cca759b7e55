"""Processes of the gate that start in a moment, because they are forked by one that has imported everything; and that
can end themselves with kill -9 at a named point of a request.

Each is a process with its own pid, connections and socket, and runs the gate's own code; nothing of the gate knows of
fault points. Run as `python -m tests.integration.interrogate.forked_gates`: each line of its input is a process to
fork (settings, and where it dies), each line of its output the pid.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import httpx
from tests.forked_processes import ForkServer, fork_for_ever, forking, process_ended
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


async def serve(command: dict[str, Any]) -> None:
    if command["point"] is not None:
        die_at(command["point"])
    async with serving(GATE, Settings(**command["settings"])):
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class ForkedGate:
    gate: GateClient
    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> None:
        await process_ended(self.pid)


@dataclass(frozen=True, slots=True)
class GateForks:
    """Where the gates are forked."""

    server: ForkServer

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
        async with self.server.forked({"point": point, "settings": chosen}) as pid:
            url = f"http://127.0.0.1:{port}"
            await ready(url)
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                yield ForkedGate(GateClient(world, client, url), pid)


@asynccontextmanager
async def gate_forks() -> AsyncIterator[GateForks]:
    async with forking("tests.integration.interrogate.forked_gates") as server:
        yield GateForks(server)


if __name__ == "__main__":
    fork_for_ever(serve)
