"""A chat-completions server that answers as a test tells it: well, badly, or not at all."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answering = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 7}}


def completion(
    text: str | None = "done", *, finish: str = "stop", usage: Any = USAGE, calls: list[tuple[str, Any]] | None = None
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [
            {"id": f"call-{n}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for n, (name, arguments) in enumerate(calls)
        ]
        finish = "tool_calls"
    document = {"model": "claimed", "choices": [{"message": message, "finish_reason": finish}]}
    return document if usage is None else {**document, "usage": usage}


def send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, media: str = "application/json", **headers: str
) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": media, "Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def replies(document: Any, seconds: float = 0.0) -> Answering:
    def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
        time.sleep(seconds)
        send(handler, 200, json.dumps(document).encode())

    return answer


def raw(body: bytes, status: int = 200, media: str = "application/json", **headers: str) -> Answering:
    return lambda handler, _: send(handler, status, body, media, **headers)


def cut(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
    """Half of a reply, and then nothing more."""
    body = json.dumps(completion()).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class ModelServer:
    """`script` holds the answers to come, `otherwise` what is answered when it is empty."""

    script: list[Answering] = field(default_factory=list)
    otherwise: Answering = field(default_factory=lambda: replies(completion()))
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        self.over.set()
        self.over = threading.Event()
        self.script, self.asked, self.headers = [], [], []
        self.otherwise = replies(completion())

    def silent(self) -> Answering:
        """No answer before the test is over."""
        over = self.over

        def answer(_handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
            over.wait(60)

        return answer

    def trickling(self) -> Answering:
        """A byte now and then."""
        over = self.over

        def answer(handler: BaseHTTPRequestHandler, _: dict[str, Any]) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "100000")
            handler.end_headers()
            while not over.wait(0.3):
                handler.wfile.write(b" ")
                handler.wfile.flush()

        return answer

    def wait_until_asked(self, times: int = 1, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while len(self.asked) < times:
            assert time.monotonic() < until, len(self.asked)
            time.sleep(0.02)

    @contextmanager
    def serving(self) -> Iterator["ModelServer"]:
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.asked.append({"path": self.path, **body})
                model.headers.append(dict(self.headers))
                self.close_connection = True
                with suppress(OSError):
                    (model.script.pop(0) if model.script else model.otherwise)(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            server.shutdown()
            server.server_close()
            thread.join(5)
