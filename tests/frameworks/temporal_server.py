"""Temporal's test server, which comes from Maven Central by tests/frameworks/temporal/pom.xml."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.integration.memorygate.ledger_fixture import free_port

ROOT = Path(__file__).resolve().parents[2]
TEMPORAL_JARS = ROOT / ".venv-temporal"


@dataclass
class TemporalServer:
    log: Path
    port: int = field(default_factory=free_port)

    @contextmanager
    def running(self) -> Iterator[Self]:
        command = ["java", "-cp", f"{TEMPORAL_JARS}/*", "io.temporal.testserver.TestServer", str(self.port)]
        with self.log.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait(process)
            yield self
        finally:
            process.terminate()
            process.wait(20)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, "Temporal's test server is not ready"
            time.sleep(0.05)
