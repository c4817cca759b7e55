"""A target that does what targets do, and worse: one server on a free port, which behaves as the path says."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CHUNK = b"x" * 65_536


@dataclass
class TargetServer:
    """What a target was sent: method, path, headers in lower case, body."""

    port: int = 0
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    written: int = 0
    """Bytes of body that the target could hand over."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def _json(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def hostile_target() -> AsyncIterator[TargetServer]:
    server = TargetServer()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await _answer(server, reader, writer)
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()


async def _answer(server: TargetServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    server.requests.append((method, path, headers, body))
    match path:
        case "/ok":
            writer.write(_json("200 OK", b'{"accepted":true}'))
        case "/created":
            writer.write(_json("201 Created", b""))
        case "/redirect":
            writer.write(_json("307 Temporary Redirect", b"", f"location: {server.url('/ok')}"))
        case "/error":
            writer.write(_json("500 Internal Server Error", b'{"sorry":1}'))
        case "/no-json":
            writer.write(_json("200 OK", b'{"a":1,"a":2}'))
        case "/reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        case "/silent-end":
            pass
        case "/hang":
            await reader.read()  # until the gate gives up
        case "/drip":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(0.01)
        case "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
            while server.written < 1_000_000_000:
                writer.write(CHUNK)
                await writer.drain()
                server.written += len(CHUNK)
    await writer.drain()
