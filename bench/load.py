"""The load: N connections that ask again as soon as they are answered. Raw bytes on asyncio protocols under uvloop.

It parses three things of an answer (status, length, end), so that it is not the bottleneck; `bench.py` measures it
against a server that does nothing and reports its share of the processor during the real run.
"""

import asyncio
import itertools
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import uvloop

LENGTH = b"content-length: "
KEY_SLOT = b"0" * 32
"""Where a request's Idempotency-Key stands; each time that it is sent another one does."""


@dataclass(slots=True)
class Tally:
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    broken: int = 0

    @property
    def rate(self) -> float:
        return self.statuses.get(200, 0) / self.seconds

    def quantile(self, q: float) -> float:
        """Milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1_000 if ordered else float("nan")


class LoadConnection(asyncio.Protocol):
    def __init__(self, request: bytes, tally: Tally, until: float, warm: float, done: asyncio.Future[None]) -> None:
        self.request = request
        self.tally = tally
        self.until = until
        self.warm = warm
        self.done = done
        self.buffer = b""
        self.sent = 0.0
        self.address: tuple[str, int] | None = None  # where to connect anew for the next request; None: it stays
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.answered = False
        self.ask()

    def ask(self) -> None:
        if self.address is None:  # otherwise connecting is part of what is measured
            self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.buffer.find(LENGTH, 0, end)
        length = int(self.buffer[at + len(LENGTH) : self.buffer.find(b"\r", at)]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        status = int(self.buffer[9:12])
        self.buffer = b""
        now = time.perf_counter()
        if now >= self.warm:
            self.tally.statuses[status] = self.tally.statuses.get(status, 0) + 1
            self.tally.latencies.append(now - self.sent)
        self.answered = True
        if self.address is None and now < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if time.perf_counter() < self.until:
            if self.address is not None and self.answered:
                self.again()
                return
            self.tally.broken += 1
        if not self.done.done():
            self.done.set_result(None)

    def again(self) -> None:
        assert self.address is not None
        loop = asyncio.get_running_loop()
        self.sent = time.perf_counter()
        connecting = loop.create_task(loop.create_connection(lambda: self, *self.address))
        connecting.add_done_callback(self.connected)

    def connected(self, connecting: "asyncio.Task[Any]") -> None:
        if connecting.exception() is not None:
            self.tally.broken += 1
            self.done.set_result(None)


class KeyedConnection(LoadConnection):
    """A request with KEY_SLOT: as the client makes them, each boot with a key of its own."""

    def __init__(self, request: bytes, *rest: Any) -> None:
        super().__init__(request, *rest)
        self.head, _, self.tail = request.partition(KEY_SLOT)

    def ask(self) -> None:
        self.request = self.head + os.urandom(16).hex().encode() + self.tail
        super().ask()


class PacedConnection(KeyedConnection):
    """Asks at its times, whether or not the last answer was quick: a late answer makes the next one late as well, and
    both are measured from when they should have been asked for.
    """

    def __init__(self, request: bytes, first: float, every: float, *rest: Any) -> None:
        super().__init__(request, *rest)
        self.due, self.every = first, every

    def ask(self) -> None:
        loop = asyncio.get_running_loop()
        wait = self.due - time.perf_counter()
        if wait > 0:
            loop.call_at(loop.time() + wait, self.ask_now)
        else:
            self.ask_now()

    def ask_now(self) -> None:
        if self.transport.is_closing():
            return
        super().ask()
        self.sent, self.due = self.due, self.due + self.every


class QueueConnection(LoadConnection):
    """A connection that takes the next request of all, and leaves when there is none."""

    def __init__(self, requests: Iterator[bytes], *rest: Any) -> None:
        super().__init__(b"", *rest)
        self.requests = requests

    def ask(self) -> None:
        self.request = next(self.requests, b"").replace(KEY_SLOT, os.urandom(16).hex().encode(), 1)
        if self.request:
            super().ask()
        else:
            self.until = 0.0
            self.transport.close()


Sharing = Literal["own", "turns", "once"]
"""Each connection repeats its own request; or takes the next of all, for ever or a single time each."""


async def _drive(
    address: tuple[str, int],
    requests: list[bytes],
    *,
    connections: int,
    seconds: float,
    warm: float,
    sharing: Sharing,
    keep: bool,
    rate: float = 0.0,
) -> Tally:
    loop = asyncio.get_running_loop()
    tally = Tally(seconds=seconds)
    start = time.perf_counter() + warm
    finished = []
    repeated = itertools.cycle(requests) if sharing == "turns" else iter(requests)
    for at in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        rest = (tally, start + seconds, start, done)
        own = requests[at % len(requests)]
        if rate:
            made: LoadConnection = PacedConnection(
                own, time.perf_counter() + warm / 2 + at / rate, connections / rate, *rest
            )
        elif sharing != "own":
            made = QueueConnection(repeated, *rest)
        else:
            made = (KeyedConnection if KEY_SLOT in own else LoadConnection)(own, *rest)
        if not keep:
            made.address = address
        made.sent = time.perf_counter()
        await loop.create_connection(lambda made=made: made, *address)
        finished.append(done)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*finished)
    after = resource.getrusage(resource.RUSAGE_SELF)
    tally.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tally.seconds = min(seconds, time.perf_counter() - start)  # shorter when `once` ran out of requests
    return tally


def drive(
    host: str,
    port: int,
    requests: list[bytes],
    *,
    connections: int,
    seconds: float,
    warm: float = 1.0,
    sharing: Sharing = "own",
    keep: bool = True,
    rate: float = 0.0,
) -> Tally:
    """`rate`: so many requests a second over all connections (each its own, with a KEY_SLOT), rather than as many as
    are answered.

    `keep` off: a new connection for every request; it must ask for the end of the connection (`closing`)."""
    return uvloop.run(
        _drive(
            (host, port),
            requests,
            connections=connections,
            seconds=seconds,
            warm=warm,
            sharing=sharing,
            keep=keep,
            rate=rate,
        )
    )


def closing(request: bytes) -> bytes:
    """The same request, after whose answer the server ends the connection."""
    return request.replace(b"Host: bench\r\n", b"Host: bench\r\nConnection: close\r\n", 1)


@dataclass(frozen=True, slots=True)
class LoadPart:
    """One of several loads at the same time."""

    requests: list[bytes]
    connections: int
    sharing: Sharing = "own"
    rate: float = 0.0
    """A second, over all its connections; 0: as many as are answered."""


def drive_apart(port: int, *parts: LoadPart, seconds: float) -> list[Tally]:
    """Several loads at the same time, each in a process of its own."""
    with ProcessPoolExecutor(len(parts), multiprocessing.get_context("spawn")) as pool:
        # Starting a process takes longer than a warm-up: the pool is warm before anything is measured.
        list(pool.map(time.sleep, itertools.repeat(0.2, len(parts))))
        running = [
            pool.submit(
                drive,
                "127.0.0.1",
                port,
                part.requests,
                connections=part.connections,
                seconds=seconds,
                sharing=part.sharing,
                rate=part.rate,
            )
            for part in parts
        ]
        return [item.result() for item in running]


class FixedAnswerServer(asyncio.Protocol):
    """A server that reads to the end of a request of known size and answers the same bytes."""

    answer = b""
    size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.got = 0

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        while self.got >= self.size:
            self.got -= self.size
            self.transport.write(self.answer)


def serve_noop(port: int, size: int, answer: bytes) -> None:
    async def serve() -> None:
        FixedAnswerServer.size, FixedAnswerServer.answer = size, answer
        server = await asyncio.get_running_loop().create_server(FixedAnswerServer, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())
