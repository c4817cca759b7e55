"""A PostgreSQL server of our own, for one machine: started, found ready, stopped, and never left behind.

Nothing is trusted: SCRAM on the socket and on loopback, random passwords, kept 0600. The server runs as an unprivileged
account when started as root, under a keeper process that stops it when its parent ends, however it ends.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from urllib.parse import quote

from metagate_postgres import binaries, cluster, keeper, leftovers, places
from metagate_postgres.errors import PostgresError, StartFailed

SETTINGS: Mapping[str, str] = {
    "shared_buffers": "128MB",
    "max_connections": "200",
    "max_wal_size": "1GB",
    "jit": "off",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u@%d ",
    "cluster_name": "metagate",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
START_SECONDS = 60.0


class EmbeddedPostgres:
    """One server on one data directory. Blocking: from asyncio call `start` and `stop` through `asyncio.to_thread`.

    `listen` and `port`: the TCP address, loopback and a free port unless said otherwise. `settings` are server settings
    that win over ours (tests turn durability off with them). `role_passwords` win over the kept ones. The log goes to
    `postgres.log` in the directory unless `log_to_stderr`.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        listen: str = "127.0.0.1",
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        role_passwords: Mapping[str, str] | None = None,
        log_to_stderr: bool = False,
    ) -> None:
        self.directory = Path(directory)
        self.listen = listen
        self.port = port or 0
        self._fixed_port = port
        self._settings = {**SETTINGS, **(settings or {})}
        self._given = dict(role_passwords or {})
        self._log_to_stderr = log_to_stderr
        self._passwords: dict[str, str] = {}
        self._places: places.Places | None = None
        self._sockets: Path | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def start(self) -> Self:
        """Start and wait until it accepts connections. Raises a PostgresError that says what to do."""
        if self._keeper is not None:
            return self
        settled = places.settle(self.directory)
        self._lock = leftovers.take_lock(settled.lock, patience=30.0)
        self._places = settled
        try:
            install = binaries.runnable(settled.account, places.SHELF)
            self._prepare(settled, install)
            self._launch(settled, install)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server cleanly and let go of the directory. Harmless when it is not running."""
        if (running := self._keeper) is not None:
            self._keeper = None
            with contextlib.suppress(BrokenPipeError):
                if running.stdin is not None:
                    running.stdin.close()
            running.wait()
        if self._places is not None and self._sockets is not None:
            places.forget_socket_directory(self._places, self._sockets)
            self._sockets = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ── what one asks of it ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def running(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def server_pid(self) -> int | None:
        """The postmaster's process id, or None when there is none."""
        if self._places is None:
            return None
        try:
            return int((self._places.cluster / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    @property
    def socket_directory(self) -> Path:
        if self._sockets is None:
            raise PostgresError("not started")
        return self._sockets

    @property
    def binaries(self) -> Path:
        """The bundled programs (psql, pg_dump, pgbench, …)."""
        return binaries.bundled() / "bin"

    def password(self, role: str) -> str:
        return self._passwords[role]

    def dsn(self, role: str = cluster.OWNER, *, database: str = cluster.DATABASE, tcp: bool = False) -> str:
        """`postgresql://…` for a role, by the socket or by loopback."""
        secret = quote(self._passwords[role], safe="")
        if tcp:
            return f"postgresql://{role}:{secret}@127.0.0.1:{self.port}/{database}"
        where = quote(str(self.socket_directory), safe="")
        return f"postgresql://{role}:{secret}@/{database}?host={where}&port={self.port}"

    # ── how it is done ───────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare(self, settled: places.Places, install: Path) -> None:
        kept = settled.passwords.read_bytes() if settled.passwords.exists() else b""
        self._passwords = cluster.passwords(settled, self._given)
        if not (settled.cluster / "PG_VERSION").exists():
            cluster.create(settled, install, self._passwords)
        else:
            settled.tighten()
            leftovers.clear_pid_file(settled.cluster)
            if kept != settled.passwords.read_bytes():
                cluster.change_passwords(settled, install, self._passwords)
        cluster.write_hba(settled, everywhere=self.listen not in {"127.0.0.1", "::1", "localhost"})

    def _launch(self, settled: places.Places, install: Path) -> None:
        """Start the server; a port taken meanwhile and children of a killed server pass by themselves."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.port = self._fixed_port or _free_port(self.listen)
            self._sockets = places.socket_directory(settled, self.port)
            self._keeper = self._spawn(settled, install)
            if self._became_ready(settled, deadline):
                return
            self._keeper.wait()
            places.forget_socket_directory(settled, self._sockets)
            said = _tail(settled.log)
            passing = "pre-existing shared memory" in said or (not self._fixed_port and "could not bind" in said)
            if not passing or time.monotonic() > deadline:
                raise StartFailed(f"PostgreSQL did not start on {settled.cluster}; its log ends:\n{said}")
            time.sleep(0.2)

    def _spawn(self, settled: places.Places, install: Path) -> "subprocess.Popen[bytes]":
        with self._log(settled) as log:
            spawned = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", str(Path(keeper.__file__)), *self._command(settled, install)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the server in our own order
                pass_fds=() if self._lock is None else (self._lock,),
            )
        account = settled.account
        orders = {
            "parent": os.getpid(),
            "uid": account.uid if account.foreign else None,
            "gid": account.gid,
            "cluster": str(settled.cluster),
        }
        assert spawned.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            spawned.stdin.write(json.dumps(orders).encode() + b"\n")
            spawned.stdin.flush()
        return spawned

    def _log(self, settled: places.Places) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        """Where the server writes: a file that keeps the last two starts, or our own stderr."""
        if self._log_to_stderr:
            return contextlib.nullcontext(None)
        if settled.log.exists():
            settled.log.replace(settled.log.with_suffix(".log.1"))
        return os.fdopen(os.open(settled.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def _command(self, settled: places.Places, install: Path) -> Sequence[str]:
        told = {
            **self._settings,
            "listen_addresses": self.listen,
            "port": str(self.port),
            "unix_socket_directories": str(
                settled.told(settled.cluster) if self._sockets == settled.cluster else self._sockets
            ),
            "unix_socket_permissions": "0700",
        }
        options = [part for name, value in told.items() for part in ("-c", f"{name}={value}")]
        return [str(install / "bin" / "postgres"), "-D", str(settled.told(settled.cluster)), *options]

    def _became_ready(self, settled: places.Places, deadline: float) -> bool:
        """The eighth line of the pid file is the server's own word for it; no password is needed to read it."""
        assert self._keeper is not None
        pid_file = settled.cluster / "postmaster.pid"
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = pid_file.read_text(encoding="utf-8").splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready":
                    return True
            if self._keeper.poll() is not None:
                return False
            time.sleep(0.02)
        self._keeper.send_signal(signal.SIGTERM)
        return False


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return ""
