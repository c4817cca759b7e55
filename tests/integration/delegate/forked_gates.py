"""Processes of DeleGate that start in a moment, because they are forked by one that has imported everything; and that
end themselves with kill -9, or wait, at a named point of a request.

Each is a process with its own pid, connections and socket, and runs the gate's own code; nothing of the gate knows of
fault points. Run as `python -m tests.integration.delegate.forked_gates`: each line of its input is a process to fork
(settings, and where it dies), each line of its output the pid.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

from tests.forked_processes import ForkServer, fork_for_ever, forking, process_ended
from tests.integration.delegate.gate_fixture import GateGroup
from tests.integration.memorygate.ledger_fixture import free_port, ready

from delegate import repairing
from delegate.gate import GATE
from delegate.gate_clients import GateClients
from delegate.settings import Settings
from legivellum.gate.composition import serving

STEPS = {
    "who": ("task_receipts", 1),
    "check": ("check_tasks", 1),
    "accepted": ("post_receipts", 1),
    "deposit": ("deposit_plan", 1),
    "plan receipt": ("post_receipts", 2),
    "admission": ("admit", 1),
    "second admission": ("admit", 2),
    "minting": ("post_receipts", 3),
    "enqueue": ("enqueue", 1),
    "answer": ("task_receipts", 2),
}
"""What a request does one after the other: the call of another gate, and which one of its kind."""


def stop_at(point: str, pause: str | None) -> None:
    """This process ends with kill -9 `before` or `after` a step. `pause`: it waits there instead until the file of this
    name is gone, so that another gate can be taken away meanwhile.
    """
    moment, _, step = point.partition(" ")
    name, number = STEPS[step]
    method: Callable[..., Awaitable[Any]] = getattr(GateClients, name)
    calls = 0

    async def stop() -> None:
        if pause is None:
            os.kill(os.getpid(), signal.SIGKILL)
            return
        file = Path(pause)
        file.with_suffix(".reached").touch()
        while file.exists():
            await asyncio.sleep(0.01)

    @wraps(method)
    async def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        here = calls == number
        if here and moment == "before":
            await stop()
        result = await method(*arguments, **named)
        if here and moment == "after":
            await stop()
        return result

    setattr(GateClients, name, stopping)


async def serve(command: dict[str, Any]) -> None:
    if command["point"] is not None:
        stop_at(command["point"], command["pause"])
    repairing.OLD_ENOUGH = timedelta(seconds=command["repairs_after"])
    async with serving(GATE, Settings(**command["settings"])):
        await asyncio.Event().wait()


@dataclass(frozen=True, slots=True)
class ForkedDelegate:
    url: str
    pid: int

    async def ended(self) -> None:
        await process_ended(self.pid)


@dataclass(frozen=True, slots=True)
class DelegateForks:
    """Where they are forked."""

    gates: GateGroup
    server: ForkServer

    @asynccontextmanager
    async def serving(
        self,
        point: str | None = None,
        *,
        admission: str = "required",
        pause: Path | None = None,
        repairs_after: float | None = None,
        **settings: Any,
    ) -> AsyncIterator[ForkedDelegate]:
        """One process, which stops at `point`, and ends when the block does. `repairs_after`: how many seconds an open
        plan is old that its start goes on with; None: 60, but a process that stops at a point goes on with none, whose
        calls would be counted too.
        """
        port = free_port()
        gates = self.gates
        chosen = {
            "identity_database_url": gates.database.database.identity,
            "port": port,
            "rate_per_second": 0,
            "identity_poll_ms": 20,
            # A machine that is busy with other tests is no outage.
            "gate_ms": 20_000,
            "deadline_ms": 40_000,
            "admission": admission,
            "credentials": str(gates.credentials),
            **{f"{name}_url": gates.url(name) for name in ("memorygate", "asyncgate", "depotgate", "interrogate")},
            **settings,
        }
        if repairs_after is None:
            repairs_after = 60 if point is None else 1e6
        command = {
            "point": point, "settings": chosen, "repairs_after": repairs_after, "pause": None if pause is None else str(pause),
        }  # fmt: skip
        async with self.server.forked(command) as pid:
            url = f"http://127.0.0.1:{port}"
            await ready(url)
            yield ForkedDelegate(url, pid)


@asynccontextmanager
async def delegate_forks(gates: GateGroup) -> AsyncIterator[DelegateForks]:
    async with forking("tests.integration.delegate.forked_gates") as server:
        yield DelegateForks(gates, server)


if __name__ == "__main__":
    fork_for_ever(serve)
