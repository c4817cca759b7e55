"""MCP servers of the SDK before 2026, in an environment of their own (§4.5)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.memorygate.ledger_fixture import free_port
from tests.package_environment import environment_with
from tests.unit.interrogate.mcp.upstream_clients import pin, target, upstream_clients

SERVER = Path(__file__).with_name("older_server.py")
PACKAGE = "mcp==1.30.0"


@pytest.fixture(scope="module")
def older_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_with(tmp_path_factory.mktemp("older"), PACKAGE) / "python"


@asynccontextmanager
async def older_server(python: Path, kind: str, form: str) -> AsyncIterator[str]:
    """Its URL."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(python, SERVER, str(port), kind, form)
    try:
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("form", ["json", "stream"])
@pytest.mark.parametrize("kind", ["stateless", "sessions"])
async def test_a_server_before_2026(older_python: Path, kind: str, form: str) -> None:
    """Listed, pinned and called: result, `isError`, progress; what it asks of its client is refused."""
    heard: list[str | None] = []

    async def sink(_progress: float, _total: float | None, message: str | None) -> None:
        heard.append(message)

    async with older_server(older_python, kind, form) as url, upstream_clients() as clients:
        upstream = target(url)
        listed = await clients.listing(upstream, bearer=None, seconds=20)
        pins = {str(tool.definition["name"]): pin(tool.definition) for tool in listed}
        assert set(pins) == {"add", "refuse", "steps", "ask"}
        added = await clients.call(upstream, pins["add"], {"a": 2, "b": 3}, bearer=None, seconds=20)
        refused = await clients.call(upstream, pins["refuse"], {}, bearer=None, seconds=20)
        stepped = await clients.call(upstream, pins["steps"], {}, bearer=None, seconds=20, progress=sink)
        many = await asyncio.gather(
            *(clients.call(upstream, pins["add"], {"a": n, "b": n}, bearer=None, seconds=20) for n in range(20))
        )
        if (kind, form) == ("sessions", "stream"):  # elsewhere such a server has nobody to ask
            asked = await clients.call(upstream, pins["ask"], {}, bearer=None, seconds=20)
            assert asked.result is not None
            assert asked.result["content"] == [{"type": "text", "text": "refused: McpError"}]
    assert (added.kind, added.protocol) == ("success", "2025-11-25")
    assert added.result is not None
    assert added.result["structuredContent"] == {"result": 5}
    assert refused.kind == "tool_error"
    assert stepped.kind == "success"
    assert heard[:1] == (["step 0"] if form == "stream" else [])
    assert [outcome.result and outcome.result["structuredContent"]["result"] for outcome in many] == [
        2 * n for n in range(20)
    ]
