"""The load: N connections that ask again as soon as they are answered. Raw bytes on asyncio protocols under uvloop.

It parses three things of an answer (status, length, end), so that it is not the bottleneck; `bench.py` measures it
against a server that does nothing and reports its share of the processor during the real run.
"""

import asyncio
import resource
import time
from dataclasses import dataclass, field

import uvloop

LENGTH = b"content-length: "


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


class Connection(asyncio.Protocol):
    def __init__(self, request: bytes, tally: Tally, until: float, warm: float, done: asyncio.Future[None]) -> None:
        self.request = request
        self.tally = tally
        self.until = until
        self.warm = warm
        self.done = done
        self.buffer = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
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
        if now < self.until:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if time.perf_counter() < self.until:
            self.tally.broken += 1
        if not self.done.done():
            self.done.set_result(None)


async def _drive(
    host: str, port: int, requests: list[bytes], *, connections: int, seconds: float, warm: float
) -> Tally:
    loop = asyncio.get_running_loop()
    tally = Tally(seconds=seconds)
    start = time.perf_counter() + warm
    finished = []
    for at in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        request = requests[at % len(requests)]
        await loop.create_connection(
            lambda request=request, done=done: Connection(request, tally, start + seconds, start, done), host, port
        )
        finished.append(done)
    before = resource.getrusage(resource.RUSAGE_SELF)
    await asyncio.gather(*finished)
    after = resource.getrusage(resource.RUSAGE_SELF)
    tally.cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return tally


def drive(host: str, port: int, requests: list[bytes], *, connections: int, seconds: float, warm: float = 1.0) -> Tally:
    return uvloop.run(_drive(host, port, requests, connections=connections, seconds=seconds, warm=warm))


class Noop(asyncio.Protocol):
    """A server that reads to the end of a request of known size and answers the same bytes."""

    answer = b""
    size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.got = 0

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        while self.got >= self.size:
            self.got -= self.size
            self.transport.write(self.answer)


def serve_noop(port: int, size: int, answer: bytes) -> None:
    async def serve() -> None:
        Noop.size, Noop.answer = size, answer
        server = await asyncio.get_running_loop().create_server(Noop, "127.0.0.1", port)
        await server.serve_forever()

    uvloop.run(serve())
