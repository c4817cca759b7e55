"""The processes of the whole system, forked by one that has imported all of it: they start in a moment, and end themselves
at fault points.

Run as `python -m tests.integration.whole.forked_parts`: each line of its input is a command to fork, each line of its
output the pid.
"""

import contextlib
import ctypes
import gc
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from tests.forked_processes import ROOT, fork_each
from tests.integration.whole import fault_points

PR_SET_PDEATHSIG = 1


class ForkedPart:
    """A process as `GateGroup` handles it. Nobody waits for it: the process that forked it has nothing to do with its end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        # Knows its process from another one that is given the same pid later; None: it has ended already.
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process = psutil.Process(pid)

    def poll(self) -> int | None:
        return None if self._process is not None and self._process.is_running() else -signal.SIGKILL

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    def wait(self, timeout: float | None = None) -> int:
        until = time.monotonic() + (timeout or 30)
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("forked part", timeout or 30)
            time.sleep(0.005)
        return status


@dataclass(frozen=True, slots=True)
class PartForks:
    """Where they are forked. `arms`: the directory in which a file arms the process of its name."""

    server: "subprocess.Popen[bytes]"
    arms: Path

    def spawn(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> ForkedPart:
        order = {
            "command": command[1:], "environment": environment, "log": str(log), "arming": str(self.arming(name)),
        }  # fmt: skip
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(order).encode() + b"\n")
        self.server.stdin.flush()
        return ForkedPart(int(self.server.stdout.readline()))

    def arming(self, name: str) -> Path:
        return self.arms / name.replace(" ", "-")


@contextmanager
def forked_parts(arms: Path) -> Iterator[PartForks]:
    arms.mkdir()
    server = subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield PartForks(server, arms)
    finally:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.close()
        server.wait(20)
        server.stdout.close()


def run(order: dict[str, Any]) -> None:
    """As the interpreter would run the command: `-c code`, `-m module` or a script, with what follows."""
    log = os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.setsid()
    # Nobody is left behind by a process that forks and is killed itself.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.environ.clear()  # noqa: TID251 - of this child
    os.environ.update(order["environment"])  # noqa: TID251
    fault_points.install(Path(order["arming"]))
    kind, *rest = order["command"]
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


def load() -> None:
    """Everything that a part imports, before the first fork."""
    import asyncgate.gate
    import cognigate.gate
    import delegate.gate
    import depotgate.gate
    import interrogate.gate
    import legivellum.gate.composition
    import memorygate.gate
    import metagate_api.server
    import metagate_operator.reconcile.reconciler

    loaded = (
        asyncgate, cognigate, delegate, depotgate, interrogate, legivellum, memorygate, metagate_api, metagate_operator,
    )  # fmt: skip
    assert all(loaded)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load()
    fork_each(run)
