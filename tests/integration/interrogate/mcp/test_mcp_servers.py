"""The page docs/tutorial/mcp-servers.md, typed line by line with what it brings from package indexes."""

import shutil
import sys
from pathlib import Path

import httpx
import pytest
from tests.docs.typed_page import TypedPage, blocks, steady
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port
from tests.node.environment import install

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs" / "tutorial" / "mcp-servers.md").read_text(encoding="utf-8")
CALL = Path("examples/mcp/call.json")

pytestmark = pytest.mark.timeout(400)


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
