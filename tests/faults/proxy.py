"""A TCP proxy that misbehaves: between the gate and its database, or between a standby and its primary."""

import asyncio
import contextlib
import random
import socket
import struct
from typing import Self

LOGIN_REPLIES = 8
"""Replies of a connection that are never cut: its login."""


class Proxy:
    """Settings may change at any time and hold for connections that are open. Seconds, one way.

    `latency`: every chunk is that late. `blackhole`: nothing passes, nothing is closed. `drip`: towards the client one
    byte at a time, with that pause. `cut`: the chance that a reply is dropped and its connection reset, after the
    question had arrived.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.latency = 0.0
        self.blackhole = False
        self.drip = 0.0
        self.cut = 0.0
        self.cuts = 0
        self.port = 0
        self._random = random.Random(7)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def listening(self) -> None:
        """Listen again, where nobody does."""
        if self._server is None:
            await self.start()

    async def refuse(self) -> None:
        """Nobody listens any more, and what was open is reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.abort()

    def abort(self) -> None:
        """RST to both sides of everything."""
        for writer in list(self._open):
            _reset(writer)

    async def close(self) -> None:
        await self.refuse()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._open) // 2

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._joined(reader, writer)
        except (OSError, asyncio.CancelledError):
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.target)
        ends = {writer, back}
        self._open |= ends
        try:
            questions = asyncio.create_task(self._pump(reader, back, reply=False))
            replies = asyncio.create_task(self._pump(there, writer, reply=True))
            await asyncio.wait({questions, replies}, return_when=asyncio.FIRST_COMPLETED)
            for item in (questions, replies):
                item.cancel()
            await asyncio.gather(questions, replies, return_exceptions=True)
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, reply: bool) -> None:
        """Chunks keep their order and each its own delay: a line is as long as it is, whatever it carries."""
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = asyncio.create_task(self._deliver(line, writer, reply=reply))
        chunks = 0
        try:
            while data := await reader.read(65_536):
                chunks += 1
                if reply and self.cut and chunks > LOGIN_REPLIES and self._random.random() < self.cut:
                    self.cuts += 1
                    return
                line.put_nowait((asyncio.get_running_loop().time() + self.latency, data))
            line.put_nowait((0.0, b""))
            await delivering
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _deliver(
        self, line: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, reply: bool
    ) -> None:
        while True:
            due, data = await line.get()
            if not data:
                return
            while self.blackhole:
                await asyncio.sleep(0.02)
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
            if self.drip and reply:
                for at in range(len(data)):
                    writer.write(data[at : at + 1])
                    await asyncio.sleep(self.drip)
            else:
                writer.write(data)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, AttributeError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
