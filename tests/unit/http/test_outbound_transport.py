"""A gate that is killed right after it accepted a connection counts as away, on the event loop that gates run on."""

import asyncio
import socket
import ssl
import struct
from collections import Counter

import httpx2
import uvloop
from tests.threaded_server import threaded_server

from legivellum.gate.gate_caller import GateAway, GateCaller
from legivellum.gate.outbound_transport import OutboundTransport

CALLS, AT_ONCE = 600, 25
RESET_AT_ONCE = struct.pack("ii", 1, 0)


def dies(client: socket.socket) -> None:
    """As the kernel ends the connections of a killed process."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_ONCE)


async def outcomes(client: httpx2.AsyncClient, url: str) -> Counter[type[Exception]]:
    """What calls raise, many of them: whether the loop has seen the end before the driver looks is a matter of luck."""
    counted: Counter[type[Exception]] = Counter()

    async def call() -> None:
        try:
            await client.post(url, content=b"x")
        except Exception as error:
            counted[type(error)] += 1

    async with client:
        for _ in range(CALLS // AT_ONCE):
            await asyncio.gather(*(call() for _ in range(AT_ONCE)))
    return counted


def test_a_connection_that_ends_at_once_is_an_outage() -> None:
    with threaded_server(dies) as url:
        client = httpx2.AsyncClient(transport=OutboundTransport(trust_env=False))
        raised = uvloop.run(outcomes(client, url))
    assert raised.total() == CALLS
    assert all(issubclass(kind, httpx2.TransportError) for kind in raised), raised


def test_a_gate_that_dies_at_once_is_away() -> None:
    """Whatever the caller of a gate meets then, it says that the gate is away."""

    async def call(url: str) -> set[str]:
        caller = GateCaller(
            {"asyncgate": url},
            seconds=5,
            user_agent="test",
            trust=ssl.create_default_context(),
            observe=lambda *_: None,
        )
        answers = set()
        for _ in range(CALLS // AT_ONCE):
            results = await asyncio.gather(
                *(caller.exchange("asyncgate", {}, "POST", "/tasks", b"{}") for _ in range(AT_ONCE)),
                return_exceptions=True,
            )
            answers |= {type(result).__name__ for result in results}
        await caller.close()
        return answers

    with threaded_server(dies) as url:
        assert uvloop.run(call(url)) == {GateAway.__name__}
