"""Processes that start in a moment, because they are forked by one that has imported everything.

A module that forks them calls `fork_for_ever` with what a child does, and is run by `forking`: each line of its input is
a process to fork, each line of its output the pid. Whoever ended itself, or was killed, is waited for by nobody.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]


def fork_for_ever(serve: Callable[[dict[str, Any]], Coroutine[Any, Any, None]]) -> None:
    """Fork a child for each command of the input, which runs `serve`; at its end all that live are killed."""
    fork_each(lambda command: asyncio.run(serve(command)))


def fork_each(run: Callable[[dict[str, Any]], None]) -> None:
    """The same for a child that is no coroutine."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed ones
    print("ready", flush=True)
    for line in sys.stdin:
        print(_fork(run, json.loads(line)), flush=True)
    # Those that live: the pid of one that has ended may be that of somebody else's process by now.
    for child in psutil.Process().children():
        kill(child.pid)


def _fork(run: Callable[[dict[str, Any]], None], command: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(2, 1)  # the first one's output is pids and nothing else
    try:
        run(command)
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def process_ended(pid: int) -> None:
    async with asyncio.timeout(20):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.005)


@dataclass(frozen=True, slots=True)
class ForkServer:
    """The process that forks."""

    process: asyncio.subprocess.Process
    forking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def forked(self, command: Mapping[str, Any]) -> AsyncIterator[int]:
        """The pid of a child, which ends when the block does."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        async with self.forking:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            pid = int(await self.process.stdout.readline())
        try:
            yield pid
        finally:
            kill(pid)


@asynccontextmanager
async def forking(module: str) -> AsyncIterator[ForkServer]:
    """`module` calls `fork_for_ever` when it is run."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, cwd=ROOT, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield ForkServer(process)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)
