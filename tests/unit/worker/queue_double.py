"""The lease verbs of AsyncGate as their contract words them, over a real socket, until a test asks for another answer."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]
CUT = (0, {})
"""The connection breaks after the call was done."""


@dataclass
class QueueDouble:
    """`answers[path]`, in order, replace what would be answered; a function of the usual answer may change it."""

    url: str = ""
    ttl: float = 60.0
    renewals: int = 10
    waiting: list[dict[str, Any]] = field(default_factory=list)
    leased: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)
    ended: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    answers: dict[str, list[Answer | Callable[[Answer], Answer]]] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    numbers: dict[str, int] = field(default_factory=dict)
    idempotent: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    closing: bool = False

    def put(self, task_id: str, capability: str = "index", **fields: Any) -> None:
        with self.changed:
            self.waiting.append(
                {
                    "task_id": task_id,
                    "obligation_id": task_id,
                    "principal_ai": "ada",
                    "payload_pointer": f"s3://documents/{task_id}",
                    "capability": capability,
                    "authority": {"maxDepth": 2},
                    **fields,
                }
            )
            self.changed.notify_all()

    def close(self) -> None:
        """End every long poll, as AsyncGate does when the caller has left."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()

    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]

    def wait_until(self, condition: Callable[[], object], seconds: float = 15) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, seconds), (self.paths(), self.ended)

    def wait_for_end(self, task_id: str, seconds: float = 15) -> dict[str, Any]:
        self.wait_until(lambda: task_id in self.ended, seconds)
        return self.ended[task_id]

    def wait_for(self, path: str, number: int = 1, seconds: float = 15) -> None:
        self.wait_until(lambda: self.paths().count(path) >= number, seconds)

    def handle(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        with self.changed:
            self.requests.append((path, body, headers))
            self.changed.notify_all()
            special = self.answers.get(path)
            first = special.pop(0) if special else None
            if isinstance(first, tuple) and first is not CUT:
                return first
            usual = self.lease(body, headers) if path == "/lease" else self.under_lease(path, body)
            self.changed.notify_all()
            if first is CUT:
                return CUT
            return first(usual) if callable(first) else usual

    def lease(self, body: dict[str, Any], headers: dict[str, str]) -> Answer:
        key = headers["idempotency-key"]
        if key in self.idempotent:
            return 200, {"leases": self.idempotent[key]}
        end = time.monotonic() + body.get("wait_seconds", 0)

        def eligible() -> list[dict[str, Any]]:
            return [task for task in self.waiting if task["capability"] in body["capabilities"]]

        self.changed.wait_for(lambda: eligible() or self.closing, max(0.0, end - time.monotonic()))
        leases = []
        for task in eligible()[: body.get("most", 1)]:
            self.waiting.remove(task)
            number = self.numbers[task["task_id"]] = self.numbers.get(task["task_id"], 0) + 1
            lease_id = f"{task['task_id']}#{number}"
            self.leased[lease_id] = (task, time.monotonic() + self.ttl)
            leases.append(
                {
                    "lease_id": lease_id,
                    "number": number,
                    "issued_at": "2027-01-01T00:00:00.000000Z",
                    "expires_at": "2027-01-01T00:01:00.000000Z",
                    "expires_in_ms": round(self.ttl * 1000),
                    "latest_expiry": "2027-01-01T02:00:00.000000Z",
                    "renewals_left": self.renewals,
                    "evidence": task.get("evidence", []),
                    "root_task_id": "root",
                    "depth": 1,
                    "task": task,
                }
            )
        self.idempotent[key] = leases
        return 200, {"leases": leases}

    def under_lease(self, path: str, body: dict[str, Any]) -> Answer:
        task, until = self.leased.get(body["lease_id"], ({}, 0.0))
        if path == "/complete" and (known := self.ended.get(body["lease_id"].partition("#")[0])) == body:
            return 200, {"task_id": known["lease_id"].partition("#")[0]}
        if until < time.monotonic():
            return problem(409, "LEASE_LOST")
        if path == "/lease/renew":
            self.leased[body["lease_id"]] = (task, time.monotonic() + self.ttl)
            return 200, {"expires_in_ms": round(self.ttl * 1000), "renewals_left": 5, "expires_at": "later"}
        del self.leased[body["lease_id"]]
        if path == "/lease/release":
            self.ended[f"released {task['task_id']}"] = body
            return 200, {"task_id": task["task_id"], "available_at": "now"}
        self.ended[task["task_id"]] = body
        return 200, {"task_id": task["task_id"]}


def problem(status: int, code: str) -> Answer:
    return status, {"type": "about:blank", "title": code, "status": status, "detail": "because", "code": code}


@contextmanager
def queue_double() -> Iterator[QueueDouble]:
    made = QueueDouble()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = made.handle(self.path, body, headers)
            if status:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A worker that was killed leaves broken connections behind."""

    server = Server(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    serving.start()
    try:
        yield made
    finally:
        made.close()
        server.shutdown()
        server.server_close()
        serving.join(5)
