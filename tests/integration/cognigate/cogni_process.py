"""CogniGate as a process that notes where it connects to, and the plans that it works on."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.memorygate.ledger_fixture import free_port
from tests.integration.worker.plan_fixture import PlanGates, RunningPlan

COGNITION = {"models": ["default"], "calls": 3, "tokens": 4_000, "seconds": 60}
AUTHORITY: dict[str, Any] = {
    "invokeCognigate": True,
    "writeBeyondReceipts": True,
    "sinks": ["depotgate/output"],
    "cognition": COGNITION,
}
CEILING = {
    **AUTHORITY,
    "sinks": ["depotgate/output", "depotgate/supporting", "elsewhere/output"],
    "exposeTools": ["*"],
    "cognition": {"models": ["default", "other"], "calls": 1_000, "tokens": 1_000_000, "seconds": 7_200},
}
CAPABILITY = "document.summarise"
# The audit hook is the interpreter's own: nothing in the process can connect past it.
WATCHED = """
import sys
log = open(sys.argv.pop(1), "a", buffering=1)
def note(event, arguments):
    if event == "socket.connect":
        log.write(f"{arguments[1]!r}\\n")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        log.write(f"{event}\\n")
sys.addaudithook(note)
from cognigate.main import main
main()
"""


@dataclass
class CogniProcess:
    gates: PlanGates
    folder: Path
    settings: dict[str, str]
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    @property
    def connections(self) -> Path:
        return self.folder / "connections"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def start(self) -> None:
        environ = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - of a child
            **self.gates.environment(self.folder),
            "COGNIGATE_PORT": str(self.port),
            "COGNIGATE_CAPABILITIES": f"{CAPABILITY},plan.draft",
            **self.settings,
        }
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [sys.executable, "-c", WATCHED, str(self.connections), "serve"], env=environ, stdout=log, stderr=log
            )

    def wait_until_ready(self) -> None:
        until = time.monotonic() + 30
        while True:
            try:
                assert self.get("/readyz")["status"] == "ok"
            except OSError:
                assert self.running is not None
                assert self.running.poll() is None, self.log.read_text()
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        assert self.running is not None
        self.running.kill()
        self.running.wait(20)

    def stop(self) -> None:
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        assert self.running.wait(40) == 0, self.log.read_text()

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            body = answer.read()
            return json.loads(body) if answer.headers["Content-Type"].startswith("application/json") else body.decode()

    def plan(self, job: dict[str, Any] | None = None, *, capability: str = CAPABILITY, **step: Any) -> RunningPlan:
        """One step `work`, of which everything may be chosen."""
        chosen = {"step_id": "work", "job": {**JOB, **(job or {})}, "authority": AUTHORITY, **step}
        return self.gates.plan(chosen, capability=capability)

    def receipt(self, job: dict[str, Any] | None = None, **step: Any) -> dict[str, Any]:
        """What ends a plan of one step."""
        return self.plan(job, **step).wait_for("work")


JOB = {
    "instruction": "Summarise in five sentences.",
    "inputs": [{"name": "document", "value": "A document."}],
    "output": {"mime": "text/markdown"},
}


def cognition(**limits: Any) -> dict[str, Any]:
    """An authority with other limits."""
    return {**AUTHORITY, "cognition": {**COGNITION, **limits}}


def reason(receipt: dict[str, Any]) -> str | None:
    assert receipt["phase"] == "complete", receipt
    return (receipt.get("metadata") or {}).get("reason")


def wait_for_call(calls: list[str], prefix: str, seconds: float = 60, *, times: int = 1) -> None:
    """Until a relay has seen so many calls that begin like that."""
    until = time.monotonic() + seconds
    while sum(call.startswith(prefix) for call in list(calls)) < times:
        assert time.monotonic() < until, calls
        time.sleep(0.02)


def revoke(plan: RunningPlan, step_id: str = "work") -> None:
    """As the delegate whose task it is: nobody leases it any more."""
    gates = plan.gates
    request = urllib.request.Request(
        f"http://127.0.0.1:{gates.asyncgate.port}/tasks/{plan.task_id(step_id)}/revoke",
        json.dumps({"reason": "the test is over"}).encode(),
        {"Content-Type": "application/json", **gates.tenant.principals["principal"].headers},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 200
