"""The official clients at the gateway: what they list, what a call answers, what a refusal is to them, how a task ends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from tests.conformance.fixture_tools import ECHO, ServedGateway
from tests.node.environment import FOLDER, NodeEnvironment, install

pytestmark = pytest.mark.timeout(120)
OWN = ["problemata.artifacts", "problemata.capabilities", "problemata.passthrough", "problemata.status"]


@pytest.fixture(scope="module")
def node() -> NodeEnvironment:
    return install()


async def exercised(node: NodeEnvironment, gateway: ServedGateway, script: str, folder: Path) -> dict[str, Any]:
    """What a script of tests/node printed; it imports from an installation that lies elsewhere."""
    node.link_into(folder)
    for name in (script, "exercise.mjs"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    process = await asyncio.create_subprocess_exec(
        node.node, script, f"{gateway.url}/mcp", gateway.caller.key, cwd=folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, complained = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, complained.decode()
    exercise: dict[str, Any] = json.loads(printed)
    return exercise


def judge(exercise: dict[str, Any]) -> None:
    assert {*OWN, "tools.echo", "tools.never"} <= set(exercise["tools"])
    assert exercise["echoed"]["content"] == [{"type": "text", "text": "h\xe9llo"}]
    assert not exercise["echoed"].get("isError")
    receipts = exercise["echoed"]["_meta"]["legivellum.io/receipt"]
    assert len(receipts["admission"]) == len(receipts["outcome"]) == 26
    refusal = exercise["refused"]["structuredContent"]
    assert exercise["refused"]["isError"] is True
    assert (refusal["outcome"], refusal["reason_code"]) == ("DENY", "INVARIANT_VIOLATION")
    assert exercise["unknown"] == -32602
    assert exercise["started"]["mode"] == "async"
    assert exercise["status"]["state"] == "success", exercise["status"]
    assert exercise["status"]["task_id"] == exercise["started"]["task_id"]


@pytest.mark.parametrize("script", ["modern_client.mjs", "handshake_client.mjs"])
async def test_a_typescript_client(node: NodeEnvironment, gateway: ServedGateway, tmp_path: Path, script: str) -> None:
    """Lists, calls, is refused, starts a task and sees it end: without a handshake, and with one."""
    judge(await exercised(node, gateway, script, tmp_path))


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_python_client(gateway: ServedGateway, mode: Any) -> None:
    """The same by the SDK that the gateway is made of, of both eras."""
    async with (
        httpx2.AsyncClient(headers=gateway.caller.headers, timeout=30) as http,
        Client(streamable_http_client(f"{gateway.url}/mcp", http_client=http), mode=mode) as client,
    ):

        async def call(name: str, **arguments: Any) -> dict[str, Any]:
            result = await client.call_tool(name, arguments)
            return result.model_dump(mode="json", by_alias=True, exclude_none=True)

        listing = await client.list_tools()
        declared = {tool.name: tool for tool in listing.tools}
        assert declared["tools.echo"].description == ECHO["description"]
        started = await call(
            "problemata.passthrough",
            problemata_id="jobs", mode="async", input={"seconds": 0.2, "status": "success"},
        )  # fmt: skip
        with pytest.raises(MCPError) as unknown:
            await call("tools.unknown")
        exercise = {
            "tools": list(declared),
            "echoed": await call("tools.echo", text="h\xe9llo"),
            "refused": await call("tools.never"),
            "unknown": unknown.value.error.code,
            "started": started["structuredContent"],
        }
        async with asyncio.timeout(20):
            while True:
                status = await call("problemata.status", task_id=exercise["started"]["task_id"])
                if status["structuredContent"]["state"] not in {"admitted", "open"}:
                    break
                await asyncio.sleep(0.05)
    judge({**exercise, "status": status["structuredContent"]})
