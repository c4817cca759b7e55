"""`/mcp` as a resource server: who may call it, under which name, and what a refused client is told (GW-03, GW-04)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, GatewayFixture, serving_gateway

RESOURCE = "https://gate.example.org"
LIST = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def named(admission_database: AdmissionDatabase) -> AsyncIterator[GatewayFixture]:
    settings: dict[str, Any] = {
        "resource": RESOURCE,
        "allowed_hosts": "*.team.svc, 10.0.0.*",
        "authorization_servers": "https://login.example.org",
        "mcp_calls": 2,
        "body_bytes": 4_096,
    }
    async with serving_gateway(admission_database, **settings) as served:
        yield served


async def test_the_metadata_says_where_tokens_come_from(named: GatewayFixture) -> None:
    answer = await named.http.get("/.well-known/oauth-protected-resource/mcp")
    assert answer.status_code == 200
    assert answer.json() == {
        "resource": f"{RESOURCE}/mcp",
        "authorization_servers": ["https://login.example.org"],
        "bearer_methods_supported": ["header"],
        "resource_name": "InterroGate MCP gateway",
    }


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"x-api-key": None}, 401, "CREDENTIAL_MISSING"),
        ({"x-api-key": "mgk_wrong"}, 401, "CREDENTIAL_INVALID"),
        ({"x-api-key": None, "authorization": "Bearer e30.e30.x"}, 401, "CREDENTIAL_INVALID"),
        ({"x-api-key": None, "authorization": "Basic YTpi"}, 401, "CREDENTIAL_INVALID"),
        ({"authorization": "Bearer e30.e30.x"}, 400, "SEVERAL_CREDENTIALS"),
    ],
)
async def test_a_client_without_a_good_credential_is_shown_the_way(
    named: GatewayFixture, headers: dict[str, str | None], status: int, code: str
) -> None:
    """401 names the metadata, so that a client of OAuth finds out by itself; nothing is decided."""
    before = len(await named.gate.receipts())
    answer = await named.alice.post(named.alice.message("tools/list"), **LIST, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    challenge = answer.headers.get_list("www-authenticate")
    metadata = f'Bearer resource_metadata="{RESOURCE}/.well-known/oauth-protected-resource/mcp"'
    assert challenge == ([metadata] if status == 401 else [])
    assert len(await named.gate.receipts()) == before


async def test_a_suspended_principal_is_refused(named: GatewayFixture) -> None:
    carol = named.world.principal("carol", suspended=True)
    await named.publish(carol)
    answer = await named.client_of(carol).post(named.alice.message("tools/list"), **LIST)
    assert (answer.status_code, answer.json()["code"]) == (403, "PRINCIPAL_SUSPENDED")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("gate.example.org", None, 200),
        ("gate.example.org:443", "https://gate.example.org", 200),
        ("interrogate.team.svc:8005", None, 200),
        ("10.0.0.7", None, 200),
        ("localhost:1", "http://localhost:3000", 200),
        ("evil.example.org", None, 421),
        ("gate.example.org.evil.net", None, 421),
        ("127.0.0.1.nip.io", None, 421),
        ("gate.example.org", "https://evil.example.org", 403),
        ("gate.example.org", "null", 403),
    ],
)
async def test_a_page_of_another_site_cannot_call_it(
    named: GatewayFixture, host: str, origin: str | None, status: int
) -> None:
    """DNS rebinding: a foreign name that leads here is refused, with a good credential too."""
    answer = await named.alice.post(named.alice.message("tools/list"), host=host, origin=origin, **LIST)
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "HEAD"])
async def test_only_post_is_taken(named: GatewayFixture, method: str) -> None:
    """The SDK would open a stream without an end for GET."""
    answer = await named.http.request(method, "/mcp", headers=named.alice.principal.headers)
    assert (answer.status_code, answer.headers["allow"]) == (405, "OPTIONS, POST")


async def test_options_and_the_headers_of_every_answer(named: GatewayFixture) -> None:
    answer = await named.http.options("/mcp")
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    listed = await named.alice.post(named.alice.message("tools/list"), x_request_id="abc-1", **LIST)
    assert listed.headers.get_list("x-request-id") == ["abc-1"]
    assert listed.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}', 400),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}', 400),
        (b"[" * 40 + b"]" * 40, 400),
        (b'{"a":"' + b"x" * 5_000 + b'"}', 413),
    ],
)
async def test_a_body_has_one_reading(named: GatewayFixture, body: bytes, status: int) -> None:
    answer = await named.alice.post(body, **LIST)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["error"]["code"] == -32700


async def test_more_open_calls_than_there_may_be_are_turned_away(named: GatewayFixture) -> None:
    """503, and room again when one ends."""
    named.receiver.seconds, named.receiver.status = 0.5, 200
    asked = [asyncio.create_task(named.alice.ask({"n": n})) for n in range(2)]
    async with asyncio.timeout(10):
        while len(named.receiver.requests) < 2:
            await asyncio.sleep(0.01)
    answer = await named.alice.post(named.alice.message("tools/list"), **LIST)
    assert (answer.status_code, answer.json()["code"]) == (503, "OVERLOADED")
    assert "retry-after" in answer.headers
    await asyncio.gather(*asked)
    assert (await named.alice.post(named.alice.message("tools/list"), **LIST)).status_code == 200
    named.receiver.seconds = 0.0


async def test_plain_curl_needs_no_handshake(named: GatewayFixture) -> None:
    """A revision of 2025 without `initialize`: what pages of documentation type."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    answer = await named.alice.post(body.encode())
    assert answer.status_code == 200
    assert '"problemata.status"' in answer.text


async def test_metrics_and_log_name_nothing_declared(named: GatewayFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """Counted by route and outcome; no argument, tool or credential is in the log."""
    await named.alice.call("desk.echo", {"text": "canary-4711"})
    await named.alice.error("desk.none", {"text": "canary-4711"})
    metrics = (await named.http.get("/metrics")).text
    assert 'interrogate_mcp_calls_total{outcome="answered"}' in metrics
    assert 'interrogate_http_requests_total{route="/mcp",status="200"}' in metrics
    assert "desk" not in metrics
    logged = "".join(capfd.readouterr())
    assert "canary-4711" not in logged
    assert named.alice.principal.key not in logged
