"""`legivellum status`: what every gate of a topology says waits there, and what is shown of those that do not answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, binding, principal, resource
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()", "status"]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_"))}  # noqa: TID251


def status(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *arguments]
    return subprocess.run(
        command, env={**environment(), **more}, capture_output=True, text=True, timeout=60, check=False
    )


class Answering(BaseHTTPRequestHandler):
    """No gate: an answer in HTML, a redirect, or one that comes byte by byte; it notes the credentials it was sent."""

    credentials: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        kind, _, rest = self.path.strip("/").partition("/")
        self.credentials.append((kind, self.headers["x-api-key"]))
        if kind == "redirect":
            self.send_response(307)
            self.send_header("location", f"/elsewhere/{rest}")
            self.end_headers()
            return
        loud = {"counts": {"\x1b[31mred": 1}, "oldest": {}, "notes": [], "version": "1"}
        body = json.dumps(loud).encode() if kind == "colourful" else b"<html>"
        self.send_response(200)
        self.send_header("content-length", str(len(body) if kind != "dripping" else 10_000))
        self.end_headers()
        self.wfile.write(body)
        while kind == "dripping":
            time.sleep(0.1)
            self.wfile.write(b" ")
            self.wfile.flush()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def listening() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that left, which is the point
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Answering.credentials.clear()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def world(tmp_path: Path, services: dict[str, Any]) -> Iterator[tuple[Dev, str]]:
    """MetaGate and the ledger, and a Manifest with services of which some are no gates. Yields a component's key file."""
    folder = DeclaredFolder(tmp_path / "resources")
    port = free_port()
    services = {"ledger": {"type": "memorygate", "endpoint": f"http://127.0.0.1:{port}"}, **services}
    folder.write("manifest.yaml", resource("Manifest", "world", {"deploymentKey": "d", "services": services}))
    key_file = tmp_path / "ada.key"
    key_file.write_text(folder.key.key)
    dev = Dev(folder.folder, tmp_path / "data", "--with", "memorygate", MEMORYGATE_PORT=str(port))
    try:
        dev.ready()
        assert dev.bootstrap(folder.key).status_code == 200
        yield dev, str(key_file)
    finally:
        assert dev.stop() == 0


@pytest.mark.invariant("INV-095", "INV-126")
def test_every_gate_is_asked_and_what_does_not_answer_is_shown(tmp_path: Path) -> None:
    """In half a second, whatever they do; the credential goes to gates alone, and nowhere by a redirect."""
    with ExitStack() as stack:
        port = stack.enter_context(listening())
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        services = {
            "queue": {"type": "asyncgate", "endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}"},
            "depot": {"type": "depotgate", "endpoint": f"http://127.0.0.1:{free_port()}"},
            "plans": {"type": "delegate", "endpoint": f"http://127.0.0.1:{port}/html"},
            "door": {"type": "interrogate", "endpoint": f"http://127.0.0.1:{port}/redirect"},
            "views": {"type": "cognigate", "endpoint": f"http://127.0.0.1:{port}/dripping"},
            "mail": {"type": "mail-relay", "endpoint": f"http://127.0.0.1:{port}/mail"},
            "socket": {"type": "delegate", "endpoint": "unix:///run/delegate.sock"},
        }
        dev, key_file = stack.enter_context(world(tmp_path, services))
        done = status("--url", dev.url, "--key-file", key_file, "-o", "json")
        assert done.returncode == 1, done.stderr
        told = {gate["service"]: gate for gate in json.loads(done.stdout)}
        assert {name: gate["problem"] for name, gate in told.items()} == {
            "metagate": None,
            "ledger": None,
            "queue": "no answer within 500 ms",
            "depot": "no answer",
            "plans": "no gate answers there",
            "door": "no gate answers there",
            "views": "no answer within 500 ms",
        }
        assert told["metagate"]["interview"]["counts"]["startups_open"] == 1
        assert told["ledger"]["interview"]["gate"] == "memorygate"
        assert {kind for kind, _ in Answering.credentials} == {"html", "redirect", "dripping"}
        table = status("--url", dev.url, "--key-file", key_file)
        assert table.returncode == 1
        lines = table.stdout.splitlines()
        assert max(map(len, lines)) <= 80, table.stdout
        assert lines[0].split() == ["GATE", "STATE", "WAITS", "OLDEST", "NOTES"]


def test_settings_name_gates_too(tmp_path: Path) -> None:
    """As for every other command: an address in the environment needs no service that somebody declared."""
    with listening() as port, world(tmp_path, {}) as (dev, key_file):
        done = status(
            "--url", dev.url, "--key-file", key_file, "-o", "json",
            METAGATE_DELEGATE_URL=f"http://127.0.0.1:{port}/colourful",
        )  # fmt: skip
        assert [gate["service"] for gate in json.loads(done.stdout)] == ["metagate", "ledger", "delegate"]


def test_a_packet_names_the_gates_too(tmp_path: Path) -> None:
    """Its services instead of a topology's; what a gate answers cannot colour the terminal."""
    with listening() as port, world(tmp_path, {}) as (dev, key_file):
        folder = tmp_path / "resources"
        services = {"loud": {"type": "delegate", "endpoint": f"http://127.0.0.1:{port}/colourful"}}
        (folder / "manifest.yaml").write_text(
            resource("Manifest", "world", {"deploymentKey": "d", "services": services})
        )
        file = tmp_path / "packet.json"

        def booted() -> bool:
            headers = {"X-API-Key": Path(key_file).read_text()}
            file.write_text(httpx.post(f"{dev.url}/v1/bootstrap", json={"component_key": "c"}, headers=headers).text)
            return "loud" in json.loads(file.read_text())["services"]

        dev.until(booted)
        done = status("--packet", str(file), "--key-file", key_file)
        assert (done.returncode, done.stderr) == (0, "")
        assert "\x1b" not in done.stdout
        assert "\\u001b[31mred 1" in done.stdout
        file.write_text("[]")
        refused = status("--packet", str(file), "--key-file", key_file)
        assert (refused.returncode, "is no Welcome Packet" in refused.stderr) == (1, True)


def test_a_tenant_of_others_does_not_choose_where_the_credential_goes(tmp_path: Path) -> None:
    """A cluster-wide observer asks about another tenant; the gates that are declared there are not asked."""
    with listening() as port, world(tmp_path, {}) as (dev, _):
        observer = mint()
        folder = tmp_path / "resources"
        text = principal("eve", observer, type="observer", scope="Cluster").replace(
            '"name": "eve"', '"name": "eve", "namespace": "metagate-system"'
        )
        (folder / "eve.yaml").write_text(text)
        services = {"trap": {"type": "delegate", "endpoint": f"http://127.0.0.1:{port}/html"}}
        (folder / "trap.yaml").write_text(resource("Manifest", "trap", {"deploymentKey": "d", "services": services}))
        (folder / "people" / "bob.yaml").write_text(principal("bob", mint()))
        (folder / "trapped.yaml").write_text(binding("bob", manifestRef={"name": "trap"}))
        key_file = tmp_path / "eve.key"
        key_file.write_text(observer.key)

        def tenant() -> str | None:
            answer = httpx.get(f"{dev.url}/v1/startups", headers={"X-API-Key": observer.key})
            return answer.json()["items"][0]["tenant"] if answer.status_code == 200 else None

        dev.until(lambda: tenant() is not None)
        arguments = ("--url", dev.url, "--key-file", str(key_file), "--tenant", str(tenant()), "-o", "json")
        done = status(*arguments)
        assert done.returncode == 0, done.stderr + done.stdout
        [metagate] = json.loads(done.stdout)
        assert (metagate["interview"]["tenant_id"], Answering.credentials) == (tenant(), [])


def test_watching_asks_again_until_interrupted(tmp_path: Path) -> None:
    """One document after the other; Ctrl-C ends it."""
    with world(tmp_path, {}) as (dev, key_file):
        process = subprocess.Popen(
            [*PROGRAM, "--watch", "--url", dev.url, "--key-file", key_file, "-o", "wide"],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            # A shell starts its background jobs, of which this suite may be one, with the signal ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )  # fmt: skip
        assert process.stdout is not None
        headings = 0
        for line in process.stdout:
            headings += line.startswith("GATE")
            if headings == 2:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 130
