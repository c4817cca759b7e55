"""An MCP server that lists its tools as it should, and answers a call in the way the tool's name says, and worse."""

import asyncio
import contextlib
import gzip
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

CHUNK = b"x" * 65_536
WELL = {"content": [{"type": "text", "text": "well"}], "resultType": "complete"}
_DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "ttlMs": 0,
    "cacheScope": "private",
    "resultType": "complete",
}


@dataclass
class HostileUpstream:
    port: int = 0
    tools: list[dict[str, Any]] = field(default_factory=list)
    calls: dict[str, int] = field(default_factory=dict)
    """How often each tool was called, counted when the whole request is there."""
    listing: str = ""
    """How `tools/list` misbehaves, where it does."""
    pages: int = 0
    cookies: list[str] = field(default_factory=list)
    open_calls: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"


def head(status: str, *headers: str, media: str = "application/json") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-type: {media}", *headers, "", ""]).encode()


def whole(body: bytes, *headers: str, status: str = "200 OK", media: str = "application/json") -> bytes:
    return head(status, f"content-length: {len(body)}", *headers, media=media) + body


def answer(request_id: Any, result: Any, *headers: str) -> bytes:
    return whole(json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode(), *headers)


def event(message: Any) -> bytes:
    return f"event: message\ndata: {json.dumps(message)}\n\n".encode()


@asynccontextmanager
async def hostile_upstream(names: Iterable[str]) -> AsyncIterator[HostileUpstream]:
    server = HostileUpstream(tools=[{"name": name, "inputSchema": {"type": "object"}} for name in names])

    connections: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(serve(reader, writer)))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await _answer(server, reader, writer):
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


async def _answer(server: HostileUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection is kept."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
    message = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
    if "cookie" in headers:
        server.cookies.append(headers["cookie"])
    request_id = message.get("id")
    match message.get("method"):
        case "server/discover":
            writer.write(answer(request_id, _DISCOVERED, "set-cookie: caller=first"))
        case "tools/list":
            return await _list(server, writer, message)
        case "tools/call":
            name = message["params"]["name"]
            server.calls[name] = server.calls.get(name, 0) + 1
            return await _call(server, writer, request_id, name)
        case None:
            writer.write(whole(b"", status="202 Accepted"))
        case _:
            writer.write(whole(b"", status="404 Not Found"))
    return True


async def _list(server: HostileUpstream, writer: asyncio.StreamWriter, message: Any) -> bool:
    page: dict[str, Any] = {"tools": server.tools, "ttlMs": 0, "cacheScope": "private", "resultType": "complete"}
    server.pages += 1
    match server.listing:
        case "endless pages":
            page["nextCursor"] = f"page-{server.pages}"
        case "large pages":
            filler = {"name": f"filler{server.pages}", "description": "x" * 700_000, "inputSchema": {"type": "object"}}
            page["tools"] = [filler]
            page["nextCursor"] = f"page-{server.pages}"
        case "refused":
            error = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32603, "message": "not today"}}
            writer.write(whole(json.dumps(error).encode()))
            return True
        case "drip":
            await _drip(writer)
            return False
        case "twice":
            page["tools"] = [*server.tools, *server.tools]
    writer.write(answer(message["id"], page))
    return True


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "transfer-encoding: chunked"))
    while True:
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _pour(writer: asyncio.StreamWriter, first: bytes, part: bytes, times: int) -> None:
    writer.write(first)
    for _ in range(times):
        writer.write(part)
        await writer.drain()


async def _call(server: HostileUpstream, writer: asyncio.StreamWriter, request_id: Any, name: str) -> bool:
    deep = b'{"jsonrpc":"2.0","id":%d,"result":{"content":' % request_id + b"[" * 100_000
    streamed = head("200 OK", "transfer-encoding: chunked", media="text/event-stream")
    match name:
        case "well" | "well-too":
            writer.write(answer(request_id, WELL))
            return True
        case "drip":
            await _drip(writer)
        case "endless-events":
            notification = event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 1000}})
            writer.write(streamed)
            while True:
                writer.write(f"{len(notification):x}\r\n".encode() + notification + b"\r\n")
                await writer.drain()
        case "endless-event":
            await _pour(writer, streamed, f"{len(CHUNK):x}\r\n".encode() + CHUNK + b"\r\n", 4_000)
        case "silent-events":
            writer.write(streamed + b"6\r\n: hm\n\n\r\n")
            await asyncio.sleep(60)
        case "ended-events":
            writer.write(streamed + b"6\r\n: hm\n\n\r\n0\r\n\r\n")
        case "html":
            writer.write(whole(b"<html>sign in</html>", media="text/html"))
        case "html-error":
            writer.write(whole(b"<html>bad gateway</html>", status="502 Bad Gateway", media="text/html"))
        case "deep":
            writer.write(whole(deep))
        case "reset":
            _reset(writer)
        case "reset-within":
            writer.write(head("200 OK", "content-length: 1000") + b'{"jsonrpc"')
            await writer.drain()
            _reset(writer)
        case "closed":
            pass
        case "large":
            await _pour(writer, head("200 OK", f"content-length: {200 * 1024 * 1024}"), CHUNK, 3_200)
        case "large-gzip":
            body = gzip.compress(b'{"x":"' + b"x" * (64 * 1024 * 1024), 1)
            writer.write(whole(body, "content-encoding: gzip"))
        case "redirect":
            writer.write(whole(b"", f"location: http://127.0.0.1:{server.port}/other", status="307 Temporary Redirect"))
        case "task":
            writer.write(answer(request_id, {"resultType": "task", "task": {"taskId": "1", "status": "working"}}))
        case "task-with-content":
            writer.write(answer(request_id, {**WELL, "resultType": "task"}))
        case "unknown-content":
            writer.write(answer(request_id, {**WELL, "content": [{"type": "hologram", "text": "x"}]}))
        case "other-id":
            writer.write(answer(request_id + 1, WELL))
        case "accepted":
            writer.write(whole(b"", status="202 Accepted"))
        case "no-json":
            writer.write(whole(b"{'jsonrpc'"))
        case "infinite":
            body = (
                b'{"jsonrpc":"2.0","id":%d,"result":{"resultType":"complete","content":[],"structuredContent":1e999}}'
            )
            writer.write(whole(body % request_id))
        case "asking-without-end":
            writer.write(streamed)
            question = event({"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}})
            for _ in range(100):
                writer.write(f"{len(question):x}\r\n".encode() + question + b"\r\n")
            await writer.drain()
            await asyncio.sleep(60)
        case "broken-once":
            if server.calls[name] == 1:
                _reset(writer)
            else:
                writer.write(answer(request_id, WELL))
                return True
    return False
