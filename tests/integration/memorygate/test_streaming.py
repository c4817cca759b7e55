"""The stream: everything once, in one order, nothing missed, whoever commits late and whoever reads slowly."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import asyncpg
import httpx
import pytest
import pytest_asyncio
import uvicorn
from tests.integration.memorygate.conftest import LedgerDatabase, Peer, accepted, process_on
from tests.integration.memorygate.test_isolation import contents

from legivellum.gate.composition import application
from legivellum.gate.serving import bound
from legivellum.http.limits import Limits
from legivellum.http.protocol import guarded
from memorygate.gate import GATE
from memorygate.ledger import MemoryGateDatabase


@asynccontextmanager
async def served(ledger: MemoryGateDatabase, *, drain_seconds: int = 1, streams: int = 5) -> AsyncIterator[str]:
    """The gate on a socket, until the block is left."""
    process = process_on(
        ledger, deadline_ms=10_000, rate_per_second=0, stream_poll_ms=20, heartbeat_seconds=0.2, streams=streams
    )
    listening = bound("127.0.0.1", 0)
    app = application(GATE, process)
    server = uvicorn.Server(
        uvicorn.Config(
            app.asgi,
            http=guarded(Limits(write_seconds=0.5)),
            ws="none",
            log_config=None,
            lifespan="off",
            timeout_graceful_shutdown=drain_seconds,
        )
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listening.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base_url(ledger: MemoryGateDatabase) -> AsyncIterator[str]:
    async with served(ledger) as url:
        yield url


@pytest_asyncio.fixture
async def alice(base_url: str) -> AsyncIterator[Peer]:
    async with httpx.AsyncClient(base_url=base_url, timeout=10) as client:
        yield Peer(client, uuid4(), "alice")


@asynccontextmanager
async def stream(peer: Peer, **options) -> AsyncIterator[AsyncIterator[tuple[str, dict]]]:
    """(event id, receipt) as they come; heartbeats are left out unless `comments` is asked for."""
    last = options.pop("last", None)
    headers = peer.headers | ({"Last-Event-ID": last} if last else {})
    async with peer.client.stream("GET", "/receipts/stream", params=options or None, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")

        async def events() -> AsyncIterator[tuple[str, dict]]:
            event = {}
            async for line in answer.aiter_lines():
                if line.startswith(":"):
                    yield line, {}
                elif line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                elif event:
                    yield event["id"], json.loads(event["data"])
                    event = {}

        yield events()


async def collect(events: AsyncIterator[tuple[str, dict]], count: int) -> list[tuple[str, dict]]:
    result = []
    async with asyncio.timeout(10):
        async for at, receipt in events:
            if receipt:
                result.append((at, receipt))
            if len(result) == count:
                return result
    raise AssertionError("the stream ended")


@pytest.mark.invariant("INV-058")
async def test_what_is_stored_is_streamed_as_it_is_read(alice: Peer):
    """From the beginning, then live; each event is the receipt as GET shows it."""
    first = (await alice.accepted(task_id="one")).json()["receipt_id"]
    async with stream(alice, **{"from": "beginning"}) as events:
        [(_, receipt)] = await collect(events, 1)
        assert receipt == (await alice.get(f"/receipts/{first}")).json()
        second = (await alice.accepted(task_id="two")).json()["receipt_id"]
        [(_, receipt)] = await collect(events, 1)
        assert receipt["receipt_id"] == second


@pytest.mark.invariant("INV-055")
async def test_streaming_changes_nothing(alice: Peer, ledger_database: LedgerDatabase):
    """A stream that was read, resumed and left: the checksums of all tables are equal."""
    await alice.accepted(task_id="one")
    await alice.accepted(task_id="two")
    before = await contents(ledger_database)
    async with stream(alice, **{"from": "beginning"}) as events:
        [(last, _)] = await collect(events, 1)
    async with stream(alice, last=last) as events:
        [(_, receipt)] = await collect(events, 1)
    assert receipt["task_id"] == "two"
    assert await contents(ledger_database) == before


async def test_a_stream_goes_on_where_it_ended(alice: Peer):
    """Cut after each event and resumed with its id: every receipt once, in one order, and no other tenant's."""
    stranger = Peer(alice.client, uuid4(), "alice")
    sent = []
    for n in range(12):
        sent.append((await alice.accepted(task_id=f"t{n}")).json()["receipt_id"])
        await stranger.accepted(task_id=f"t{n}")
    observations, last = [], None
    while len(observations) < 12:
        options = {"last": last} if last else {"from": "beginning"}
        async with stream(alice, **options) as events:
            [(last, receipt)] = await collect(events, 1)
        observations.append(receipt["receipt_id"])
    assert observations == sent


@pytest.mark.invariant("INV-058")
async def test_a_late_commit_is_late_in_the_stream_and_never_missing(alice: Peer, ledger_database: LedgerDatabase):
    """A transaction stores a receipt and stays open while others commit after it: none of those is sent before it ended."""
    slow = await _beside(ledger_database.superuser)
    try:
        async with stream(alice) as events:
            hidden = accepted(task_id="slow", principal_ai="alice")
            transaction = slow.transaction()
            await transaction.start()
            from legivellum.receipts.receipt import Receipt, examine
            from legivellum.receipts.rights import Right
            from memorygate.ledger import _APPEND, entry

            receipt = examine(hidden, tenant=str(alice.tenant), emitter="alice")
            assert isinstance(receipt, Receipt)
            await slow.fetch(_APPEND, *([value] for value in entry(receipt, Right.OPEN)))
            quick = [(await alice.accepted(task_id=f"quick{n}")).json()["receipt_id"] for n in range(3)]
            waiting = asyncio.create_task(collect(events, 4))
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await transaction.commit()
            observations = [receipt["receipt_id"] for _, receipt in await waiting]
        assert observations == [hidden["receipt_id"], *quick]
    finally:
        await slow.close()


@pytest.mark.invariant("INV-058")
async def test_writers_at_once_leave_no_gap(alice: Peer):
    """Three hundred receipts from thirty writers, read by two streams meanwhile: both see all of them, once, in one order."""

    async def read() -> list[str]:
        async with stream(alice) as events:
            ready.release()
            return [receipt["receipt_id"] for _, receipt in await collect(events, 300)]

    ready = asyncio.Semaphore(0)
    readers = [asyncio.create_task(read()) for _ in range(2)]
    for _ in readers:
        await ready.acquire()

    async def write(writer: int) -> list[str]:
        return [(await alice.accepted(task_id=f"w{writer}-{n}")).json()["receipt_id"] for n in range(10)]

    written = await asyncio.gather(*(write(n) for n in range(30)))
    item, two = await asyncio.gather(*readers)
    assert item == two
    assert sorted(item) == sorted(receipt_id for ids in written for receipt_id in ids)


async def test_a_silent_stream_says_that_it_lives(alice: Peer):
    """Comments come though no receipt does."""
    async with stream(alice) as events, asyncio.timeout(5):
        beats = [line async for line, _ in _first(events, 3)]
    assert beats == [": memorygate", ": alive", ": alive"]


async def _first(events, count):
    async for event in events:
        yield event
        count -= 1
        if not count:
            return


async def test_streams_are_bounded_for_a_principal_and_for_the_process(alice: Peer):
    """The fifth stream of a principal is 429, the sixth of a process that may have five is 503; one that ends makes room."""
    bob, stranger = replace(alice, name="bob"), Peer(alice.client, uuid4(), "alice")
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(stream(alice))
        answer = await alice.get("/receipts/stream")
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) >= 1
        async with stream(bob):
            answer = await stranger.get("/receipts/stream")
            assert (answer.status_code, answer.json()["code"]) == (503, "OVERLOADED")
    async with asyncio.timeout(10):
        while (await _status(alice)) != 200:
            await asyncio.sleep(0.02)


async def test_a_tenant_has_sixteen_streams_and_another_tenant_is_not_kept_out(ledger: MemoryGateDatabase):
    """The seventeenth of one tenant is 429, whoever of it asks; a stranger's first is opened."""
    async with served(ledger, streams=40) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        tenant = uuid4()
        async with AsyncExitStack() as stack:
            for n in range(16):
                await stack.enter_async_context(stream(Peer(client, tenant, f"worker{n // 4}")))
            answer = await Peer(client, tenant, "newcomer").get("/receipts/stream")
            assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
            async with stream(Peer(client, uuid4(), "stranger")):
                pass


async def test_many_streams_that_are_opened_at_once_are_counted_before_they_begin(alice: Peer):
    """Of nine that one principal asks for in the same moment four are opened."""
    async with AsyncExitStack() as stack:

        async def opened() -> int:
            answer = await stack.enter_async_context(
                alice.client.stream("GET", "/receipts/stream", headers=alice.headers)
            )
            return int(answer.status_code)

        assert sorted(await asyncio.gather(*(opened() for _ in range(9)))) == [200] * 4 + [429] * 5


async def test_a_head_request_holds_no_place(alice: Peer):
    """HEAD is answered as GET would be, without a stream: as often as somebody likes."""
    for _ in range(20):
        assert (await alice.client.head("/receipts/stream", headers=alice.headers)).status_code == 200
    async with stream(alice):
        pass


async def _status(peer: Peer) -> int:
    async with peer.client.stream("GET", "/receipts/stream", headers=peer.headers) as answer:
        return int(answer.status_code)


async def test_a_stream_is_strict(alice: Peer):
    """A made-up position is 422; without a credential 401; another method is 405."""
    for last in ("x", "1", "-1.0", "1.2.3", "99999999999999999999.0"):
        answer = await alice.client.get("/receipts/stream", headers=alice.headers | {"Last-Event-ID": last})
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_CURSOR"), last
    assert (await alice.get("/receipts/stream", **{"from": "yesterday"})).status_code == 422
    assert (await alice.client.get("/receipts/stream")).status_code == 401
    assert (await alice.client.post("/receipts/stream", headers=alice.headers)).status_code == 405


async def test_a_reader_that_takes_nothing_is_cut_off(alice: Peer, base_url: str):
    """It opens a stream, never reads, and is disconnected once its socket is full; the others go on."""
    big = "x" * 60_000
    host, port = base_url.removeprefix("http://").split(":")
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(lazy, (host, int(port)))
        head = f"GET /receipts/stream HTTP/1.1\r\nHost: x\r\nX-Me: {alice.headers['X-Me']}\r\n\r\n"
        await loop.sock_sendall(lazy, head.encode())
        await asyncio.sleep(0.1)
        for n in range(120):
            assert (await alice.accepted(task_id=f"t{n}", body=big)).status_code == 201
        await asyncio.sleep(1.5)
        taken = await _what_is_left(lazy)
    assert taken < 120 * 60_000
    async with stream(alice, **{"from": "beginning"}) as events:
        assert len(await collect(events, 120)) == 120


async def _what_is_left(connection: socket.socket) -> int:
    """Bytes until the other side ends it; a timeout when it does not."""
    taken = 0
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(3):
            while part := await asyncio.get_running_loop().sock_recv(connection, 1 << 20):
                taken += len(part)
    return taken


async def _beside(dsn: str) -> asyncpg.Connection:
    """A connection that counts in another slot of `tally` than the gate's own: those two would wait for each other."""
    while True:
        connection = await asyncpg.connect(dsn)
        query = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'memorygate_writer' AND pid % 16 = pg_backend_pid() % 16)"
        if await connection.fetchval(query):
            return connection
        await connection.close()


async def test_a_gate_that_stops_does_not_wait_for_readers(ledger: MemoryGateDatabase):
    """Its streams end whole and at once, however long requests in flight may take; nothing is missed by whoever goes on."""
    async with AsyncExitStack() as gate, asyncio.timeout(10):
        url = await gate.enter_async_context(served(ledger, drain_seconds=60))
        async with httpx.AsyncClient(base_url=url, timeout=10) as client:
            bob = Peer(client, uuid4(), "bob")
            async with stream(bob, **{"from": "beginning"}) as events:
                stored = (await bob.accepted(task_id="seen")).json()["receipt_id"]
                [(at, observations)] = await collect(events, 1)
                assert observations["receipt_id"] == stored
                stopping = asyncio.create_task(gate.aclose())
                assert [receipt async for _, receipt in events if receipt] == []
            await stopping
    async with served(ledger) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
        bob = replace(bob, client=client)
        missed = (await bob.accepted(task_id="missed")).json()["receipt_id"]
        async with stream(bob, last=at) as events:
            [(_, receipt)] = await collect(events, 1)
            assert receipt["receipt_id"] == missed
