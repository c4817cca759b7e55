"""Whatever an application does, its caller gets one whole answer, and a defect leaves a log line."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import structlog

from legivellum.http.asgi_handler import AsgiHandler
from legivellum.http.edge import Edge
from legivellum.http.endpoints import Endpoint, Reply
from legivellum.http.exchange import AnyResponse, Exchange, Response, ResponseStream, StreamingResponse, json_response
from legivellum.http.router import Handler, RouteLimits, Router

DEFAULTS = RouteLimits(body_bytes=1_000, body_seconds=1.0, deadline_seconds=0.2)
OBSERVED = list[tuple[str | None, int]]


def edge_of(handlers: Mapping[str, Handler], observed: OBSERVED | None = None, **endpoint: Any) -> Edge:
    table = [Endpoint(*key.split(" "), "", "none", (Reply(200, ""),), **endpoint) for key in handlers]  # type: ignore[arg-type]

    def observe(exchange: Exchange, answer: AnyResponse, _seconds: float) -> None:
        if observed is not None:
            observed.append((exchange.route, answer.status))

    return Edge(Router.bind(table, handlers, defaults=DEFAULTS), translate=lambda error: None, observe=observe)


@asynccontextmanager
async def client_of(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(edge), base_url="http://gate") as client:
        yield client


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Returns without an answer."""


async def headless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.body", "body": b"x"})


async def unfinished(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x", "more_body": True})


async def too_short(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
    await send({"type": "http.response.body", "body": b"x"})


async def failing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise LookupError


async def cancelling(scope: Any, receive: Any, send: Any) -> None:
    """Waits for work that somebody else cancels."""
    work = asyncio.get_running_loop().create_future()
    work.cancel()
    await work


@pytest.mark.parametrize("app", [silent, headless, unfinished, too_short, failing, cancelling])
@pytest.mark.parametrize("keeps_deadline", [False, True])
async def test_an_application_without_a_whole_answer_is_a_500_that_is_logged(app: Any, keeps_deadline: bool) -> None:
    """It starts no answer, no head, no end, fewer bytes than it announced, fails, is cancelled: 500 INTERNAL_ERROR."""
    edge = edge_of({"GET /": AsgiHandler(app)}, keeps_deadline=keeps_deadline)
    with structlog.testing.capture_logs() as logged:
        async with client_of(edge) as client:
            answer = await client.get("/", headers={"x-request-id": "r-1"})
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL_ERROR")
    assert [(line["event"], line["request_id"], line["log_level"]) for line in logged] == [
        ("request_failed", "r-1", "error")
    ]


async def test_a_late_application_is_a_503() -> None:
    """The deadline of the route is the gate's, or its own."""

    async def late(exchange: Exchange) -> Response:
        await asyncio.sleep(1)
        return json_response(200, b"{}")

    for more, at_least in (({}, 0.2), ({"deadline_seconds": 0.05}, 0.05)):
        started = asyncio.get_running_loop().time()
        async with client_of(edge_of({"GET /": late}, **more)) as client:
            assert (await client.get("/")).json()["code"] == "DEADLINE_EXCEEDED"
        assert at_least <= asyncio.get_running_loop().time() - started < 0.9


async def test_the_observer_is_told_of_the_route_and_cannot_break_an_answer() -> None:
    """Route and status of every answer, 404s without a route; a failing observer is logged and changes nothing."""

    async def ok(exchange: Exchange) -> Response:
        return json_response(200, b"{}")

    observed: OBSERVED = []
    async with client_of(edge_of({"GET /a/{b}": ok}, observed)) as client:
        for method, path in (("GET", "/a/1"), ("HEAD", "/a/1"), ("POST", "/a/1"), ("OPTIONS", "/a/1"), ("GET", "/b")):
            await client.request(method, path)
    assert observed == [("/a/{b}", 200), ("/a/{b}", 200), ("/a/{b}", 405), ("/a/{b}", 204), (None, 404)]

    def failing_observer(exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        raise RuntimeError

    table = (Endpoint("GET", "/", "", "none", (Reply(200, ""),)),)
    edge = Edge(
        Router.bind(table, {"GET /": ok}, defaults=DEFAULTS), translate=lambda error: None, observe=failing_observer
    )
    with structlog.testing.capture_logs() as logged:
        async with client_of(edge) as client:
            assert (await client.get("/")).status_code == 200
    assert [line["event"] for line in logged] == ["observer_failed"]


async def test_a_stream_writes_its_body_and_head_has_none() -> None:
    """An answer that lasts is sent in parts; HEAD gets its head at once and nothing is written."""
    written: list[str] = []

    async def stream(exchange: Exchange) -> StreamingResponse:
        async def write_body(out: ResponseStream) -> None:
            for part in (b"a", b"b"):
                written.append(part.decode())
                await out.write(part)

        return StreamingResponse(200, [(b"content-type", b"text/event-stream")], write_body)

    async with client_of(edge_of({"GET /": stream})) as client:
        head = await client.head("/")
        assert (head.status_code, head.content, written) == (200, b"", [])
        got = await client.get("/")
        assert (got.content, written) == (b"ab", ["a", "b"])
        assert got.headers["content-type"] == head.headers["content-type"] == "text/event-stream"
        assert got.headers["x-request-id"]


async def test_the_body_has_its_own_limit_on_each_route() -> None:
    """Beyond the route's bytes it is 413; the handler reads it as often as it likes."""

    async def size(exchange: Exchange) -> Response:
        first, again = await exchange.body(), await exchange.body()
        assert first is again
        return json_response(200, b"%d" % len(first))

    for endpoint, limit in (({}, 1_000), ({"body_bytes": 50_000}, 50_000)):
        for keeps_deadline in (True, False):
            edge = edge_of({"POST /": size}, keeps_deadline=keeps_deadline, **endpoint)
            async with client_of(edge) as client:
                assert (await client.post("/", content=b"x" * limit)).json() == limit
                assert (await client.post("/", content=b"x" * (limit + 1))).json()["code"] == "BODY_TOO_LARGE"
