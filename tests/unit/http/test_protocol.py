"""The edge guard at the socket: raw bytes in, and what comes back."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from tests import corpora

from legivellum.http.edge import Edge
from legivellum.http.endpoints import Endpoint, Reply
from legivellum.http.exchange import (
    ClientGone,
    Exchange,
    Response,
    ResponseStream,
    StreamingResponse,
    json_response,
)
from legivellum.http.limits import Limits
from legivellum.http.protocol import guarded
from legivellum.http.router import RouteLimits, Router

LIMITS = Limits(
    body_bytes=2_000,
    header_bytes=1_000,
    header_count=20,
    url_bytes=200,
    header_seconds=0.2,
    body_seconds=0.3,
    idle_seconds=0.4,
    write_seconds=0.3,
    linger_seconds=0.3,
    connections=50,
    pipelined=4,
)


class Echo:
    """Answers with what it understood; `/slow` waits until told, `/stream` with its body only, `/big` answers more than a
    socket takes, `/unbounded` does not say how much.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.release = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(f"{scope['method']} {scope['path']}")
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                self.seen.append("gone")
                return
            body, more = body + message["body"], message["more_body"]
        if scope["path"] == "/slow":
            await self.release.wait()
        encode = json.dumps(
            {
                "method": scope["method"],
                "path": scope["path"],
                "body": body.decode("latin-1"),
                "headers": [[k.decode(), v.decode("latin-1")] for k, v in scope["headers"]],
            }
        ).encode()
        if scope["path"] == "/big":
            encode = b"x" * 30_000_000
        headers = [] if scope["path"] == "/unbounded" else [(b"content-length", b"%d" % len(encode))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/stream":
            await self.release.wait()
        if scope["path"] == "/unbounded":
            for at in range(0, len(encode), 10):
                await send({"type": "http.response.body", "body": encode[at : at + 10], "more_body": True})
            encode = b""
        await send({"type": "http.response.body", "body": encode})


class _Quiet(uvicorn.Server):
    @contextmanager
    def capture_signals(self):
        yield


@asynccontextmanager
async def listening(
    limits: Limits = LIMITS, *, app: Any = None, router: Router | None = None
) -> AsyncIterator[tuple[Any, int]]:
    app = app or Echo()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=guarded(limits, router),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    server = _Quiet(config)
    task = asyncio.create_task(server.serve([sock]))
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield app, sock.getsockname()[1]
    finally:
        if isinstance(app, Echo):
            app.release.set()
        server.should_exit = True
        server.force_exit = True
        await task


async def talk(port: int, *chunks: bytes, pause: float = 0.0, half_close: bool = False, wait: float = 2.0) -> bytes:
    """Send the chunks and return everything that comes until the server closes, or `wait` seconds pass."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for chunk in chunks:
        writer.write(chunk)
        try:
            await writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(pause)
    if half_close:
        writer.write_eof()
    got = b""
    try:
        async with asyncio.timeout(wait):
            while data := await reader.read(65_536):
                got += data
    except (TimeoutError, ConnectionError):
        pass
    writer.close()
    return got


def statuses(got: bytes) -> list[int]:
    return [int(part[:3]) for part in re.split(rb"HTTP/1\.[01] ", got)[1:]]


def problem(got: bytes) -> dict[str, Any]:
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head, head
    assert b"connection: close" in head
    assert b"cache-control: no-store" in head
    return json.loads(body)


CLOSE = b"Connection: close\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"

AMBIGUOUS = {
    "length and chunked": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a hexadecimal length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
    "an empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
    "a huge length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n\r\n",
    "a folded coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
    "gzip then chunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked then identity": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "xchunked": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, padded": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a space that is not one": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "a prefixed chunk size": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a padded chunk size": CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "chunks with line feeds": CHUNKED + b"3\nabc\n0\n\n",
    "a chunk that is longer": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk extension with a line feed": CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a huge chunk": CHUNKED + b"FFFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
    "trailers": CHUNKED + b"3\r\nabc\r\n0\r\nX-API-Key: evil\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two hosts in 1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "an upgrade with two framings": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an upgrade and a bad chunk": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "an upgrade and trailers": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-API-Key: evil\r\n\r\n",
    "the preface behind an upgrade": b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nHost: a\r\nX Y: ab\r\n\r\n",
    "a space before the first name": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "an empty name": b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
    "a control character in the URL": b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a URL that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown method": b"FOO / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a URL without a slash": b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS on a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xab" * 60,
    "binary noise": bytes(range(256)),
    "another protocol": b"EHLO example.com\r\n",
    "a PROXY line": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an ambiguous second request": b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge() -> AsyncIterator[tuple[Echo, int]]:
    async with listening() as made:
        yield made


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_ambiguous_bytes_are_refused(edge: tuple[Echo, int], raw: bytes) -> None:
    """What two implementations may read differently is answered 400 and closed; no handler gets to its end."""
    app, port = edge
    app.seen.clear()
    got = await talk(port, raw, wait=1)
    assert statuses(got)[-1:] == [400] or (statuses(got) == [200] and raw.startswith(b"GET /1")), got
    if statuses(got) == [400]:
        assert problem(got)["code"] == "MALFORMED_REQUEST"
        assert not [observations for observations in app.seen if observations not in {"gone", "POST /"}]
    assert "evil" not in str(got)
    corpora.count("raw bytes at the socket", 400 if statuses(got)[-1] == 400 else "closed after the request before")


@pytest.mark.parametrize("raw", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_ambiguous_bytes_are_refused_byte_by_byte(edge: tuple[Echo, int], raw: bytes) -> None:
    """How the bytes are cut into packets changes nothing."""
    got = await talk(edge[1], *[raw[at : at + 1] for at in range(min(len(raw), 300))], wait=1)
    assert statuses(got)[-1:] == [400] or (statuses(got) == [200] and raw.startswith(b"GET /1")), got


async def test_plain_requests_pass() -> None:
    """GET, a body by length, a body in chunks, HTTP/1.0, an absolute URL, a leading blank line."""
    async with listening() as (_app, port):
        for raw, body in [
            (b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", ""),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + CLOSE + b"\r\nabc", "abc"),
            (CHUNKED.replace(b"\r\n\r\n", b"\r\n" + CLOSE + b"\r\n") + b"2\r\nab\r\n1;ext=1\r\nc\r\n0\r\n\r\n", "abc"),
            (b"GET http://evil.example/ HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", ""),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n", ""),
        ]:
            for pieces in ([raw], [raw[at : at + 7] for at in range(0, len(raw), 7)]):
                got = await talk(port, *pieces)
                assert statuses(got) == [200], (raw, got)
                assert json.loads(got.partition(b"\r\n\r\n")[2])["body"] == body


async def first_packet(port: int, raw: bytes) -> bytes:
    """What the first read of a client gives it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    async with asyncio.timeout(2):
        got = await reader.read(65_536)
    writer.close()
    return got


async def test_head_and_body_leave_together() -> None:
    """One packet, so that a client is woken once."""
    async with listening() as (_app, port):
        for _ in range(5):
            head, _, body = (await first_packet(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["path"] == "/"


async def test_a_head_does_not_wait_for_a_body_that_comes_later() -> None:
    """A stream's client knows at once that it was let in."""
    async with listening() as (app, port):
        got = await first_packet(port, b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not app.release.is_set()
        assert got.startswith(b"HTTP/1.1 200")
        assert got.endswith(b"\r\n\r\n")


async def test_100_continue() -> None:
    """A client that asks first is told to go on, and is answered."""
    async with listening() as (_app, port):
        got = await talk(
            port,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n" + CLOSE + b"\r\n",
            b"abc",
            pause=0.05,
        )
        assert statuses(got) == [100, 200]


async def test_100_continue_for_too_much_is_refused_at_once() -> None:
    """The limit is told before the body is sent."""
    async with listening() as (_app, port):
        got = await talk(
            port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n", wait=0.2
        )
        assert statuses(got) == [413]


OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n",
    "several": b"Connection: keep-alive, Upgrade\r\nUpgrade: TLS/1.0, HTTP/2.0, SHTTP/1.3, IRC/6.9\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n",
    "not named in Connection": b"Upgrade: h2c\r\n",
}
BODIES = {
    "none": (b"\r\n", ""),
    "empty": (b"Content-Length: 0\r\n\r\n", ""),
    "by length": (b"Content-Length: 11\r\n\r\nhello world", "hello world"),
    "in chunks": (b"Transfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n5;x=y\r\nworld\r\n0\r\n\r\n", "hello world"),
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
async def test_an_offer_to_upgrade_is_answered_in_http11(edge: tuple[Echo, int], offer: str, body: str) -> None:
    """RFC 9110 §7.8: the request is answered as if it had offered nothing, and so is the one behind it."""
    sent, read = BODIES[body]
    method = b"GET" if body == "none" else b"POST"
    first = method + b" /1 HTTP/1.1\r\nHost: a\r\n" + OFFERS[offer] + sent
    second = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n" + CLOSE + b"\r\nab"
    for size in (1, 7, 10_000):
        raw = first + first + second
        got = await talk(edge[1], *[raw[at : at + size] for at in range(0, len(raw), size)])
        assert statuses(got) == [200, 200, 200], got
        answers = [json.loads(part.partition(b"\r\n\r\n")[2]) for part in got.split(b"HTTP/1.1 ")[1:]]
        assert [(answer["path"], answer["body"]) for answer in answers] == [("/1", read), ("/1", read), ("/2", "ab")]
        assert b"upgrade" not in got.partition(b"\r\n\r\n")[0].lower()


async def test_an_upgrade_that_is_too_large_or_closes_keeps_its_bounds(edge: tuple[Echo, int]) -> None:
    """The limits of bodies hold behind an offer, and `close` closes."""
    head = b"POST /1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    for raw in (
        head + b"Content-Length: 2001\r\n\r\n" + b"x" * 2_001,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + b"3e8\r\n" + b"x" * 1_000 + b"\r\n" + b"3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n",
    ):  # fmt: skip
        assert problem(await talk(edge[1], raw))["code"] == "BODY_TOO_LARGE"
    assert problem(await talk(edge[1], head + b"Content-Length: 9\r\n\r\nx"))["code"] == "REQUEST_TIMEOUT"
    closing = head.replace(b"Connection: Upgrade", b"Connection: Upgrade, close")
    got = await talk(edge[1], closing + b"Content-Length: 2\r\n\r\nab" + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert statuses(got) == [200]


@pytest.mark.parametrize("white", [b" ", b"  ", b"\t", b" \t "])
async def test_white_space_around_a_value_is_no_part_of_it(edge: tuple[Echo, int], white: bytes) -> None:
    """RFC 9110 §5.5, of every header: those that frame the message, and those that handlers read."""
    fields = {
        b"host": b"a",
        b"x-api-key": b"mgk_x",
        b"idempotency-key": b"one two",
        b"content-length": b"2",
        b"connection": b"close",
        b"empty": b"",
    }
    head = b"".join(name + b":" + white + value + white + b"\r\n" for name, value in fields.items())
    got = await talk(edge[1], b"POST / HTTP/1.1\r\n" + head + b"\r\nab")
    assert statuses(got) == [200], got
    heard = {name.encode(): value.encode() for name, value in json.loads(got.partition(b"\r\n\r\n")[2])["headers"]}
    assert heard == fields
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding:" + white + b"chunked" + white
    assert statuses(await talk(edge[1], chunked + b"\r\n\r\n2\r\nab\r\n0\r\n\r\n")) == [200]


CODINGS = {
    "a tab": b"Transfer-Encoding: chunked\t\r\n",
    "spaces and tabs": b"Transfer-Encoding:\t Chunked \t \t\r\n",
    "before other fields": b"Transfer-Encoding: chunked\t\r\nX-Other: a\tb\t\r\n",
    "with an upgrade": b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\t\r\n",
}


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("coding", CODINGS.values(), ids=CODINGS)
async def test_white_space_behind_a_coding(edge: Edge, coding: bytes, step: int) -> None:
    """However the packets are cut: the body is read in chunks, and each request behind it is answered once."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\n" + coding + b"\r\n"
    first = head + b"6\r\na\tb\n\r\n\r\n2\r\n\r\n\r\n0\r\n\r\n"
    second = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n1\t2"
    last = head.replace(b"Connection: ", b"Connection: close, ")
    if last == head:
        last = head.replace(b"Host: a", b"Host: a\r\nConnection: close")
    raw = first + second + first + last + b"1\r\nz\r\n0\r\n\r\n"
    answers = await talk(edge[1], *(raw[at : at + step] for at in range(0, len(raw), step)))
    assert statuses(answers) == [200] * 4
    bodies = [json.loads(part.partition(b"\r\n\r\n")[2])["body"] for part in answers.split(b"HTTP/1.1 ")[1:]]
    assert bodies == ["a\tb\n\r\n\r\n", "1\t2", "a\tb\n\r\n\r\n", "z"]


@pytest.mark.parametrize("step", [1, 10_000])
@pytest.mark.parametrize(
    "coding",
    [
        b"Transfer-Encoding: chunked\tx\r\n",
        b"Transfer-Encoding: gzip\tchunked\r\n",
        b"Transfer-Encoding: gzip,\tchunked\t\r\n",
        b"Transfer-Encoding: chunked,\tchunked\r\n",
        b"Transfer-Encoding: chunked\t\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\t\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked\t\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\t\r\n",
        b"Transfer-Encoding: identity\t\r\n",
        b"Transfer-Encoding:\t\r\n",
        b"Transfer-Encoding\t: chunked\r\n",
        b"Transfer-Encoding: \r\n\tchunked\r\n",
        b"Transfer-Encoding: chunked\t\n",
        b"Transfer-Encoding: chunked\t\rX: y\r\n",
    ],
)
async def test_a_tab_makes_no_framing_acceptable(edge: Edge, coding: bytes, step: int) -> None:
    """What is refused without the tab is refused with it, and nothing behind it is read as a request."""
    raw = b"POST / HTTP/1.1\r\nHost: a\r\n" + coding + b"\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
    answers = await talk(edge[1], *(raw[at : at + step] for at in range(0, len(raw), step)))
    assert statuses(answers) == [400]


async def test_http10_is_answered_in_http10() -> None:
    """Its version, no chunks, no interim answer, and the end of the connection is the end of the body."""
    async with listening() as (app, port):
        app.release.set()
        for raw, read in (
            (b"GET / HTTP/1.0\r\n\r\n", ""),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n", ""),
            (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab", "ab"),
            (b"POST / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab", "ab"),
            (b"GET /unbounded HTTP/1.0\r\n\r\n", ""),
        ):
            head, _, body = (await talk(port, raw)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.0 200 "), head
            assert b"connection: close" in head
            assert b"transfer-encoding" not in head
            assert json.loads(body)["body"] == read
        got = await talk(port, b"HEAD /unbounded HTTP/1.0\r\n\r\n")
        assert got.startswith(b"HTTP/1.0 200 ")
        assert got.endswith(b"\r\n\r\n")
        for refused in (
            b"POST / HTTP/1.0\r\nContent-Length: 2001\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        ):
            got = await talk(port, refused)
            assert got.startswith(b"HTTP/1.0 4"), got
            problem(got)


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Several requests in one packet are several answers, in order, one at a time."""
    async with listening() as (app, port):
        raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(4))
        got = await talk(port, raw, wait=0.5)
        assert statuses(got) == [200] * 4
        assert app.seen == [f"GET /{n}" for n in range(4)]


async def test_endless_pipelining_is_cut() -> None:
    """More waiting requests than the limit end the connection after the answer in progress, never inside it."""
    async with listening() as (_app, port):
        raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(200))
        got = await talk(port, raw, wait=1)
        assert set(statuses(got)) <= {200, 400}
        assert len(statuses(got)) < 20


async def test_garbage_behind_a_request_does_not_answer_it() -> None:
    """Bytes that are wrong while a request is being answered never become that request's answer."""
    async with listening() as (app, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.write(b"\x00\x01 nonsense\r\n\r\n")
        await asyncio.sleep(0.05)
        app.release.set()
        got = await asyncio.wait_for(reader.read(), 2)
        assert statuses(got) == [200]
        assert b'"/slow"' in got
        writer.close()


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "URL_TOO_LONG"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * 30 + b"\r\n", 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 1_500 + b"\r\n\r\n", 431, "HEADERS_TOO_LARGE"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 50_000, 431, "HEADERS_TOO_LARGE"),
        (b"\r\n" * 50_000, 431, "HEADERS_TOO_LARGE"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2001\r\n\r\n" + b"x" * 2_001, 413, "BODY_TOO_LARGE"),
        (CHUNKED + b"800\r\n" + b"x" * 2_048 + b"\r\n0\r\n\r\n", 413, "BODY_TOO_LARGE"),
        (CHUNKED + b"1;" + b"e" * 9_000 + b"\r\nx\r\n" + b"1;" + b"e" * 9_000, 400, "MALFORMED_REQUEST"),
    ],
    ids=["url", "count", "bytes", "endless header", "blank lines", "length", "chunks", "chunk extensions"],
)
async def test_limits(raw: bytes, status: int, code: str) -> None:
    """Every limit has its status and code, however the bytes arrive, and memory stays bounded by it."""
    async with listening() as (_app, port):
        for pieces in ([raw], [raw[at : at + 1_000] for at in range(0, len(raw), 1_000)]):
            got = await talk(port, *pieces)
            assert statuses(got) == [status], got[:200]
            assert problem(got)["code"] == code


async def test_a_large_upload_still_reads_its_refusal() -> None:
    """Three megabytes against the limit: the answer arrives, although the client is still sending."""
    async with listening() as (_app, port):
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000
        assert statuses(await talk(port, raw)) == [413]


@pytest.mark.parametrize(
    ("start", "drip"),
    [(b"", b"\r\n"), (b"GET / HTTP/1.1\r\n", b"X"), (b"GET /", b"a")],
    ids=["blank", "header", "url"],
)
async def test_dripping_headers_are_cut(start: bytes, drip: bytes) -> None:
    """Headers have one clock; each byte does not renew it."""
    async with listening() as (_app, port):
        loop = asyncio.get_running_loop()
        began = loop.time()
        got = await talk(port, start, *[drip] * 6, pause=0.05)
        assert statuses(got) == [408]
        assert loop.time() - began < 1.5
        assert problem(got)["code"] == "REQUEST_TIMEOUT"


async def test_dripping_bodies_are_cut() -> None:
    """The handler that waits for a body learns that its client is gone; the client is told 408."""
    async with listening() as (app, port):
        got = await talk(port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 8, pause=0.06)
        assert statuses(got) == [408]
        assert app.seen == ["POST /", "gone"]


async def test_silent_connections_are_closed() -> None:
    """A connection that never says anything is closed without an answer."""
    async with listening() as (_app, port):
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert await talk(port, b"") == b""
        assert 0.2 < loop.time() - began < 1.5


async def test_half_closed_clients_are_answered() -> None:
    """A client that closes its sending half still reads the answer; one that closes within a request gets 400."""
    async with listening() as (_app, port):
        assert statuses(await talk(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True)) == [200]
        assert statuses(await talk(port, b"GET / HTTP/1.1\r\nHo", half_close=True)) == [400]


class PollingApp:
    """Says that nobody waits who has closed the sending half, once `asked` is set."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, _send: Any) -> None:
        await self.asked.wait()
        try:
            Exchange(scope, receive, request_id="1", seconds=1.0).leave_at_eof()
        except ClientGone:
            return
        raise AssertionError("the client has left")


async def test_who_left_before_a_long_poll_waits_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Half closed before the application said that this means leaving: the connection ends, no 500, no line of an error."""
    app = PollingApp()
    async with listening(app=app) as (_, port):
        talking = asyncio.create_task(talk(port, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", half_close=True))
        await asyncio.sleep(0.2)
        app.asked.set()
        assert await talking == b""
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_readers_that_do_not_read_are_cut_off() -> None:
    """An answer that is not taken ends the connection; the server keeps nothing of it."""
    async with listening() as (_app, port):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1.0)
        sock.setblocking(False)
        got = 0
        try:
            while data := sock.recv(1_000_000):
                got += len(data)
                await asyncio.sleep(0)
        except (ConnectionError, BlockingIOError):
            pass
        assert got < 30_000_000
        sock.close()


async def test_too_many_connections_are_told() -> None:
    """Beyond the cap a connection is answered 503 with Retry-After and closed; the others are not disturbed."""
    async with listening() as (_app, port):
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        got = await talk(port, b"", wait=1)
        assert statuses(got) == [503]
        assert problem(got)["code"] == "OVERLOADED"
        assert b"retry-after: " in got
        connections[0][1].write(b"GET / HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"\r\n")
        assert statuses(await asyncio.wait_for(connections[0][0].read(), 2)) == [200]
        for _reader, writer in connections:
            writer.close()


async def test_handlers_see_no_trailers() -> None:
    """Trailers never join the headers: they could carry a credential past whoever checked them (smuggling)."""
    async with listening() as (app, port):
        await talk(port, CHUNKED + b"0\r\nX-API-Key: evil\r\n\r\n")
        assert "evil" not in str(app.seen)


async def upload_size(exchange: Exchange) -> Response:
    return json_response(200, b"%d" % len(await exchange.body()))


UPLOAD = Endpoint(
    "PUT", "/uploads/{name}", "", "none", (Reply(200, ""),), body_bytes=300_000, body_seconds=1.0, keeps_deadline=True
)
REPORT = Endpoint("POST", "/reports", "", "none", (Reply(200, ""),), keeps_deadline=True)


@asynccontextmanager
async def edge_with_an_upload() -> AsyncIterator[int]:
    """A gate whose one route takes larger and slower bodies than its default; its protocol knows the table."""
    handlers = {UPLOAD.key: upload_size, REPORT.key: upload_size}
    defaults = RouteLimits(LIMITS.body_bytes, LIMITS.body_seconds, deadline_seconds=0.2)
    router = Router.bind((UPLOAD, REPORT), handlers, defaults=defaults)
    edge = Edge(router, translate=lambda error: None, observe=lambda exchange, answer, seconds: None)
    async with listening(app=edge, router=router) as (_app, port):
        yield port


async def test_a_body_has_the_limits_of_its_route_at_the_socket() -> None:
    """An upload may be larger than a report, by length and in chunks, also in the absolute form and behind an offer."""
    large = b"x" * 300_000
    by_length = b"Content-Length: 300000\r\n\r\n" + large
    in_chunks = b"Transfer-Encoding: chunked\r\n\r\n" + (b"2710\r\n" + b"x" * 10_000 + b"\r\n") * 30 + b"0\r\n\r\n"
    offer = b"Connection: Upgrade, close\r\nUpgrade: h2c\r\n"
    async with edge_with_an_upload() as port:
        for target in (b"/uploads/a%2Fb", b"/uploads/a?x=y", b"http://gate.example/uploads/a"):
            for extra in (CLOSE, offer):
                for body in (by_length, in_chunks):
                    got = await talk(port, b"PUT " + target + b" HTTP/1.1\r\nHost: a\r\n" + extra + body)
                    assert statuses(got) == [200], got[:300]
                    assert got.endswith(b"300000")
        for target in (b"PUT /uploads/a", b"POST /reports", b"POST /nothing", b"PUT /uploads/%00"):
            size = 300_001 if target == b"PUT /uploads/a" else 2_001
            got = await talk(port, target + b" HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            assert problem(got)["code"] == "BODY_TOO_LARGE"


async def test_a_body_has_the_clock_of_its_route() -> None:
    """Dripping bytes renew no clock: the total time counts, and an upload has more of it than a report."""
    async with edge_with_an_upload() as port:
        for head, longest in ((b"PUT /uploads/a", 1.0), (b"POST /reports", 0.3)):
            started = asyncio.get_running_loop().time()
            drip = [b"x"] * int(longest / 0.04)
            got = await talk(
                port, head + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n", *drip, pause=0.04, wait=3
            )
            assert problem(got)["code"] == "REQUEST_TIMEOUT"
            assert asyncio.get_running_loop().time() - started >= longest
        dripped = await talk(
            port,
            b"PUT /uploads/a HTTP/1.1\r\nHost: a\r\n" + CLOSE + b"Content-Length: 5\r\n\r\n",
            *[b"x"] * 5,
            pause=0.12,
        )
        assert statuses(dripped) == [200]
        assert dripped.endswith(b"5")


async def _read_slowly(port: int, *, seconds: float, pause: float) -> int:
    """How much of a download arrives at a reader that takes a little, again and again, for so long."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n")
    received, end = 0, loop.time() + seconds
    try:
        while loop.time() < end:
            part = await asyncio.wait_for(loop.sock_recv(sock, 65_536), 5)
            received += len(part)
            if not part:
                break
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    finally:
        sock.close()
    return received


async def test_a_slow_reader_of_a_large_answer_keeps_it_while_it_keeps_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where a route demands a rate, a pause longer than the usual limit ends nothing; too slow a reader is cut off."""
    monkeypatch.setattr("legivellum.http.protocol._READER_SECONDS", 1.0)
    open_answers = []

    async def download(_exchange: Exchange) -> StreamingResponse:
        async def write(stream: ResponseStream) -> None:
            open_answers.append(stream)
            while not stream.client_gone:
                await stream.write(bytes(100_000))
            open_answers.remove(stream)

        return StreamingResponse(200, [], write)

    async def alive(port: int) -> bool:
        reading = asyncio.create_task(_read_slowly(port, seconds=8, pause=0.4))
        while not open_answers:
            await asyncio.sleep(0.01)
        await asyncio.sleep(3)
        lives = bool(open_answers)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        while open_answers:
            await asyncio.sleep(0.01)
        return lives

    for rate, expected in ((1_000, True), (10_000_000, False)):
        endpoint = Endpoint(
            "GET", "/download", "Bytes.", "none", (Reply(200, "Bytes."),), reader_rate=rate, keeps_deadline=True
        )
        defaults = RouteLimits(LIMITS.body_bytes, LIMITS.body_seconds, deadline_seconds=0.2)
        router = Router.bind((endpoint,), {endpoint.key: download}, defaults=defaults)
        edge = Edge(router, translate=lambda error: None, observe=lambda exchange, answer, seconds: None)
        async with listening(app=edge, router=router) as (_app, port):
            assert await alive(port) is expected
