"""A worker's AsyncGate: the gate as a process of its own, behind a relay that records every call, and breaks those that a test
names. What a worker did is read from the calls and from the ledger.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import uuid4

from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.memorygate.ledger_fixture import free_port
from tests.threaded_server import threaded_server

SERVE = "from asyncgate.main import main; main()"


@dataclass
class RunningGate:
    """`asyncgate serve`, which can be killed and started again at the same address."""

    tenant: TaskTenant
    port: int = field(default_factory=free_port)
    ceilings: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "DATABASE_URL": self.tenant.database.broker,
            "IDENTITY_DATABASE_URL": self.tenant.database.database.identity,
            "PORT": str(self.port),
            "IDENTITY_POLL_MS": "20",
            "RATE_PER_SECOND": "0",
            "PASS_SECONDS": "0.5",
            "DEADLINE_MS": "5000",
            **({} if self.ceilings is None else {"CEILINGS_FILE": self.ceilings}),
        }
        environ = {**os.environ, **{f"ASYNCGATE_{name}": value for name, value in settings.items()}}  # noqa: TID251
        environ |= self.environment
        self.running = subprocess.Popen([sys.executable, "-c", SERVE, "serve"], env=environ, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5),
            ):
                return
            assert self.running.poll() is None, "the gate ended"
            assert time.monotonic() < until, "the gate is not ready"
            time.sleep(0.05)

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.running.wait(20)

    def stop(self) -> None:
        if self.running is not None:
            self.running.send_signal(signal.SIGTERM)
            self.running.wait(30)


Answer = tuple[int, dict[str, Any]]
Special = Answer | str
CUT = "the answer is lost"
REFUSED = "the call does not arrive"
KILLED_BEFORE = "the gate is killed before the call arrives"
KILLED_AFTER = "the gate is killed when it has done the call, and the answer is lost"


def problem(status: int, code: str) -> Answer:
    return status, {"type": "about:blank", "title": code, "status": status, "detail": "because", "code": code}


@dataclass
class WorkersGate:
    """What a test sees of the gate. `answers[path]`, in order: what becomes of the next calls there; then all go through."""

    gate: RunningGate
    url: str = ""
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By task id, or `released <task id>`: the body of the call that ended the lease."""
    leased: dict[str, str] = field(default_factory=dict)
    """Task id of each lease that a worker knows of and that has not ended."""
    answers: dict[str, list[Special]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    ttl: int = 60
    unique: str = field(default_factory=lambda: uuid4().hex[:12])
    """Ends the names of a test's tasks and mailboxes: the tests of a module share one gate."""

    def box(self, capability: str) -> str:
        return f"{capability}-{self.unique}"

    @property
    def tenant(self) -> TaskTenant:
        return self.gate.tenant

    def put(self, task_id: str, capability: str = "index", **fields: Any) -> None:
        """Minted and parked, past the relay."""
        asyncio.run(self.tenant.mint(self.box(task_id)))
        task = {
            "task_id": self.box(task_id),
            "principal_ai": "principal",
            "payload_pointer": f"s3://documents/{task_id}",
            "capability": self.box(capability),
            "lease": {"ttl_seconds": self.ttl},
            **fields,
        }
        status, body = self.ask("principal", "/tasks", task)
        assert status == 201, body

    def ask(self, who: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json", **self.tenant.principals[who].headers}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.gate.port}{path}", json.dumps(body).encode(), headers, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def phases(self, task_id: str) -> list[str]:
        return asyncio.run(self.tenant.phases(self.box(task_id)))

    def stored_at(self, task_id: str) -> dict[str, datetime]:
        """When the first receipt of each phase was stored, by the database's clock."""
        receipts = asyncio.run(self.tenant.stored_at(self.box(task_id)))
        return dict(reversed(receipts))

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def wait_until(self, condition: Callable[[], object], seconds: float = 40) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), (self.paths(), self.ended)

    def wait_for_end(self, task_id: str, seconds: float = 40) -> dict[str, Any]:
        """What was sent to end it, but for the lease."""
        self.wait_until(lambda: task_id in self.ended, seconds)
        return {name: value for name, value in self.ended[task_id].items() if name != "lease_id"}

    def wait_for(self, path: str, number: int = 1, seconds: float = 40) -> None:
        self.wait_until(lambda: self.paths().count(path) >= number, seconds)

    def _short(self, task_id: str) -> str:
        return task_id.removesuffix(f"-{self.unique}")

    # ── the relay ────────────────────────────────────────────────────────────────────────────────────────────────────

    def relay(self, connection: socket.socket) -> None:
        """One call: every request of a worker has a connection of its own."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            part = connection.recv(65_536)
            if not part:
                return
            raw += part
        head, _, body = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65_536)
        path, sent = first.split(" ")[1], json.loads(body)
        with self.changed:
            self.requests.append((path, sent, headers))
            special = self.answers[path].pop(0) if self.answers.get(path) else None
            self.changed.notify_all()
        if isinstance(special, tuple):
            connection.sendall(_response(*special))
            return
        if special == KILLED_BEFORE:
            self.gate.kill()
            self.gate.start()
        if special in {KILLED_BEFORE, REFUSED}:
            return
        answer = self._forwarded(connection, head + b"\r\n\r\n" + body)
        if special == KILLED_AFTER:
            self.gate.kill()
            self.gate.start()
        self._note(path, sent, answer)
        if special not in {CUT, KILLED_AFTER}:
            with contextlib.suppress(OSError):
                connection.sendall(answer)

    def _forwarded(self, connection: socket.socket, request: bytes) -> bytes:
        answer = b""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.gate.port), 20) as upstream:
            upstream.sendall(request)
            sources = [upstream, connection]
            while True:
                readable, _, _ = select.select(sources, [], [], 40)
                if connection in readable and not connection.recv(1):
                    sources.remove(connection)
                    upstream.shutdown(socket.SHUT_WR)  # the worker has left
                if upstream in readable:
                    part = upstream.recv(65_536)
                    if not part:
                        break
                    answer += part
        return answer

    def _note(self, path: str, sent: dict[str, Any], answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 200"):
            return
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        with self.changed:
            if path == "/lease":
                self.leased |= {lease["lease_id"]: self._short(lease["task"]["task_id"]) for lease in body["leases"]}
            elif path != "/lease/renew":
                self.leased.pop(sent["lease_id"], None)
                task_id = self._short(body["task_id"])
                self.ended[f"released {task_id}" if path == "/lease/release" else task_id] = sent
            self.changed.notify_all()


def _response(status: int, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    return b"HTTP/1.1 %d Text\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(content), content)


@contextmanager
def workers_gate(gate: RunningGate) -> Iterator[WorkersGate]:
    """A relay of a test's own before the gate."""
    made = WorkersGate(gate)
    with threaded_server(made.relay) as made.url:
        yield made
