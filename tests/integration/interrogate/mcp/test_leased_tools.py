"""Tools under a lease: what it exposes is listed and may be called, and nothing else (IG-05, GW-09, GW-10)."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, make_admissions
from tests.integration.interrogate.leases import LeaseIssuer, issuing
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture, McpClient, serving_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leasing_database(postgres: Server) -> AsyncIterator[AdmissionDatabase]:
    made = await make_admissions(postgres)
    yield made
    await postgres.drop(made.database)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def issuer(leasing_database: AdmissionDatabase) -> AsyncIterator[LeaseIssuer]:
    async with issuing(leasing_database) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leased_gateway(leasing_database: AdmissionDatabase, issuer: LeaseIssuer) -> AsyncIterator[GatewayFixture]:
    async with serving_gateway(leasing_database) as served:
        yield served


async def under_lease(gateway: GatewayFixture, issuer: LeaseIssuer, *globs: str) -> McpClient:
    """A worker with a lease on a task of alice's that exposes these tools."""
    task = (await gateway.alice.ask({"n": 1}))["structuredContent"]["task_id"]
    lease = await issuer.issue(
        gateway.world.tenant, task, holder="bob", principal="alice", authority={"exposeTools": list(globs)}
    )
    return replace(gateway.bob, headers={"Legivellum-Lease": lease.lease_id})


async def native(client: McpClient) -> set[str]:
    listed = (await client.request("tools/list"))["result"]["tools"]
    return {tool["name"] for tool in listed if tool["name"].startswith("desk.")}


@pytest.mark.parametrize(
    ("globs", "shown"),
    [(["desk/echo"], {"desk.echo"}), (["desk/s*"], {"desk.slow"}), (["other/*"], set()), ([], set())],
)
async def test_a_lease_shows_what_it_exposes(
    leased_gateway: GatewayFixture, issuer: LeaseIssuer, globs: list[str], shown: set[str]
) -> None:
    assert await native(await under_lease(leased_gateway, issuer, *globs)) == shown


async def test_a_call_beyond_the_lease_is_denied(leased_gateway: GatewayFixture, issuer: LeaseIssuer) -> None:
    """The exposed tool is called and filed under the leased task; another is denied with a receipt."""
    client = await under_lease(leased_gateway, issuer, "desk/echo")
    called = await client.call("desk.echo", {"text": "x"})
    assert called["structuredContent"] == {"text": "x"}
    denied = (await client.call("desk.fail"))["structuredContent"]
    assert (denied["outcome"], denied["reason_code"]) == ("DENY", "LEASE_AUTHORITY")


async def test_a_lost_lease_shows_nothing(leased_gateway: GatewayFixture) -> None:
    client = replace(leased_gateway.bob, headers={"Legivellum-Lease": "no-such-lease"})
    assert await native(client) == set()
    denied = (await client.call("desk.echo", {"text": "x"}))["structuredContent"]
    assert denied["reason_code"] == "LEASE_LOST"
