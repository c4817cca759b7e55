"""The process between us and the server: it sees to it that the server never outlives whoever started it.

Run as a script (standard library only, no site-packages) with the server's command line as arguments and a JSON object
as the first line of stdin: {"parent", "uid", "gid", "cluster"}. Then it waits for one of

- stdin ends: we were asked to stop, or the parent is gone;
- the parent's process ends (a pidfd; a leaked copy of the pipe in some grandchild must not keep the server alive);
- SIGTERM or SIGINT;
- the server ends by itself.

and stops the server fast (SIGINT), then at once (SIGQUIT), then hard (SIGKILL). Should the supervisor itself be killed,
the kernel sends the server SIGINT: the supervisor's only thread forked it, so PR_SET_PDEATHSIG is about the process.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PR_SET_PDEATHSIG = 1
PATIENCE = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))


def _die_with(parent: int) -> Callable[[], None]:
    """What the server does between fork and exec; after the change of uid, which would reset it."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

    def ask() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return ask


def _wake_on_signals() -> int:
    """A descriptor that becomes readable on SIGTERM, SIGINT and when the server ends."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    return reading


def _pidfd(pid: int) -> int | None:
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    with contextlib.suppress(OSError):
        return int(opener(pid))
    return None


def _wait(server: "subprocess.Popen[bytes]", parent: int, signals: int) -> None:
    """Return when the server ended or has to."""
    watched = [sys.stdin.fileno(), signals]
    if (parent_fd := _pidfd(parent)) is not None:
        watched.append(parent_fd)
    while server.poll() is None and os.getppid() == parent:
        ready, _, _ = select.select(watched, [], [], 5.0)
        if signals in ready and not set(os.read(signals, 64)) - {signal.SIGCHLD}:
            ready.remove(signals)
        if ready:
            return


def _stop(server: "subprocess.Popen[bytes]") -> None:
    for number, seconds in PATIENCE:
        if server.poll() is not None:
            return
        server.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(seconds)


def _first_line(descriptor: int) -> bytes:
    """Unbuffered: whatever follows must still wake `select`."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(descriptor, 1)):
        line += byte
    return line


def main(command: list[str]) -> int:
    orders: dict[str, Any] = json.loads(_first_line(sys.stdin.fileno()))
    signals = _wake_on_signals()
    account: dict[str, Any] = {}
    if orders["uid"] is not None:
        account = {"user": orders["uid"], "group": orders["gid"], "extra_groups": []}
    server = subprocess.Popen(  # noqa: S603 - the command is our launcher's
        command,
        stdin=subprocess.DEVNULL,
        cwd=orders["cluster"],  # entered before root is given up
        umask=0o077,
        preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - one thread only
        **account,
    )
    _wait(server, orders["parent"], signals)
    _stop(server)
    return server.returncode if server.returncode is not None and server.returncode >= 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
