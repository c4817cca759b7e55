"""What a target may do to the gate: nothing. What the gate tells of it: one result, in time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.unit.interrogate.hostile_target import CHUNK, TargetServer, hostile_target

from interrogate.forwarding import LARGEST_ANSWER, ForwardRequest, ForwardResult, TargetClient, header_value

PAYLOAD = '{"b": 1,\n "a":"ü", "n": 1.0 }'.encode()


@pytest_asyncio.fixture
async def client() -> AsyncIterator[TargetClient]:
    made = TargetClient(user_agent="interrogate/test")
    yield made
    await made.close()


@pytest_asyncio.fixture
async def target() -> AsyncIterator[TargetServer]:
    async with hostile_target() as server:
        yield server


def to(url: str | None, seconds: float = 5.0) -> ForwardRequest:
    return ForwardRequest("worker", url, {"legivellum-admission": "01J"}, seconds)


@pytest.mark.invariant("INV-112")
async def test_the_payload_arrives_as_it_was_sent(client: TargetClient, target: TargetServer) -> None:
    """Byte for byte: no member is moved, no number written otherwise, no white space lost."""
    assert await client.deliver(to(target.url("/ok")), PAYLOAD) == ForwardResult(
        "worker", "delivered", 200, None, {"accepted": True}
    )
    [(method, path, headers, body)] = target.requests
    assert (method, path, body) == ("POST", "/ok", PAYLOAD)
    assert headers["content-type"] == "application/json"
    assert headers["legivellum-admission"] == "01J"
    assert headers["accept-encoding"] == "identity"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("/created", ForwardResult("worker", "delivered", 201)),
        ("/no-json", ForwardResult("worker", "delivered", 200, None, '{"a":1,"a":2}')),
        ("/redirect", ForwardResult("worker", "failed", 307, "REFUSED")),
        ("/error", ForwardResult("worker", "failed", 500, "REFUSED", {"sorry": 1})),
        ("/endless", ForwardResult("worker", "failed", 200, "REFUSED")),
        ("/reset", ForwardResult("worker", "failed", None, "UNREACHABLE")),
        ("/silent-end", ForwardResult("worker", "failed", None, "UNREACHABLE")),
    ],
)
async def test_what_a_target_does_is_one_result(
    client: TargetClient, target: TargetServer, path: str, result: ForwardResult
) -> None:
    """It is sent one request, and no second one after it: not to another address, not for an answer that broke off."""
    assert await client.deliver(to(target.url(path)), PAYLOAD) == result
    assert [request[1] for request in target.requests] == [path]
    # What fits into the sockets' buffers may have left the target; nothing near a gigabyte was read.
    assert target.written < LARGEST_ANSWER + 256 * len(CHUNK)


@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_one_time_bounds_all_of_it(client: TargetClient, target: TargetServer, path: str) -> None:
    """A byte now and then does not start the clock anew."""
    started = time.monotonic()
    assert await client.deliver(to(target.url(path), 0.3), PAYLOAD) == ForwardResult(
        "worker", "failed", None, "TIMEOUT"
    )
    assert time.monotonic() - started < 3


async def test_a_failed_connect_is_repeated_twice(client: TargetClient) -> None:
    """Nothing was sent then. Nobody listens at first; somebody does before the third try."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    async def listen_later() -> asyncio.Server:
        await asyncio.sleep(0.2)  # the second try comes at once, the third half a second later

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            await writer.drain()
            writer.close()

        return await asyncio.start_server(answer, "127.0.0.1", port)

    later = asyncio.create_task(listen_later())
    result = await client.deliver(to(f"http://127.0.0.1:{port}/"), b"1")
    assert result == ForwardResult("worker", "delivered", 204)
    (await later).close()


async def test_nobody_listens(client: TargetClient) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/"
        assert await client.deliver(to(url), b"1") == ForwardResult("worker", "failed", None, "UNREACHABLE")


async def test_what_may_not_be_contacted_is_not(client: TargetClient) -> None:
    assert await client.deliver(to(None), b"1") == ForwardResult("worker", "failed", None, "REFUSED")


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
async def test_a_proxy_of_the_environment_is_ignored(
    target: TargetServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A proxy would read every payload."""
    monkeypatch.setenv(variable, target.url(""))
    client = TargetClient(user_agent="interrogate/test")
    async with hostile_target() as other:
        assert (await client.deliver(to(other.url("/ok")), b"1")).state == "delivered"
        assert len(other.requests) == 1
    await client.close()
    assert target.requests == []


def test_header_values_are_ascii_and_can_be_read_back() -> None:
    assert header_value("alice") == "alice"
    assert header_value("task 100%") == "task 100%25"
    assert header_value("Ü\r\nx: y") == "%C3%9C%0D%0Ax: y"
