"""`metagate dev --with cognigate`: documents are summarised without any key, and nothing pretends to be a language model."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
GATES = ("memorygate", "asyncgate", "depotgate", "delegate", "cognigate")
TEXT = "Cats sleep. Cats hunt mice at night. Dogs bark at cats. The weather was mild. Cats purr when they sleep."


class ThinkingMachine:
    """A machine with all that plans need, and alice, who asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        declared = DeclaredFolder(folder / "resources")
        ports = {gate: free_port() for gate in GATES}
        self.urls = {gate: f"http://127.0.0.1:{port}" for gate, port in ports.items()}
        services = {gate: {"type": gate, "endpoint": url} for gate, url in self.urls.items()}
        declared.write("manifest.yaml", resource("Manifest", "world", {"deploymentKey": "d", "services": services}))
        self.alice = mint()
        declared.write("people/alice.yaml", principal("alice", self.alice, type="principal"))
        (folder / "alice.key").write_text(self.alice.key)
        environment = {f"{gate.upper()}_PORT": str(port) for gate, port in ports.items()}
        self.dev = Dev(declared.folder, folder / "data", "--with", "cognigate", **environment)
        self.declared = declared

    def legivellum(self, *arguments: str, stdin: str = "") -> str:
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
        urls = {f"METAGATE_{gate.upper()}_URL": url for gate, url in self.urls.items()}
        done = subprocess.run(
            [*PROGRAM, *arguments], env={**quiet, **urls, "METAGATE_API_KEY_FILE": str(self.folder / "alice.key")},
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def get(self, gate: str, path: str) -> Any:
        answer = httpx.get(f"{self.urls[gate]}{path}", headers={"X-API-Key": self.alice.key}, timeout=20)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def summarised(self, text: str) -> dict[str, Any]:
        """The receipt that ended a plan of one step about this text."""
        draft = {
            "escalation": [],
            "result": "read",
            "steps": [
                {
                    "id": "read", "capability": "document.summarise",
                    "job": {"instruction": "Summarise.", "inputs": [{"name": "document", "value": text}]},
                    "authority": {
                        "invokeCognigate": True, "writeBeyondReceipts": True, "sinks": ["depotgate/output"],
                        "cognition": {"models": ["default"], "calls": 2, "tokens": 8_000, "seconds": 60},
                    },
                }
            ],
        }  # fmt: skip
        plan = json.loads(self.legivellum("plan", "send", "-", "-o", "json", stdin=json.dumps({"draft": draft})))
        until = time.monotonic() + 60
        while True:
            receipts = self.get("memorygate", f"/receipts/task/{plan['plan_id']}")["items"]
            for receipt in receipts:
                if (receipt["phase"], receipt["obligation_id"]) == ("complete", plan["plan_id"]):
                    return dict(receipt)
            assert time.monotonic() < until, receipts
            time.sleep(0.1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThinkingMachine]:
    made = ThinkingMachine(tmp_path_factory.mktemp("thinking"))
    try:
        made.dev.ready()
        yield made
    finally:
        made.dev.stop()


def test_a_document_is_summarised_without_a_key(machine: ThinkingMachine) -> None:
    """By plan, lease and sink; output and receipt say that no language model did it."""
    end = machine.summarised(TEXT)
    assert (end["status"], end["emitter"]) == ("success", "delegate")
    content = httpx.get(
        f"{machine.urls['depotgate']}/artifacts/{end['artifact_pointer']}", headers={"X-API-Key": machine.alice.key}
    ).text
    assert "not a language model" in content
    assert "Cats" in content
    usage = json.loads(machine.legivellum("usage", "--root", end["task_id"], "-o", "json"))
    assert [(item["principal_ai"], item["model"]) for item in usage["items"]] == [("alice", "builtin/extract-1")]
    story = json.loads(machine.legivellum("explain", end["task_id"], "-o", "json"))
    assert (story["open"], story["gaps"]) == ({}, [])
    assert {"artifact", "lifecycle", "obligation"} <= {line["kind"] for line in story["receipts"]}
    folded = machine.legivellum("explain", end["task_id"], "--fold")
    assert f"{end['task_id']}.read" in folded
    interview = httpx.get(f"{machine.urls['cognigate']}/v1/interview").json()
    assert interview["counts"]["jobs_success"] >= 1


def test_its_principal_is_declared_as_a_worker(machine: ThinkingMachine) -> None:
    [file] = (machine.folder / "resources").rglob("cognigate.yaml")
    key = machine.folder / "data" / "keys" / "cognigate.key"
    assert "type: worker" in file.read_text()
    assert key.read_text().strip() not in file.read_text()
    assert key.stat().st_mode & 0o777 == 0o600


def test_what_ends_it_does_not_end_the_machine(machine: ThinkingMachine) -> None:
    """It is started again; one line of the log says so."""
    before = machine.dev.child("cognigate").pid
    os.kill(before, signal.SIGKILL)
    machine.dev.until(lambda: bool(machine.dev.events("gate_ended")), 20)
    [event] = machine.dev.events("gate_ended")
    assert (event["gate"], event["code"]) == ("cognigate", -signal.SIGKILL)
    assert machine.summarised(TEXT)["status"] == "success"
    assert machine.dev.child("cognigate").pid != before


def test_it_ends_with_a_machine_that_is_killed(machine: ThinkingMachine) -> None:
    """The last of this module: nothing keeps running after kill -9."""
    worker = machine.dev.child("cognigate").pid
    machine.dev.process.kill()
    machine.dev.process.wait(20)
    until = time.monotonic() + 30
    while (entry := Path(f"/proc/{worker}/stat")).exists() and entry.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until
        time.sleep(0.05)
