"""The five-minute path of docs/interrogate/README.md, typed as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.docs.typed import BLOCK, commands
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "interrogate" / "README.md").read_text(encoding="utf-8")
MEMBERS = re.compile(r'"(outcome|reason_code|task_id|root_task_id|detail|depth|budget_remaining)": ("[^"]*"|null|\d+)')

pytestmark = pytest.mark.timeout(150)


def shown_members(block: str) -> dict[str, object]:
    """What the page shows of an answer; `…` stands for what it leaves out."""
    return {name: json.loads(value) for name, value in MEMBERS.findall(block)}


def test_the_five_minute_path_is_what_the_page_says(tmp_path: Path) -> None:
    """Ask, be refused, explain, try a policy out, decide again under another one: every line that the page shows is typed, but
    `make run`, and `dev` on free ports and with a data directory of this test."""
    setup, *typed = [command for block in BLOCK.findall(PAGE) for command in [commands(block)]]
    assert setup[0] == "make run ONCE=1"
    assert setup[-1].startswith(".venv/bin/metagate dev --resources .metagate/resources --with interrogate")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copytree(ROOT / "examples" / "quickstart", tmp_path / ".metagate" / "resources")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    for command in setup[1:-1]:
        subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    ports = {name: str(free_port()) for name in ("MEMORYGATE_PORT", "INTERROGATE_PORT")}
    data = tmp_path / ".metagate" / "data"
    dev = Dev(tmp_path / ".metagate" / "resources", data, "--with", "interrogate", **ports)
    try:
        dev.ready()
        gate = f"127.0.0.1:{ports['INTERROGATE_PORT']}"
        dev.until(lambda: httpx.get(f"http://{gate}/readyz").status_code == 200, 30)
        answers = [
            subprocess.run(
                command.replace("127.0.0.1:8005", gate), shell=True, cwd=tmp_path, check=True, capture_output=True,
                text=True, env={**os.environ, "no_proxy": "*"},  # noqa: TID251
            ).stdout
            for block in typed
            for command in block
        ]  # fmt: skip
        assert (data / "auditor.url").stat().st_mode & 0o777 == 0o600
    finally:
        assert dev.stop() == 0
    admitted, refused, explained, cases, rules, _, replayed = answers
    shown = [shown_members(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]
    for text, members in ((admitted, shown[0]), (refused, shown[1])):
        assert members
        answer = json.loads(text)
        assert {name: answer[name] for name in members} == members
    assert [rule["reason_code"] for rule in json.loads(explained)["rules"] if not rule["passed"]] == [
        "CAPABILITY_DENIED"
    ]
    assert cases == "3 of 3 cases as expected\n"
    assert "11 CAPABILITY_DENIED      FAILED" in rules
    assert replayed == re.search(r"```text\n(2 decisions.*?)```", PAGE, re.DOTALL)[1]
