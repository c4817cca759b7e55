"""A PostgreSQL server of our own, for one machine: started, found ready, stopped, and never left behind.

Nothing is trusted: SCRAM on the socket and on loopback, random passwords, kept 0600. The server runs as an unprivileged
account when started as root, under a supervisor process that stops it when its parent ends, however it ends.
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

from metagate_postgres import binaries, cluster, data_layout, previous_run, supervisor
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

    `listen` and `port`: the TCP address; the defaults are loopback and a free port. `settings` are server settings that
    win over ours (tests turn durability off with them). `role_passwords` win over the kept ones. The log goes to
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
        self._layout: data_layout.DataLayout | None = None
        self._sockets: Path | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._lock: int | None = None

    def start(self) -> Self:
        """Start and wait until it accepts connections. Raises a PostgresError that says what to do."""
        if self._supervisor is not None:
            return self
        layout = data_layout.prepare_layout(self.directory)
        self._lock = previous_run.take_lock(layout.lock, patience=30.0)
        self._layout = layout
        try:
            install = binaries.usable_installation(layout.account, data_layout.BINARY_COPY_DIR)
            self._prepare(layout, install)
            self._launch(layout, install)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server cleanly and let go of the directory. Harmless when it is not running."""
        if (running := self._supervisor) is not None:
            self._supervisor = None
            with contextlib.suppress(BrokenPipeError):
                if running.stdin is not None:
                    running.stdin.close()
            running.wait()
        if self._layout is not None and self._sockets is not None:
            data_layout.remove_socket_directory(self._layout, self._sockets)
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

    @property
    def running(self) -> bool:
        return self._supervisor is not None and self._supervisor.poll() is None

    @property
    def server_pid(self) -> int | None:
        """The postmaster's process id, or None when there is none."""
        if self._layout is None:
            return None
        try:
            return int((self._layout.cluster / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0])
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
        return binaries.bundled_installation() / "bin"

    def password(self, role: str) -> str:
        return self._passwords[role]

    def dsn(self, role: str = cluster.OWNER, *, database: str = cluster.DATABASE, tcp: bool = False) -> str:
        """`postgresql://…` for a role, by the socket or by loopback."""
        secret = quote(self._passwords[role], safe="")
        if tcp:
            return f"postgresql://{role}:{secret}@127.0.0.1:{self.port}/{database}"
        where = quote(str(self.socket_directory), safe="")
        return f"postgresql://{role}:{secret}@/{database}?host={where}&port={self.port}"

    def _prepare(self, layout: data_layout.DataLayout, install: Path) -> None:
        kept = layout.passwords.read_bytes() if layout.passwords.exists() else b""
        self._passwords = cluster.passwords(layout, self._given)
        if not (layout.cluster / "PG_VERSION").exists():
            cluster.create(layout, install, self._passwords)
        else:
            layout.tighten()
            previous_run.clear_pid_file(layout.cluster)
            if kept != layout.passwords.read_bytes():
                cluster.change_passwords(layout, install, self._passwords)
        cluster.write_hba(layout, everywhere=self.listen not in {"127.0.0.1", "::1", "localhost"})

    def _launch(self, layout: data_layout.DataLayout, install: Path) -> None:
        """Start the server; a port taken meanwhile and children of a killed server pass by themselves."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.port = self._fixed_port or _free_port(self.listen)
            self._sockets = data_layout.socket_directory(layout, self.port)
            self._supervisor = self._spawn(layout, install)
            if self._wait_until_ready(layout, deadline):
                return
            self._supervisor.wait()
            data_layout.remove_socket_directory(layout, self._sockets)
            log_end = _tail(layout.log)
            transient = "pre-existing shared memory" in log_end or (
                not self._fixed_port and "could not bind" in log_end
            )
            if not transient or time.monotonic() > deadline:
                raise StartFailed(f"PostgreSQL did not start on {layout.cluster}; its log ends:\n{log_end}")
            time.sleep(0.2)

    def _spawn(self, layout: data_layout.DataLayout, install: Path) -> "subprocess.Popen[bytes]":
        with self._log(layout) as log:
            spawned = subprocess.Popen(  # noqa: S603 - our own script
                [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), *self._command(layout, install)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we stop the server in our own order
                pass_fds=() if self._lock is None else (self._lock,),
            )
        account = layout.account
        orders = {
            "parent": os.getpid(),
            "uid": account.uid if account.foreign else None,
            "gid": account.gid,
            "cluster": str(layout.cluster),
        }
        assert spawned.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            spawned.stdin.write(json.dumps(orders).encode() + b"\n")
            spawned.stdin.flush()
        return spawned

    def _log(self, layout: data_layout.DataLayout) -> contextlib.AbstractContextManager[IO[bytes] | None]:
        """Where the server writes: a file that keeps the last two starts, or our own stderr."""
        if self._log_to_stderr:
            return contextlib.nullcontext(None)
        if layout.log.exists():
            layout.log.replace(layout.log.with_suffix(".log.1"))
        return os.fdopen(os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

    def _command(self, layout: data_layout.DataLayout, install: Path) -> Sequence[str]:
        settings = {
            **self._settings,
            "listen_addresses": self.listen,
            "port": str(self.port),
            "unix_socket_directories": str(
                layout.server_path(layout.cluster) if self._sockets == layout.cluster else self._sockets
            ),
            "unix_socket_permissions": "0700",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(install / "bin" / "postgres"), "-D", str(layout.server_path(layout.cluster)), *options]

    def _wait_until_ready(self, layout: data_layout.DataLayout, deadline: float) -> bool:
        """The eighth line of the pid file is the server's own word for it; no password is needed to read it."""
        assert self._supervisor is not None
        pid_file = layout.cluster / "postmaster.pid"
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                lines = pid_file.read_text(encoding="utf-8").splitlines()
                if len(lines) > 7 and lines[7].strip() == "ready":
                    return True
            if self._supervisor.poll() is not None:
                return False
            time.sleep(0.02)
        self._supervisor.send_signal(signal.SIGTERM)
        return False


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace")[-2000:]
    return ""
