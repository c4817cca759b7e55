"""The page docs/tutorial/receipts.md, typed line by line with the real packages."""

import asyncio
import re
import sys
from pathlib import Path

import httpx
import pytest
from tests.docs.typed_page import TypedPage, blocks, steady
from tests.frameworks.programs import EXAMPLES, PYTHON, ROOT, examples_at, run
from tests.frameworks.temporal_server import TemporalServer
from tests.integration.dev.running import Dev
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture
from tests.integration.memorygate.ledger_fixture import free_port

PAGE = (ROOT / "docs" / "tutorial" / "receipts.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.timeout(300)


def test_the_code_of_the_page_is_the_code_that_runs() -> None:
    sources = {path.name: path.read_text(encoding="utf-8") for path in EXAMPLES.glob("*.py")}
    assert len(CODE) == 5
    for block in CODE:
        assert [name for name, text in sources.items() if block in text], block


def test_the_versions_that_the_page_names_are_those_that_are_installed() -> None:
    script = "from importlib.metadata import version as v; print(v('langgraph'), v('openai-agents'), v('temporalio'))"
    installed = run(ROOT, "-c", script).split()
    named = re.search(r"LangGraph ([\d.]+), the OpenAI Agents SDK ([\d.]+),\s+Temporal's SDK ([\d.]+)", PAGE)
    assert named is not None
    assert [version.startswith(f"{name}.") for version, name in zip(installed, named.groups(), strict=True)] == [
        True
    ] * 3


def ages(text: str) -> list[str]:
    return steady(re.sub(r"\b\d+s ago", "<age>", text))


def test_the_page_is_typed_line_by_line(tmp_path: Path, temporal_server: TemporalServer | None) -> None:
    """A question, an answer and two attempts; LangGraph, the OpenAI Agents SDK and Temporal: each line prints what the page says.
    Only `make` and `dev` are this test's own."""
    ports = {"8001": str(free_port()), "7233": str(free_port() if temporal_server is None else temporal_server.port)}
    page = TypedPage(tmp_path, ports)
    examples_at(tmp_path, **{f"p{shown}": port for shown, port in ports.items()})
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / ".venv-frameworks").symlink_to(PYTHON.parents[1])
    (setup, _), *typed = blocks(PAGE)
    assert setup[0] == "make run ONCE=1"
    assert setup[-1] == ".venv/bin/metagate dev --resources .metagate/receipts --with memorygate"
    for command in setup[1:-1]:
        page.type(command)
    declared = tmp_path / ".metagate"
    dev = Dev(declared / "receipts", declared / "data", "--with", "memorygate", MEMORYGATE_PORT=ports["8001"])
    made, called = 0, 0
    try:
        dev.ready()
        dev.until(lambda: httpx.get(f"http://127.0.0.1:{ports['8001']}/readyz").status_code == 200, 30)
        for commands, shown in typed:
            if "agents_mcp.py" in commands[0]:
                called += 1  # the test below types it, at a gateway
                continue
            if "temporal_refund.py" in commands[0] and temporal_server is None:
                continue  # test_temporal_is_there says so
            printed = "".join(page.type(command) for command in commands if command != "make frameworks")
            made += commands.count("make frameworks")
            assert ages(printed) == ages(page.here(shown)), printed
        assert (made, called) == (1, 1)
    finally:
        page.close()
        assert dev.stop() == 0


def test_temporal_is_there(temporal_server: TemporalServer | None) -> None:
    """A skip that `.ci/run` repeats at its end: the page's part on Temporal was not typed."""
    if temporal_server is None:
        pytest.skip("receipts under Temporal were not typed: its test server needs Java 17 and Maven")


async def test_the_agents_mcp_client_at_interrogate(tmp_path: Path, gateway: GatewayFixture) -> None:
    """The line of the page, at a gateway with another tool: the call is admitted, its outcome is on record; a tool that is not
    declared is not there for the agent."""
    [line] = [command for commands, _ in blocks(PAGE) for command in commands if "agents_mcp.py" in command]
    assert line.split()[:4] == [
        ".venv-frameworks/bin/python", "examples/frameworks/agents_mcp.py", "http://127.0.0.1:8005/mcp", "alice.key",
    ]  # fmt: skip
    examples_at(tmp_path)
    (tmp_path / "alice.key").write_text(gateway.alice.principal.key)
    program = ("examples/frameworks/agents_mcp.py", gateway.url, "alice.key")
    limit = {"name": "hourly", "capabilities": ["tool.echo"], "requests": 1, "per": "1h"}
    await gateway.publish(surface={"rateLimits": [limit]})
    answered = await asyncio.to_thread(run, tmp_path, *program, "desk.echo", '{"text": "hello"}')
    refused = await asyncio.to_thread(run, tmp_path, *program, "desk.echo", '{"text": "hello"}')
    assert "hello" in answered
    assert "RATE_LIMITED" in refused
    assert "hello" not in refused
    recorded = [
        (receipt["phase"], receipt["status"]) for receipt in await gateway.gate.receipts(emitter="svc:interrogate")
    ]
    assert recorded == [("accepted", "NA"), ("complete", "success"), ("rejected", "NA")]
    await asyncio.to_thread(run, tmp_path, *program, "desk.undeclared", "{}", code=1)
