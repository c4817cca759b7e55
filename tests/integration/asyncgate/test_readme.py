"""The five-minute path of docs/asyncgate/README.md, typed as it stands there."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tests.docs.typed import BLOCK, commands
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "asyncgate" / "README.md").read_text(encoding="utf-8")
MEMBERS = re.compile(r'"(task_id|obligation_id)": ("[^"]*")')

pytestmark = pytest.mark.timeout(150)


def receipts_of(text: str) -> list[tuple[str, str]]:
    return [(item["kind"], item["phase"]) for item in json.loads(text)["items"]]


PHASES = [
    ("obligation", "accepted"),
    ("obligation", "accepted"),
    ("lifecycle", "queued"),
    ("lifecycle", "lease_issued"),
    ("obligation", "complete"),
]


def test_the_five_minute_path_is_what_the_page_says(tmp_path: Path) -> None:
    """Park a task, have it done by a shell script and by Python, read what the ledger says of it. On free ports."""
    setup, parking, shell_worker, reading, python_worker, depth = (commands(block) for block in BLOCK.findall(PAGE))
    assert setup[0] == "make run ONCE=1"
    assert setup[-1] == ".venv/bin/metagate dev --resources .metagate/resources --with asyncgate"
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "quickstart", tmp_path / ".metagate" / "resources")
    for name in ("LICENSE", "SECURITY.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    for command in setup[1:-1]:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    ports = {"8001": str(free_port()), "8002": str(free_port())}
    named = {"MEMORYGATE_PORT": ports["8001"], "ASYNCGATE_PORT": ports["8002"]}
    environment = {**os.environ, "no_proxy": "*"}  # noqa: TID251

    def on_its_port(command: str) -> str:
        return re.sub(r"127\.0\.0\.1:(8001|8002)", lambda port: f"127.0.0.1:{ports[port[1]]}", command)

    def typed(command: str) -> str:
        return subprocess.run(
            on_its_port(command), shell=True, cwd=tmp_path, check=True, capture_output=True, text=True, env=environment
        ).stdout

    def working(command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(on_its_port(command), shell=True, cwd=tmp_path, env=environment, start_new_session=True)

    def stopped(worker: subprocess.Popen[bytes]) -> None:
        os.killpg(worker.pid, signal.SIGTERM)
        worker.wait(30)

    dev = Dev(tmp_path / ".metagate" / "resources", tmp_path / "data", "--with", "asyncgate", **named)
    try:
        dev.ready()
        dev.until(lambda: httpx.get(f"http://127.0.0.1:{ports['8002']}/readyz").status_code == 200, 30)
        answers = [json.loads(typed(command)) for command in parking]
        shown = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0]
        for member, value in MEMBERS.findall(shown):
            assert answers[-1][member] == json.loads(value)
        assert answers[-1]["waits_for"] == []

        def done(task_id: str) -> Callable[[], bool]:
            read = reading[0].replace("count-1", task_id)
            return lambda: receipts_of(typed(read)) == PHASES

        worker = working(shell_worker[0])
        try:
            dev.until(done("count-1"), 30)
        finally:
            stopped(worker)
        [claim] = [item for item in json.loads(typed(reading[0]))["items"] if item["phase"] == "complete"]
        assert claim["status"] == "success"
        assert claim["outcome_text"].strip() == str(len((ROOT / "LICENSE").read_text().split()))
        worker = working(python_worker[0])
        try:
            for command in python_worker[1:]:
                typed(command)
            dev.until(done("count-2"), 30)
        finally:
            stopped(worker)
        assert json.loads(typed(depth[0]))["items"] == []
    finally:
        assert dev.stop() == 0
