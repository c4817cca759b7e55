"""Open Policy Agent's server beside InterroGate, for `admitting.py`: an equivalent rule (`opa/admission.rego`), decided
without a record, and with its decision log sent to a small receiver that stores it in PostgreSQL.

Its version is the one of `opa/go.mod`; it is built with Go, once, into `.venv-bench`. Without Go, or without the
module, this part is left out and says so.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import console
import load
import setting

HERE = Path(__file__).resolve().parent
RECIPE = HERE / "opa"
BINARY = HERE.parent / ".venv-bench" / "bin" / "opa"
MODULE = "github.com/open-policy-agent/opa"
VERSION = re.search(rf"^\s*(?:require )?{MODULE} (v\S+)", (RECIPE / "go.mod").read_text(), re.MULTILINE)[1]
DECISION = "/v1/data/admission/decision"
UPLOAD_SECONDS = 15
"""How long the log may still arrive after the last answer."""


class AgentAbsent(Exception):  # noqa: N818 - what is missing
    """It cannot be built here; the text says why."""


def built() -> Path:
    """Raises AgentAbsent."""
    if (
        BINARY.exists()
        and VERSION.lstrip("v")
        in subprocess.run([BINARY, "version"], capture_output=True, text=True, check=False).stdout
    ):
        return BINARY
    go = shutil.which("go") or shutil.which("go", path=str(HERE.parent / ".venv-go" / "go" / "bin"))
    if go is None:
        raise AgentAbsent("there is no Go on this machine")
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    console.step(f"building {MODULE} {VERSION}: minutes, once")
    command = [go, "build", "-trimpath", "-ldflags=-s -w", "-o", str(BINARY), MODULE]
    making = subprocess.run(command, cwd=RECIPE, capture_output=True, text=True, check=False)
    if making.returncode != 0:
        raise AgentAbsent(f"it cannot be built: {making.stderr.strip().splitlines()[-1:]}")
    return BINARY


@dataclass(frozen=True, slots=True)
class ServedAgent:
    port: int
    logs_to: str | None
    """The DSN of the database to which its decisions are logged."""

    def request(self, root: str, principal: str, capability: str) -> bytes:
        """What the gate looks up, the caller has to say here: the parent and the counters of its tree."""
        body = json.dumps(
            {
                "input": {
                    "surface_id": "public",
                    "payload_kind": "task",
                    "payload": {"text": "Review the draft and answer the mail."},
                    "caller": {"principal_key": principal, "type": "principal"},
                    "causality": {
                        "root_task_id": root,
                        "parent_task_id": root,
                        "spawn_depth": 1,
                        "capability_id": capability,
                    },
                    "parent": {"root_task_id": root, "depth": 0, "budget": 32},
                    "observed": {"descendants": 5, "repeats": 5},
                }
            }
        ).encode()
        return b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
            DECISION.encode(),
            len(body),
            body,
        )

    async def stored(self) -> int:
        connection = await asyncpg.connect(self.logs_to)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM opa_decision"))
        finally:
            await connection.close()


@contextlib.contextmanager
def agent(binary: Path, *, dsn: str | None = None) -> Iterator[ServedAgent]:
    """The server, with its decision log where a database is named."""
    port, receiver_port = setting.free_port(), setting.free_port()
    command = [
        str(binary),
        "run",
        "--server",
        "--addr",
        f"127.0.0.1:{port}",
        "--log-level",
        "error",
        "--disable-telemetry",
    ]
    with contextlib.ExitStack() as stack:
        if dsn is not None:
            receiver = subprocess.Popen(
                [sys.executable, str(HERE / "log_receiver.py"), str(receiver_port), dsn],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(_ended, receiver)
            assert receiver.stdout is not None
            assert receiver.stdout.readline() == "ready\n"
            command += ["--config-file", str(RECIPE / "config.yaml")]
        environment = {**os.environ, "RECEIVER_URL": f"http://127.0.0.1:{receiver_port}"}  # noqa: TID251
        process = subprocess.Popen(
            [*command, str(RECIPE / "admission.rego")], env=environment, stderr=subprocess.DEVNULL
        )
        stack.callback(_ended, process)
        _until_ready(port, process)
        yield ServedAgent(port, dsn)


def _ended(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    process.wait(20)


def _until_ready(port: int, process: "subprocess.Popen[Any]") -> None:
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("Open Policy Agent does not serve")


def verified(served: ServedAgent, request: bytes) -> None:
    """It says what the gate says: admitted, at depth 1, with 31 left."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=5)
    body = request.partition(b"\r\n\r\n")[2]
    connection.request("POST", DECISION, body, {"Content-Type": "application/json"})
    result = json.loads(connection.getresponse().read())["result"]
    assert result == {"outcome": "ALLOW", "reason_codes": [], "depth": 1, "budget_remaining": 31}, result


def measured(served: ServedAgent, requests: list[bytes], *, connections: int, seconds: float) -> dict[str, Any]:
    """The tally, and how many of its answers are in the log in the end."""
    verified(served, requests[0])
    before = asyncio.run(served.stored()) if served.logs_to else 0
    tally = load.drive(
        "127.0.0.1", served.port, requests, connections=connections, seconds=seconds, warm=0.5, sharing="turns"
    )
    assert set(tally.statuses) == {200}, tally.statuses
    logged = _arrived(served, before) if served.logs_to else 0
    return {"tally": tally, "logged": logged}


def _arrived(served: ServedAgent, before: int) -> int:
    """What is in the log when nothing has come for three seconds."""
    last, since, end = before, time.monotonic(), time.monotonic() + UPLOAD_SECONDS
    while time.monotonic() < end and time.monotonic() - since < 3:
        time.sleep(0.25)
        if (now := asyncio.run(served.stored())) != last:
            last, since = now, time.monotonic()
    return last - before
