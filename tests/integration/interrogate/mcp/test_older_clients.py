"""Clients of the SDK 1.30, which know nothing later than 2025-11-25."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture
from tests.package_environment import environment_with

SCRIPT = Path(__file__).with_name("older_client.py")


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_older_client_asks_and_calls(gateway: GatewayFixture, tmp_path: Path) -> None:
    """Handshake, listing, a request, a tool, a tool that fails: as with the newest."""
    binaries = await asyncio.to_thread(environment_with, tmp_path / "venv", "mcp==1.30.0")
    process = await asyncio.create_subprocess_exec(
        binaries / "python", SCRIPT, gateway.url, gateway.alice.principal.key,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2_000:]
    seen = json.loads(output)
    assert seen["protocol"] == "2025-11-25"
    assert {"desk.echo", "problemata.status"} <= set(seen["tools"])
    assert (seen["asked"]["mode"], seen["asked"]["result"]) == ("sync", {"done": True})
    assert seen["called"] == {"text": "hello"}
    assert seen["failed"] is True
