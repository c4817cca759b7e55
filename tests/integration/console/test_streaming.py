"""The live stream: tells that something changed, to those who may look, for as long as they may."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, settings_for
from tests.integration.api.processes import started, wait_for
from tests.integration.console.visiting import Visitor

from legivellum.identity.api_keys import digest_of
from metagate_api.server import serving


@asynccontextmanager
async def stream(visitor: Visitor, **params: str) -> AsyncIterator[AsyncIterator[str]]:
    """The names of its events as they come."""

    async def events(answer: httpx.Response) -> AsyncIterator[str]:
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                yield line.removeprefix("event: ")

    async with visitor.client.stream("GET", "/console/live", params=params) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield events(answer)


async def following(events: AsyncIterator[str]) -> str:
    return await asyncio.wait_for(anext(events), 10)


async def test_a_boot_is_told_and_a_suspension_ends_it(gate: GateFixture, visitor: Visitor) -> None:
    """One event when it begins, one when somebody boots in this tenant; who may not look any more is told that it is over."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("indexer", tenant=admin.tenant)
    await visitor.inside(admin.key)
    async with stream(visitor) as events:
        assert await following(events) == "changed"
        await gate.boot(principal)
        assert await following(events) == "changed"
        await gate.change(admin, suspended=True)
        while (word := await following(events)) == "changed":
            pass
        assert word == "over"
        assert [event async for event in events] == []


@pytest.mark.invariant("EXT-11")
@pytest.mark.parametrize("how", ["suspended", "deleted", "key removed", "demoted", "expired"])
async def test_a_stream_ends_within_a_second_of_its_credential(gate: GateFixture, visitor: Visitor, how: str) -> None:
    """D-67: an open stream rests on a credential like any request."""
    expires = datetime.now(UTC) + timedelta(seconds=4) if how == "expired" else None
    admin = await gate.principal("admin", type="admin", key_expires=expires)
    await visitor.inside(admin.key)
    async with stream(visitor) as events:
        assert await following(events) == "changed"
        if how == "suspended":
            await gate.change(admin, suspended=True)
        elif how == "demoted":
            await gate.change(admin, type="component")
        elif how == "deleted":
            await gate.publish(deletes={"principal": [(str(admin.tenant), admin.name)]})
        elif how == "key removed":
            await gate.publish(deletes={"api_key": [(digest_of(admin.key),)]})
        else:
            # A cookie counts whole seconds: the session may end up to one before its key.
            await asyncio.sleep(max(0.0, (expires - datetime.now(UTC)).total_seconds()))
        started_at = time.monotonic()
        while (word := await following(events)) == "changed":
            pass
        assert word == "over"
        assert time.monotonic() - started_at < 1.0


async def test_streams_are_counted(gate: GateFixture, visitor: Visitor) -> None:
    """Each as an answer of its route when it begins; how many are open now is a gauge."""
    admin = await gate.principal("admin", type="admin")
    await visitor.inside(admin.key)

    async def counted(name: str) -> float:
        lines = (await gate.client.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    answers = 'metagate_http_requests_total{route="/console/live",status="200"}'
    before, open_before = await counted(answers), await counted("metagate_console_streams ")
    async with stream(visitor) as events:
        assert await following(events) == "changed"
        assert await counted(answers) == before + 1
        assert await counted("metagate_console_streams ") == open_before + 1
    async with asyncio.timeout(10):
        while await counted("metagate_console_streams ") > open_before:
            await asyncio.sleep(0.05)


async def test_a_stream_keeps_nobody_from_stopping(database: Database, gate: GateFixture) -> None:
    """A server that stops while somebody looks ends the stream, and does not wait out its drain."""
    admin = await gate.principal("admin", type="admin")
    settings = settings_for(database, console=True, drain_seconds=60)
    async with AsyncExitStack() as server:
        url = await server.enter_async_context(serving(settings))
        async with Visitor(url) as visitor:
            await visitor.inside(admin.key)
            async with stream(visitor) as events:
                assert await following(events) == "changed"
                stopping = asyncio.create_task(server.aclose())
                assert [event async for event in events] == []
                await asyncio.wait_for(stopping, 20)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_process_that_is_told_to_stop_does_not_wait_for_streams(
    database: Database, gate: GateFixture, workers: str
) -> None:
    """SIGTERM: streams end whole, and at once, however long requests in flight may take."""
    admin = await gate.principal("admin", type="admin")
    with started(database, METAGATE_CONSOLE="true", METAGATE_WORKERS=workers, METAGATE_DRAIN_SECONDS="60") as (
        process,
        port,
    ):
        wait_for(port, process, "/readyz")
        async with Visitor(f"http://127.0.0.1:{port}") as visitor:
            await visitor.inside(admin.key)
            async with stream(visitor) as events:
                assert await following(events) == "changed"
                process.send_signal(signal.SIGTERM)
                assert [event async for event in events if event != "changed"] == []
        assert await asyncio.to_thread(process.wait, 10) == 0


async def test_nobody_takes_all_streams(gate: GateFixture, visitor: Visitor) -> None:
    """Of many that one principal opens at the same moment four are opened; one that ends makes room; others are not kept out."""
    admin, other = [await gate.principal(name, type="admin") for name in ("admin", "other")]
    await visitor.inside(admin.key)

    async def opened(stack: AsyncExitStack) -> int:
        answer = await stack.enter_async_context(visitor.client.stream("GET", "/console/live"))
        return int(answer.status_code)

    async with AsyncExitStack() as item, AsyncExitStack() as rest, Visitor(gate.url) as another:
        assert await opened(item) == 200
        answers = await asyncio.gather(*(opened(rest) for _ in range(9)))
        assert sorted(answers) == [200] * 3 + [429] * 6
        await another.inside(other.key)
        async with stream(another) as events:
            assert await following(events) == "changed"
        await item.aclose()
        async with asyncio.timeout(10):
            while await opened(rest) != 200:
                await asyncio.sleep(0.05)
