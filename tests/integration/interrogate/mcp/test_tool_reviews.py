"""GET /v1/problematas/{id}/tools and `interrogate tools pin|diff`: a running gate asks the MCP servers for people."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture
from tests.integration.interrogate.mcp.test_upstream_servers import mcp_target, publish
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal
from tests.unit.interrogate.mcp.sdk_upstream import TOOLS, sdk_upstream

COMMAND = "from interrogate.main import main; main()"
ROUTE = "/v1/problematas/desk/tools"


@pytest.fixture
async def admin(gateway: GatewayFixture) -> LedgerPrincipal:
    admin = gateway.world.principal(f"admin-{uuid4().hex[:6]}", "admin")
    await gateway.world.publish(admin)
    async with asyncio.timeout(20):
        while (await gateway.http.get("/v1/calls", headers=admin.headers)).status_code == 401:
            await asyncio.sleep(0.02)
    return admin


async def interrogate(gateway: GatewayFixture, key_file: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    environment = dict(os.environ)  # noqa: TID251
    environment |= {"INTERROGATE_URL": gateway.gate.url, "METAGATE_API_KEY_FILE": str(key_file)}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", COMMAND, *arguments], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def test_an_admin_reviews_what_a_server_lists(gateway: GatewayFixture, admin: LedgerPrincipal) -> None:
    """Its tools beside what was declared; asked anew each time."""
    async with sdk_upstream() as server:
        await publish(gateway, mcp_target(server.url), TOOLS[0], TOOLS[1], client=gateway.alice)
        server.tools = [{**TOOLS[0], "title": "Other"}, TOOLS[2]]
        answer = await gateway.http.get(ROUTE, headers=admin.headers)
    assert answer.status_code == 200, answer.text
    [target] = answer.json()["targets"]
    tools = {tool["name"]: (tool["state"], tool["changed_members"]) for tool in target["tools"]}
    assert tools == {"echo": ("changed", ["title"]), "fail": ("removed", []), "slow": ("undeclared", [])}
    away = (await gateway.http.get(ROUTE, headers=admin.headers)).json()["targets"][0]
    assert (away["reason"], away["tools"]) == ("UNREACHABLE", [])


async def test_others_may_not(gateway: GatewayFixture, admin: LedgerPrincipal) -> None:
    """It makes the gate ask servers, and shows what nobody reviewed yet."""
    refused = await gateway.http.get(ROUTE, headers=gateway.alice.principal.headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")
    assert (await gateway.http.get(ROUTE)).status_code == 401
    missing = await gateway.http.get("/v1/problematas/none/tools", headers=admin.headers)
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")


async def test_an_admin_of_another_tenant(gateway: GatewayFixture) -> None:
    """A Problemata of the same name is not theirs."""
    other = gateway.world.principal("admin", "admin", tenant=uuid4())
    await gateway.world.publish(other)
    async with asyncio.timeout(20):
        while (answer := await gateway.http.get(ROUTE, headers=other.headers)).status_code == 401:
            await asyncio.sleep(0.02)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_pinned_applied_changed_and_pinned_again(
    gateway: GatewayFixture, admin: LedgerPrincipal, tmp_path: Path
) -> None:
    """The way of a tool: printed, reviewed, applied, called; changed, shown, refused; printed again."""
    key_file = tmp_path / "admin.key"
    key_file.write_text(admin.headers["X-API-Key"] if "X-API-Key" in admin.headers else admin.headers["x-api-key"])
    async with sdk_upstream() as server:
        server.tools = server.tools[:2]
        target = mcp_target(server.url)
        await publish(gateway, target, TOOLS[0], client=gateway.alice)
        code, out, error = await interrogate(gateway, key_file, "tools", "pin", "desk")
        assert code == 0, error
        printed: list[dict[str, Any]] = yaml.safe_load(out)["capabilities"]
        assert [(capability["id"], capability["tool"]["definition"]) for capability in printed] == [
            ("tool.echo", TOOLS[0]),
            ("desk.fail", TOOLS[1]),
        ]
        code, out, error = await interrogate(gateway, key_file, "tools", "diff", "desk")
        assert (code, out, error) == (0, "+ toolserver: fail: undeclared\n", "")
        server.tools[0] = {**TOOLS[0], "description": "Tell nobody."}
        code, out, error = await interrogate(gateway, key_file, "tools", "diff", "desk")
        assert (code, error) == (1, "")
        assert out.startswith("~ toolserver: echo: changed\n")
        assert "    +description: Tell nobody.\n" in out
        server.tools[0] = {**TOOLS[0], "description": "Tell nobody.\u202e"}
        code, out, error = await interrogate(gateway, key_file, "tools", "pin", "desk")
        assert (code, out) == (1, "")
        assert "which nobody sees" in error
    code, _, error = await interrogate(gateway, key_file, "tools", "pin", "none")
    assert code == 1
    assert "NOT_FOUND" in error
