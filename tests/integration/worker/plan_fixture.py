"""A plan whose steps are leased: ledger, AsyncGate and DepotGate as processes on one database, each behind a relay that
counts its calls and kills the gate at one that a test names. What came of the steps is read from the ledger.
"""

import asyncio
import contextlib
import hashlib
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.asyncgate.conftest import append, receipt_body
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.asyncgate.worker_fixture import KILLED_AFTER, KILLED_BEFORE
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import free_port
from tests.threaded_server import threaded_server

from asyncgate.task import EMITTER
from legivellum.base.canonical_json import canonical

GRANTED = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
CEILING = (
    "- {namespaces: ['*'], authority: {writeBeyondReceipts: true, sinks: [depotgate/output, depotgate/supporting]}}\n"
)


@dataclass
class RelayedGate:
    """A gate's process and the relay before it."""

    name: str
    environment: dict[str, str]
    port: int = field(default_factory=free_port)
    kills: dict[str, str] = field(default_factory=dict)
    """`METHOD path`: when the gate is killed at the next call whose path begins like that, once."""
    calls: list[str] = field(default_factory=list)
    url: str = ""
    running: subprocess.Popen[bytes] | None = None
    _restarting: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        command = [sys.executable, "-c", f"from {self.name}.main import main; main()", "serve"]
        own = {f"{self.name.upper()}_{name}": value for name, value in self.environment.items()}
        environ = {**os.environ, **own, f"{self.name.upper()}_PORT": str(self.port)}  # noqa: TID251 - of a child
        self.running = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5),
            ):
                return
            assert self.running.poll() is None, f"{self.name} ended"
            assert time.monotonic() < until, f"{self.name} is not ready"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.running is not None:
            self.running.send_signal(signal.SIGTERM)
            self.running.wait(30)

    def kill_and_start(self) -> None:
        with self._restarting:
            assert self.running is not None
            self.running.kill()
            self.running.wait(20)
            self.start()

    def relay(self, client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            part = client.recv(65_536)
            if not part:
                return
            head += part
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        call = f"{method} {path}"
        self.calls.append(call)
        when = next((self.kills.pop(prefix) for prefix in list(self.kills) if call.startswith(prefix)), None)
        if when == KILLED_BEFORE:
            self.kill_and_start()
            return
        answer = self._forwarded(client, head, withheld=when == KILLED_AFTER)
        if when == KILLED_AFTER:
            assert answer.partition(b" ")[2].startswith((b"200", b"201", b"100")), answer
            self.kill_and_start()

    def _forwarded(self, client: socket.socket, head: bytes, *, withheld: bool) -> bytes:
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), 20) as upstream:
            upstream.sendall(head)
            sources = [upstream, client]
            while True:
                readable, _, _ = select.select(sources, [], [], 60)
                if client in readable:
                    if part := client.recv(65_536):
                        upstream.sendall(part)
                    else:
                        sources.remove(client)
                        upstream.shutdown(socket.SHUT_WR)
                if upstream in readable:
                    part = upstream.recv(65_536)
                    if not part:
                        return answer
                    answer += part
                    if not withheld:
                        client.sendall(part)

    @contextmanager
    def relayed(self) -> Iterator[None]:
        with threaded_server(self.relay) as self.url:
            yield


@dataclass
class PlanGates:
    """The gates of a module's tests, and what a delegate does before its gate is there: plans, obligations, tasks."""

    tenant: TaskTenant
    memorygate: RelayedGate
    asyncgate: RelayedGate
    depotgate: RelayedGate

    @property
    def all(self) -> tuple[RelayedGate, ...]:
        return self.memorygate, self.asyncgate, self.depotgate

    def environment(self, folder: Path) -> dict[str, str]:
        """The settings of a worker."""
        key = folder / "worker.key"
        key.write_text(self.tenant.principals["worker"].key)
        urls = {f"METAGATE_{gate.name.upper()}_URL": gate.url for gate in self.all}
        return {**urls, "METAGATE_API_KEY_FILE": str(key)}

    # ── what a delegate does ─────────────────────────────────────────────────────────────────────────────────────────

    def deposit(self, who: str, content: bytes, role: str, media_type: str = "text/plain") -> str:
        """The pointer of an artifact that `who` stored."""
        headers = {"Content-Type": media_type, **self.tenant.principals[who].headers}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.depotgate.port}/artifacts?role={role}", content, headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return str(json.load(answer)["pointer"])

    def plan(self, *steps: dict[str, Any], capability: str = "index") -> "RunningPlan":
        """Steps with what they need beyond their id: `job`, `escalation`, `authority`, `depends_on`; `task`: members of the task alone."""
        plan_id = new_id()
        documents = [
            {
                "step_id": step["step_id"],
                "kind": "task",
                "task_id": f"{plan_id}.{step['step_id']}",
                "capability": step.get("capability", capability),
                "depends_on": step.get("depends_on", []),
                "job": step.get("job", {}),
                "escalation": step.get("escalation", []),
                "authority": step.get("authority", {}),
            }
            for step in steps
        ]
        body = canonical({"schema": "1", "plan_id": plan_id, "steps": documents})
        pointer = self.deposit("delegate", body, "plan", "application/vnd.legivellum.plan+json")
        plan = RunningPlan(self, plan_id, pointer)
        asyncio.run(self._mint([document["task_id"] for document in documents]))
        for document, step in zip(documents, steps, strict=True):
            self._enqueue(plan, document, **step.get("task", {}))
        return plan

    async def _mint(self, task_ids: Sequence[str]) -> None:
        bodies = [
            receipt_body(
                self.tenant.uid, "delegate", phase="accepted", task_id=name, obligation_id=name,
                principal_ai="principal", recipient_ai=EMITTER,
            )
            for name in task_ids
        ]  # fmt: skip
        assert await append(self.tenant.database.ledger.writer, bodies) == ["STORED"] * len(bodies)

    def _enqueue(self, plan: "RunningPlan", document: dict[str, Any], **more: Any) -> None:
        self._park(
            task_id=document["task_id"],
            payload_pointer=f"{plan.pointer}#{document['step_id']}",
            capability=document["capability"],
            needs=[f"{plan.plan_id}.{name}" for name in document["depends_on"]],
            authority=document["authority"],
            escalation_to=[rule["to"] for rule in document["escalation"]],
            **more,
        )

    def put(self, task_id: str, payload_pointer: str, capability: str) -> None:
        """A task with a payload of the caller's choice."""
        asyncio.run(self._mint([task_id]))
        self._park(task_id=task_id, payload_pointer=payload_pointer, capability=capability)

    def _park(self, **task: Any) -> None:
        headers = {"Content-Type": "application/json", **self.tenant.principals["delegate"].headers}
        body = json.dumps({"principal_ai": "principal", **task}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.asyncgate.port}/tasks", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.status == 201

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────

    def artifact(self, pointer: str) -> tuple[bytes, str]:
        """Its bytes, checked, and their media type."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.depotgate.port}/artifacts/{pointer}",
            headers=self.tenant.principals["observer"].headers,
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            content = answer.read()
            assert pointer.endswith(hashlib.sha256(content).hexdigest())
            return content, answer.headers["Content-Type"]

    def artifacts_of(self, task_id: str) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.depotgate.port}/artifacts?task_id={task_id}",
            headers=self.tenant.principals["observer"].headers,
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return list(json.load(answer)["items"])


@dataclass
class RunningPlan:
    gates: PlanGates
    plan_id: str
    pointer: str

    def task_id(self, step_id: str) -> str:
        return f"{self.plan_id}.{step_id}"

    def receipts(self, step_id: str) -> list[dict[str, Any]]:
        return asyncio.run(self.gates.tenant.receipts(self.task_id(step_id)))

    def phases(self, step_id: str) -> list[str]:
        return [receipt["phase"] for receipt in self.receipts(step_id)]

    def wait_for(self, step_id: str, *phases: str, seconds: float = 60) -> dict[str, Any]:
        """The first receipt of the step that is of one of these phases: its end, unless others are named."""
        wanted = phases or ("complete", "escalate")
        until = time.monotonic() + seconds
        while True:
            receipts = self.receipts(step_id)
            for receipt in receipts:
                if receipt["phase"] in wanted:
                    return receipt
            assert time.monotonic() < until, [receipt["phase"] for receipt in receipts]
            time.sleep(0.05)


def gates_of(tenant: TaskTenant, database: DepotDatabase, folder: Path) -> PlanGates:
    """Not yet started."""
    ceilings = folder / "ceilings.yaml"
    ceilings.write_text(CEILING)
    store = folder / "store"
    store.mkdir()
    usual = {
        "IDENTITY_DATABASE_URL": database.database.identity,
        "IDENTITY_POLL_MS": "20",
        "RATE_PER_SECOND": "0",
        "DEADLINE_MS": "10000",
    }
    ledger = {**usual, "DATABASE_URL": database.tasks.ledger.writer}
    broker = {**usual, "DATABASE_URL": database.tasks.broker, "PASS_SECONDS": "0.5", "CEILINGS_FILE": str(ceilings)}
    keeper = {**usual, "DATABASE_URL": database.keeper, "STORE": f"file://{store}"}
    return PlanGates(
        tenant, RelayedGate("memorygate", ledger), RelayedGate("asyncgate", broker), RelayedGate("depotgate", keeper)
    )
