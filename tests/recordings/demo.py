"""Records the demo anew: `python -m tests.recordings.demo` (a minute; it needs what `metagate dev` needs).

It runs `legivellum demo` at all gates on this machine, and writes beside this file what `GET /v1/receipts` then answers
and what `legivellum explain` tells. A test replays the first and compares the second.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
from tests.integration.dev.running import Dev, principal
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint

FOLDER = Path(__file__).parent
RECEIPTS = FOLDER / "demo.receipts.jsonl"
EXPLAINED = FOLDER / "demo.explained.txt"
ROOT = FOLDER.parents[1]
GATES = ("memorygate", "asyncgate", "depotgate", "delegate", "interrogate", "cognigate")
"""In the order of their ports."""
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]


def declare(folder: Path, ports: dict[str, int]) -> str:
    """The demo's world with these ports, and a key for who asks."""
    shutil.copytree(ROOT / "examples/demo", folder)
    for name in ("manifest.yaml", "policy.yaml"):
        text = (folder / name).read_text()
        for number, gate in enumerate(GATES, 8001):
            text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{ports[gate]}")
        (folder / name).write_text(text)
    key = mint()
    (folder / "principals/ida.yaml").write_text(principal("ida", key, type="principal"))
    # A plan names it: custody cannot be given to somebody without a credential.
    (folder / "principals/operator-on-call.yaml").write_text(principal("operator-on-call", mint(), type="principal"))
    return key.key


def record() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        ports = {gate: free_port() for gate in GATES}
        key = declare(folder / "resources", ports)
        environment = {f"{gate.upper()}_PORT": str(port) for gate, port in ports.items()}
        dev = Dev(folder / "resources", folder / "data", "--with", "all", **environment)
        try:
            dev.ready()
            (folder / "ida.key").write_text(key)
            known = {"METAGATE_URL": dev.url, "METAGATE_API_KEY_FILE": str(folder / "ida.key"), **os.environ}  # noqa: TID251
            demo = json.loads(_legivellum("demo", "-o", "json", environment=known))
            assert demo["differences"] == []
            RECEIPTS.write_text("".join(f"{json.dumps(item)}\n" for item in _answered(ports["memorygate"], key)))
            EXPLAINED.write_text(_legivellum("explain", demo["plan_id"], "-o", "wide", environment=known))
        finally:
            dev.stop()


def _legivellum(*arguments: str, environment: dict[str, str]) -> str:
    done = subprocess.run([*PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def _answered(port: int, key: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"http://127.0.0.1:{port}/v1/receipts", params={"limit": 500}, headers={"X-API-Key": key})
    page = answer.json()
    assert page["next_cursor"] is None
    receipts: list[dict[str, Any]] = page["items"]
    return receipts


if __name__ == "__main__":
    record()
