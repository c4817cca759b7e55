"""The page docs/tutorial/mcp-servers.md, typed line by line with what it brings from package indexes."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests.docs.typed import BLOCK, commands, masked
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port
from tests.node.environment import install

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "tutorial" / "mcp-servers.md").read_text(encoding="utf-8")
CALL = Path("examples/mcp/call.json")

pytestmark = pytest.mark.timeout(400)


def blocks(text: str) -> list[tuple[list[str], str]]:
    """Of each console block the commands, and what the page says that they print."""
    result = []
    for block in BLOCK.findall(text):
        printed = [line for line in block.splitlines() if not line.startswith(("$ ", "> "))]
        result.append((commands(block), "\n".join(printed)))
    return result


def steady(text: str) -> list[str]:
    """Without what differs from run to run: ids, times, how long a call took."""
    text = re.sub(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b", "<ulid>", text)
    text = re.sub(r"\b(success|denied)( +)(\d+|-)", r"\1 <us>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+\d\d:\d\d)", "<time>", text)
    return masked(re.sub(r'(day_of_week\\": \\")\w+', r"\1<day>", text))


class TypedPage:
    """A shell in which the page's lines are typed, on ports of this test."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder, self.ports = folder, ports
        # A process group of its own: what a line leaves in the background ends with it.
        self.shell = subprocess.Popen(
            ["bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env={**os.environ, "no_proxy": "*", "NO_COLOR": "1"},  # noqa: TID251
        )  # fmt: skip

    def here(self, text: str) -> str:
        for shown, port in self.ports.items():
            text = re.sub(rf"(?<=[ :]){shown}\b", port, text)
        return text

    def type(self, command: str) -> str:
        """What it prints."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{self.here(command)}\nprintf '\\036\\n'\n")
        self.shell.stdin.flush()
        lines = iter(self.shell.stdout.readline, "\x1e\n")
        return "".join(lines)

    def close(self) -> None:
        os.killpg(self.shell.pid, signal.SIGTERM)
        self.shell.communicate(timeout=20)


def checkout(folder: Path, ports: TypedPage) -> None:
    """What the page's lines need of a checkout."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    declared = folder / "examples" / "mcp" / "time.yaml"
    declared.write_text(ports.here(declared.read_text(encoding="utf-8")), encoding="utf-8")
    for example in (folder / "examples" / "mcp").glob("*.ts"):
        install().link_into(example.parent)


def typescript_agent(page: TypedPage, gate: str) -> None:
    lines = page.type(f"(cd examples/mcp && {install().node} agent.ts {gate}/mcp ../../alice.key)").splitlines()
    assert (lines[0].partition(":")[0], lines[1]) == ("tools", "answered: True")
    assert lines[2:] == ["refused: DENY RATE_LIMITED"] * 6, "the hour's conversions are used up"


def test_the_page_is_typed_line_by_line(tmp_path: Path) -> None:
    """Declare, call by two clients and by curl, be refused, read the records, change the tool: each line prints what the page
    says; only `make run` and `dev` are this test's own. From a minute after the change on nothing reaches the tool."""
    ports = {shown: str(free_port()) for shown in ("8001", "8005", "8010")}
    page = TypedPage(tmp_path, ports)
    checkout(tmp_path, page)
    (setup, _), *typed = blocks(PAGE)
    assert setup[0] == "make run ONCE=1"
    variable, _, dev_command = setup[-1].partition(" ")
    assert dev_command == ".venv/bin/metagate dev --resources .metagate/mcp --with interrogate"
    for command in setup[1:-1]:
        page.type(command)
    environment = {
        "MEMORYGATE_PORT": ports["8001"],
        "INTERROGATE_PORT": ports["8005"],
        "INTERROGATE_TARGET_HOSTS": page.here(variable.partition("=")[2]),
    }
    dev = Dev(tmp_path / ".metagate" / "mcp", tmp_path / ".metagate" / "data", "--with", "interrogate", **environment)
    try:
        dev.ready()
        gate = f"http://127.0.0.1:{ports['8005']}"
        dev.until(lambda: httpx.get(f"{gate}/readyz").status_code == 200, 30)
        for typed_commands, shown in typed:
            if typed_commands[0].startswith("kill"):
                typescript_agent(page, gate)
            printed = "".join(page.type(command) for command in typed_commands)
            if shown:
                assert steady(printed) == steady(page.here(shown)), printed
        key = (tmp_path / "alice.key").read_text(encoding="utf-8").strip()

        def answer() -> str:
            headers = {"X-API-Key": key, "Accept": "application/json, text/event-stream"}
            body = (tmp_path / CALL).read_bytes()
            return httpx.post(f"{gate}/mcp", content=body, headers={**headers, "Content-Type": "application/json"}).text

        dev.until(lambda: "TOOL_CHANGED" in answer(), 75)
    finally:
        page.close()
        assert dev.stop() == 0
