"""A MetaGate that answers from a script, over a real socket, and remembers what it was asked."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

STARTUP = "0197a3c2-5d1e-7c3a-9b1f-2f6d1c0a4e55"
PACKET = {
    "packet_id": "0197a3c2-5d1e-7c3a-9b1f-000000000001",
    "issued_at": "2026-05-04T12:00:00Z",
    "principal_key": "indexer",
    "component_key": "indexer_main",
    "environment": {"region": "north", "replicas": 3},
    "services": {
        "memorygate": {"type": "memorygate", "endpoint": "http://memorygate:8001"},
        "mail.internal": {"type": "smtp", "endpoint": "smtp://mail"},
        "mail2": {"type": "smtp", "endpoint": "smtp://mail2"},
    },
    "polling": {"inbox": {"endpoint": "http://memorygate:8001/inbox"}},
    "required_env": [{"name": "db", "ref_kind": "Env", "ref_name": "DB_PASSWORD", "required": True}],
    "startup": {"startup_id": STARTUP, "status": "OPEN"},
}


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: Any
    at: float


Reply = bytes | Callable[[socket.socket], None]


def reply(status: int = 200, body: Any = None, **headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(PACKET if body is None else body).encode()
    lines = [f"HTTP/1.1 {status} Text", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def problem(status: int, code: str, detail: str = "because", **headers: str) -> bytes:
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code}
    return reply(status, body, **headers)


def recorded(status: str) -> bytes:
    return reply(200, {"startup_id": STARTUP, "status": status, "acknowledged_at": "now", "late": False})


@dataclass
class Double:
    """`script` is answered in order; when it is empty, what the path asks for is answered well."""

    port: int = 0
    script: list[Reply] = field(default_factory=list)
    requests: list[Asked] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def paths(self) -> list[str]:
        return [item.path.removeprefix("/v1/") for item in self.requests]

    def wait_for(self, number: int, seconds: float = 10) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.requests) >= number, seconds), self.paths()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            raw = b""
            while b"\r\n\r\n" not in raw:
                raw += connection.recv(65536) or b"\r\n\r\n"
            head, _, body = raw.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            if not first:
                return
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
            while len(body) < int(headers.get("content-length", "0")):
                body += connection.recv(65536)
            path = first.split(" ")[1]
            with self.came:
                self.requests.append(Asked(path, headers, json.loads(body or b"null"), time.monotonic()))
                answer = self.script.pop(0) if self.script else self.usual(path)
                self.came.notify_all()
            if callable(answer):
                answer(connection)
            else:
                connection.sendall(answer)

    @staticmethod
    def usual(path: str) -> bytes:
        return recorded(path.rsplit("/", 1)[1].upper()) if "/startup/" in path else reply()


@contextmanager
def double(*script: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Double]:
    made = Double(script=list(script))
    listener = socket.create_server(("127.0.0.1", 0))
    made.port = listener.getsockname()[1]
    threads: list[threading.Thread] = []

    def one(connection: socket.socket) -> None:
        try:
            made.serve(tls.wrap_socket(connection, server_side=True) if tls else connection)
        except (OSError, IndexError):
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=one, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join(5)
        for thread in threads:
            thread.join(5)
