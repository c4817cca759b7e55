"""The gate as a process of its own, as it is served: for faults, signals and tests that block."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from tests.cluster.control_plane import free_ports
from tests.databases import Database
from tests.integration.api.gate_fixture import SECRET

CODE = "import sys; from metagate_api.server import run; from metagate_api.settings import Settings; sys.exit(run(Settings()))"


def free_port() -> int:
    """Below the ports that the kernel gives to outgoing connections: one of those could take it before it is used."""
    return free_ports(1)


@contextlib.contextmanager
def process(database: Database, **environment: str) -> Iterator[tuple[str, int]]:
    """Host and port of a gate that says it is ready."""
    with started(database, **environment) as (_process, port):
        yield "127.0.0.1", port


@contextlib.contextmanager
def started(database: Database | str, **environment: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    port = free_port()
    environ = {
        **os.environ,  # noqa: TID251
        "DATABASE_URL": database if isinstance(database, str) else database.api,
        "JWT_SECRET": SECRET,
        "METAGATE_PORT": str(port),
        "METAGATE_CREDENTIALS_POLL_MS": "50",
        **environment,
    }
    # A file, not a pipe: nobody reads while the test runs, and a full pipe would stop the gate in its log line.
    log = tempfile.TemporaryFile()  # noqa: SIM115
    served = subprocess.Popen([sys.executable, "-c", CODE], env=environ, stderr=log)
    try:
        wait_for(port, served, "/livez")
        yield served, port
    finally:
        if served.poll() is None:
            served.send_signal(signal.SIGTERM)
            try:
                served.wait(15)
            except subprocess.TimeoutExpired:
                served.kill()
                served.wait()
        log.close()


def wait_for(port: int, served: "subprocess.Popen[bytes]", path: str) -> None:
    for _ in range(1200):
        if served.poll() is not None:
            raise AssertionError(f"the gate ended with {served.returncode}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
            return
        time.sleep(0.05)
    raise AssertionError("the gate did not start")
