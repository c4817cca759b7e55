"""Answers to clients of HTTP/1.0: their version in the status line, and no chunks, which they cannot read. Where the
length of a body is not known when it begins, the end of the connection ends it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def in_version_10(head: bytes) -> bytes:
    return head.replace(b"HTTP/1.1 ", b"HTTP/1.0 ", 1)


class Http10Cycle(RequestResponseCycle):
    until_close = False
    """Whether the body has no announced length."""

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            if not any(name.lower() == b"content-length" for name, _ in message.get("headers", ())):
                self.until_close = True
                self.chunked_encoding = False
            transport, self.transport = self.transport, _Head10(self.transport)
            try:
                await super().send(message)
            finally:
                self.transport = transport
            return
        if self.until_close:
            # uvicorn compares with the length that was announced; here none was.
            self.expected_content_length = len(message.get("body", b""))
        await super().send(message)


class _Head10(asyncio.Transport):
    """A transport through which a head passes, in its version."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(in_version_10(bytes(data)))
