"""Calls at real MCP servers of the SDK: with and without a handshake, with and without sessions, JSON and streams."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from mcp.client.session import ClientSession
from tests.unit.interrogate.mcp.sdk_upstream import TOOLS, sdk_upstream
from tests.unit.interrogate.mcp.upstream_clients import OTHER_TENANT, call, pin, target, upstream_clients

from interrogate.mcp_gateway.upstream import Upstreams
from interrogate.mcp_gateway.upstream_dispatcher import UpstreamDispatcher
from interrogate.mcp_gateway.upstream_revision import UpstreamRevision
from interrogate.mcp_gateway.upstream_transport import UpstreamTransport
from legivellum.base.json_digest import json_digest

ECHO, FAIL, SLOW, PROGRESS, ERROR, ASK, REGION = (pin(tool) for tool in TOOLS)
SERVERS = {
    "2026 json": {},
    "2026 stream": {"json_response": False},
    "2025 stateless json": {"legacy": True},
    "2025 stateless stream": {"legacy": True, "json_response": False},
    "2025 session json": {"legacy": True, "stateless": False},
    "2025 session stream": {"legacy": True, "stateless": False, "json_response": False},
}


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[Upstreams]:
    async with upstream_clients() as made:
        yield made


@pytest.mark.parametrize("kind", SERVERS)
async def test_every_outcome_of_a_server(clients: Upstreams, kind: str) -> None:
    """Result, `isError` and JSON-RPC error are told apart at servers of both eras."""
    async with sdk_upstream(**SERVERS[kind]) as server:
        upstream = target(server.url)
        echoed = await call(clients, upstream, ECHO, text="ü 9007199254740993")
        failed = await call(clients, upstream, FAIL)
        refused = await call(clients, upstream, ERROR)
    expected = {"content": [{"type": "text", "text": "ü 9007199254740993"}], "isError": False}
    expected["structuredContent"] = {"text": "ü 9007199254740993"}
    assert (echoed.kind, echoed.result) == ("success", expected)
    assert echoed.result_sha256 == json_digest(expected)
    assert echoed.protocol == ("2026-07-28" if kind.startswith("2026") else "2025-11-25")
    assert (failed.kind, failed.result and failed.result["isError"]) == ("tool_error", True)
    assert (refused.kind, refused.code) == ("protocol_error", -32050)
    assert refused.result == {"code": -32050, "message": "the tool has no arms", "data": {"arms": 0}}
    assert [outcome.attempts for outcome in (echoed, failed, refused)] == [1, 1, 1]
    assert [name for name, _ in server.calls] == ["echo", "fail", "error"]


async def test_a_handshake_is_reused(clients: Upstreams) -> None:
    """A server without sessions is greeted once and listed once; each later call is one request."""
    async with sdk_upstream(legacy=True) as server:
        for _ in range(3):
            assert (await call(clients, target(server.url), ECHO)).kind == "success"
        # discover, initialize, initialized, list; then the calls
        assert len(server.requests) == 4 + 3
        assert server.listings == 1


async def test_a_server_that_became_another_is_greeted_anew(clients: Upstreams) -> None:
    """What was remembered of its revision is forgotten at the first call that it refuses, and asked again."""
    async with sdk_upstream() as server:
        upstream = target(server.url)
        assert (await call(clients, upstream, ECHO)).protocol == "2026-07-28"
        server.legacy = True
        assert (await call(clients, upstream, ECHO)).reason == "HTTP_ERROR"
        renewed = await call(clients, upstream, ECHO)
        assert (renewed.kind, renewed.protocol) == ("success", "2025-11-25")


async def test_a_revision_is_probed_again_after_ten_minutes() -> None:
    """Also where each call has a session of its own."""
    now = [0.0]
    for options in ({}, {"legacy": True}, {"legacy": True, "stateless": False}):
        async with sdk_upstream(**options) as server:
            revision, transport = UpstreamRevision(clock=lambda: now[0]), UpstreamTransport()

            async def greet(revision: UpstreamRevision = revision, transport: UpstreamTransport = transport) -> bool:
                """Whether the server was probed."""
                dispatcher = UpstreamDispatcher(transport, server.url, headers={}, answer_bytes=100_000)
                before = len(server.requests)
                await revision.greet(ClientSession(dispatcher=dispatcher), dispatcher)
                probes = [headers.get("mcp-method") for _, headers in server.requests[before:]]
                return "server/discover" in probes

            assert [await greet(), await greet()] == [True, False]
            now[0] += 599
            assert not await greet()
            now[0] += 1
            assert [await greet(), await greet()] == [True, False]
            await transport.close()


async def test_a_revision_that_is_not_spoken(clients: Upstreams) -> None:
    """2024-11-05, and what nobody wrote yet: nothing is called."""
    for revision in ("2024-11-05", "2029-01-01"):
        async with sdk_upstream(legacy=True) as server:
            server.greets_with = revision
            outcome = await call(clients, target(server.url), ECHO)
            assert (outcome.reason, outcome.sent, server.calls) == ("ANSWER_INVALID", False, [])


async def test_a_session_is_of_one_call(clients: Upstreams) -> None:
    """In a shared session one caller could read what another had told the server; each is ended, too."""
    async with sdk_upstream(legacy=True, stateless=False) as server:
        outcomes = await asyncio.gather(*(call(clients, target(server.url), ECHO, text=str(i)) for i in range(4)))
        assert {outcome.kind for outcome in outcomes} == {"success"}
        # the listing's session and one of each call
        assert len(server.started_sessions) == 5
        async with asyncio.timeout(5):
            while sum(method == "DELETE" for method, _ in server.requests) < 5:
                await asyncio.sleep(0.01)


async def test_callers_of_one_server_do_not_wait_for_each_other(clients: Upstreams) -> None:
    """A call that is cut off leaves those beside it alone (GW-17.1)."""
    async with sdk_upstream() as server:
        upstream = target(server.url)
        slow = asyncio.create_task(call(clients, upstream, SLOW, seconds=0.5))
        outcomes = await asyncio.gather(*(call(clients, upstream, ECHO) for _ in range(40)))
        assert {outcome.kind for outcome in outcomes} == {"success"}
        cut = await slow
    assert (cut.kind, cut.reason, cut.sent) == ("escalated", "TIMEOUT", True)


@pytest.mark.parametrize("kind", ["2026 json", "2025 session json"])
async def test_arguments_arrive_as_they_are(clients: Upstreams, kind: str) -> None:
    """Null members too, integers beyond 2^53, and nothing of the gate's beside them."""
    arguments = {"text": "x", "none": None, "deep": {"none": None, "list": [None, 12345678901234567890]}}
    async with sdk_upstream(**SERVERS[kind]) as server:
        await clients.call(target(server.url), ECHO, arguments, bearer=None, seconds=5)
        assert server.calls == [("echo", arguments)]


async def test_32_calls_at_once_of_one_target(clients: Upstreams) -> None:
    """More wait for their turn, within their time; other targets of the same server have turns of their own (GW-16)."""
    running = most = 0
    enough = asyncio.Event()

    async def on_call(_name: str, _arguments: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await enough.wait()
        running -= 1

    async with sdk_upstream() as server:
        server.on_call = on_call
        upstream = target(server.url)
        calls = [asyncio.create_task(call(clients, upstream, ECHO, seconds=20)) for _ in range(40)]
        async with asyncio.timeout(10):
            while running < 32:
                await asyncio.sleep(0.01)
        waiting = await call(clients, upstream, ECHO, seconds=0.2)
        assert (waiting.reason, waiting.sent, running) == ("TIMEOUT", False, 32)
        other = asyncio.create_task(call(clients, target(server.url, tenant=OTHER_TENANT), ECHO, seconds=20))
        async with asyncio.timeout(10):
            while running < 33:
                await asyncio.sleep(0.01)
        enough.set()
        outcomes = await asyncio.gather(*calls, other)
    assert {outcome.kind for outcome in outcomes} == {"success"}
    assert most == 33


async def test_a_tool_that_asks_for_more(clients: Upstreams) -> None:
    """Elicitation is not relayed."""
    async with sdk_upstream() as server:
        assert (await call(clients, target(server.url), ASK)).reason == "INPUT_REQUIRED"


async def test_marked_arguments_are_sent_as_headers(clients: Upstreams) -> None:
    """GW-17.5: a server of 2026-07-28 refuses a call whose `Mcp-Param-*` do not agree with its arguments."""
    async with sdk_upstream(validates_headers=True) as server:
        outcome = await call(clients, target(server.url), REGION, region="Zürich")
        assert outcome.kind == "success"
        assert server.requests[-1][1]["mcp-param-region"] == "=?base64?WsO8cmljaA==?="


@pytest.mark.parametrize("kind", ["2026 stream", "2025 session stream"])
async def test_progress_is_relayed_within_bounds(clients: Upstreams, kind: str) -> None:
    """50 notifications in a moment: at most ten a second, 256 characters each; the result comes all the same."""
    heard: list[tuple[float, float | None, str | None]] = []

    async def sink(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, total, message))

    async with sdk_upstream(**SERVERS[kind]) as server:
        outcome = await clients.call(target(server.url), PROGRESS, {}, bearer=None, seconds=5, progress=sink)
    assert outcome.kind == "success"
    assert 1 <= len(heard) <= 10
    assert heard[0] == (0, 50, "x" * 256)


async def test_a_caller_that_is_gone_stops_no_call(clients: Upstreams) -> None:
    """Whatever progress meets at the caller, the outcome is read."""

    async def sink(_progress: float, _total: float | None, _message: str | None) -> None:
        raise ConnectionResetError

    async with sdk_upstream(json_response=False) as server:
        outcome = await clients.call(target(server.url), PROGRESS, {}, bearer=None, seconds=5, progress=sink)
    assert outcome.kind == "success"


async def test_credentials(tmp_path: Path) -> None:
    """The file of the namespace, read anew; else the gate's token; else none. Nothing of another tenant's."""
    for namespace in ("tenant-a", "tenant-b"):
        (tmp_path / namespace).mkdir()
    (tmp_path / "tenant-a" / "mail").write_text("secret-a\n")
    async with sdk_upstream() as server, upstream_clients(tmp_path) as clients:
        mine, other = (
            target(server.url, secret_ref="mail"),
            target(server.url, tenant=OTHER_TENANT, namespace="tenant-b", secret_ref="mail"),
        )

        async def authorization(upstream: object = mine, bearer: str | None = None) -> str | None:
            assert (await clients.call(upstream, ECHO, {}, bearer=bearer, seconds=5)).kind == "success"  # type: ignore[arg-type]
            return server.requests[-1][1].get("authorization")

        assert await authorization(bearer="gate-token") == "Bearer secret-a"
        (tmp_path / "tenant-a" / "mail").write_text("secret-a2\n")
        assert await authorization() == "Bearer secret-a2"
        seen = len(server.requests)
        missing = await clients.call(other, ECHO, {}, bearer="gate-token", seconds=5)
        assert (missing.reason, missing.sent, len(server.requests)) == ("CREDENTIAL_MISSING", False, seen)
        (tmp_path / "tenant-b" / "mail").write_text("secret-b\n")
        assert await authorization(other) == "Bearer secret-b"
        assert await authorization(target(server.url), bearer="gate-token") == "Bearer gate-token"
        assert await authorization(target(server.url)) is None


@pytest.mark.parametrize("name", ["../tenant-b/mail", "/etc/passwd", ".", "..", "a b", "many lines", "empty", "binary"])
async def test_a_credential_that_is_none(tmp_path: Path, name: str) -> None:
    """No name leaves the namespace's folder; what is not one line of visible ASCII is no credential."""
    (tmp_path / "tenant-a").mkdir()
    (tmp_path / "tenant-b").mkdir()
    (tmp_path / "tenant-b" / "mail").write_text("secret-b")
    (tmp_path / "tenant-a" / "empty").write_text("")
    (tmp_path / "tenant-a" / "binary").write_bytes(b"a\r\nx-injected: 1")
    async with sdk_upstream() as server, upstream_clients(tmp_path) as clients:
        outcome = await call(clients, target(server.url, secret_ref=name), ECHO)
        assert (outcome.reason, outcome.sent, server.requests) == ("CREDENTIAL_MISSING", False, [])
