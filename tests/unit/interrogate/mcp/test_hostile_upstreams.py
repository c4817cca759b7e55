"""Whatever an MCP server answers is one outcome, in time, in flat memory; and a call beside it is unhurt (GW-17)."""

import asyncio
import resource
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.unit.interrogate.mcp.hostile_upstream import HostileUpstream, hostile_upstream
from tests.unit.interrogate.mcp.upstream_clients import call, plain_pin, target, upstream_clients

from interrogate.mcp_gateway.upstream import Upstreams

OUTCOMES = {
    "drip": "TIMEOUT",
    "endless-events": "ANSWER_TOO_LARGE",
    "endless-event": "ANSWER_TOO_LARGE",
    "silent-events": "TIMEOUT",
    "ended-events": "BROKEN",
    "html": "ANSWER_INVALID",
    "html-error": "HTTP_ERROR",
    "deep": "ANSWER_INVALID",
    "reset": "BROKEN",
    "reset-within": "BROKEN",
    "closed": "BROKEN",
    "large": "ANSWER_TOO_LARGE",
    "large-gzip": "ENCODED",
    "redirect": "REDIRECT",
    "task": "ANSWER_INVALID",
    "task-with-content": "ANSWER_INVALID",
    "unknown-content": "ANSWER_INVALID",
    "other-id": "ANSWER_INVALID",
    "accepted": "ANSWER_INVALID",
    "no-json": "ANSWER_INVALID",
    "infinite": "ANSWER_INVALID",
    "asking-without-end": "ANSWER_INVALID",
}


@pytest_asyncio.fixture
async def server() -> AsyncIterator[HostileUpstream]:
    async with hostile_upstream([*OUTCOMES, "well", "well-too", "broken-once"]) as running:
        yield running


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[Upstreams]:
    async with upstream_clients() as made:
        yield made


@pytest.mark.parametrize(("tool", "reason"), OUTCOMES.items())
async def test_an_answer_is_one_outcome(clients: Upstreams, server: HostileUpstream, tool: str, reason: str) -> None:
    """In time, with one call at the server, and a call that runs beside it gets its result."""
    begun = time.monotonic()
    upstream = target(server.url)
    outcome, beside = await asyncio.gather(
        call(clients, upstream, plain_pin(tool), seconds=1.5), call(clients, upstream, plain_pin("well"))
    )
    assert (outcome.kind, outcome.reason, outcome.sent, outcome.attempts) == ("escalated", reason, True, 1)
    assert (outcome.result, outcome.result_sha256) == (None, None)
    assert server.calls[tool] == 1
    assert beside.kind == "success"
    assert time.monotonic() - begun < 3
    assert (await call(clients, upstream, plain_pin("well-too"))).kind == "success"


async def test_memory_stays_flat(clients: Upstreams, server: HostileUpstream) -> None:
    """200 MiB of JSON and 64 MiB in gzip cost what the limit allows, not what they hold."""
    upstream = target(server.url)
    await call(clients, upstream, plain_pin("well"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for tool in ("large", "endless-event", "endless-events", "deep"):
        await asyncio.gather(*(call(clients, upstream, plain_pin(tool), seconds=10) for _ in range(4)))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 80 * 1024, f"{grown} KiB"


async def test_a_result_larger_than_the_target_allows(clients: Upstreams, server: HostileUpstream) -> None:
    """`maxResultBytes` counts the answer, not the handshake before it."""
    outcome = await call(clients, target(server.url, max_result_bytes=40), plain_pin("well"))
    assert outcome.reason == "ANSWER_TOO_LARGE"
    assert (await call(clients, target(server.url, max_result_bytes=400), plain_pin("well"))).kind == "success"


async def test_no_cookie_is_kept(clients: Upstreams, server: HostileUpstream) -> None:
    """A cookie that came with one caller's answer would travel with another's call."""
    for _ in range(3):
        assert (await call(clients, target(server.url), plain_pin("well"))).kind == "success"
    assert server.cookies == []


@pytest.mark.parametrize(("idempotent", "attempts", "kind"), [(True, 2, "success"), (False, 1, "escalated")])
async def test_a_broken_connection_is_repeated_only_where_declared(
    clients: Upstreams, server: HostileUpstream, idempotent: bool, attempts: int, kind: str
) -> None:
    """GW-15: what was written is sent once more where the tool is declared idempotent, and never otherwise."""
    outcome = await call(clients, target(server.url), plain_pin("broken-once", idempotent=idempotent))
    assert (outcome.kind, outcome.attempts, server.calls["broken-once"]) == (kind, attempts, attempts)


@pytest.mark.parametrize("tool", ["reset", "reset-within", "closed"])
async def test_a_tool_that_is_not_idempotent_is_called_once(
    clients: Upstreams, server: HostileUpstream, tool: str
) -> None:
    """§4.6: 100 calls over connections that break are at most 100 calls at the server."""
    upstream = target(server.url)
    for _ in range(10):
        outcomes = await asyncio.gather(*(call(clients, upstream, plain_pin(tool)) for _ in range(10)))
        assert {outcome.reason for outcome in outcomes} == {"BROKEN"}
    assert server.calls[tool] <= 100


async def test_a_server_that_is_away(clients: Upstreams, server: HostileUpstream) -> None:
    """Nothing was sent, and the outcome says so; connects are repeated."""
    async with hostile_upstream(["well"]) as gone:
        upstream = target(gone.url)
    outcome = await call(clients, upstream, plain_pin("well"))
    assert (outcome.reason, outcome.sent, outcome.attempts) == ("UNREACHABLE", False, 0)


async def test_a_host_that_may_not_be_contacted(clients: Upstreams) -> None:
    """A target names services of its tenant's namespace, and hosts that the installation allows."""
    outcome = await call(clients, target("http://169.254.169.254/mcp"), plain_pin("well"))
    assert (outcome.reason, outcome.sent) == ("UNREACHABLE", False)
