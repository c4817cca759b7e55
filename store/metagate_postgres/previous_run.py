"""What a start may find of an earlier one, and how it is cleared.

The lock is an flock, so it ends with its holders, however they end. Whoever holds it owns the directory: a server still
running there belongs to nobody and is stopped; a pid file whose process is not our server is removed (PostgreSQL itself
would refuse to start when that pid has been given to some other process meanwhile).
"""

import contextlib
import fcntl
import os
import signal
import time
from pathlib import Path

from metagate_postgres.errors import AlreadyRunning, StartFailed


def take_lock(lock: Path, *, patience: float) -> int:
    """The locked descriptor. A predecessor that is stopping its server gets `patience` seconds."""
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            if _alive(holder) or time.monotonic() > deadline:
                os.close(descriptor)
                raise AlreadyRunning(
                    f"{lock.parent} is in use by process {holder or '?'}: one server per data directory"
                ) from None
            time.sleep(0.05)
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            return descriptor


def _alive(pid: str) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def clear_pid_file(cluster: Path, *, patience: float = 15.0) -> None:
    """Stop a server that outlived its supervisor, or remove the pid file of one that is gone."""
    pid_file = cluster / "postmaster.pid"
    try:
        first, *rest = pid_file.read_text(encoding="utf-8").splitlines()
        pid = int(first)
    except (FileNotFoundError, ValueError):
        pid_file.unlink(missing_ok=True)
        return
    if _is_server_of(pid, cluster):
        _stop(pid, cluster, patience)
    pid_file.unlink(missing_ok=True)
    if len(rest) > 3 and rest[3]:
        (cluster / f".s.PGSQL.{rest[2]}.lock").unlink(missing_ok=True)


def _is_server_of(pid: int, cluster: Path) -> bool:
    """The server's working directory is its cluster; nothing else's is."""
    try:
        return cluster.samefile(f"/proc/{pid}/cwd")
    except OSError:
        return not Path("/proc/self").exists() and _alive(str(pid))


def _stop(pid: int, cluster: Path, patience: float) -> None:
    for number, share in ((signal.SIGINT, 0.7), (signal.SIGQUIT, 0.2), (signal.SIGKILL, 0.1)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline = time.monotonic() + patience * share
        while time.monotonic() < deadline:
            if not _is_server_of(pid, cluster):
                return
            time.sleep(0.05)
    raise StartFailed(f"the server (process {pid}) left on {cluster} does not stop")
