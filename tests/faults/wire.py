"""HTTP/1.1 as small as it gets: one request on a connection that is kept, or a fresh one, and how it ended."""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.faults.history import BROKEN, HUNG

PATIENCE = 5.0
"""Seconds after which a request hangs. Ten times the deadline: nothing that is answered late is called hung."""


@dataclass(frozen=True, slots=True)
class WireResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body) if self.body else {}


class KeptConnections:
    """Kept connections to one of several addresses, the next one where the last one broke."""

    def __init__(self, *addresses: tuple[str, int]) -> None:
        self.addresses = list(addresses)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None = None, keep: bool = True
    ) -> WireResponse:
        """Never raises: a broken connection is status 0, no answer at all is status -1."""
        head = [f"{method} {path} HTTP/1.1", "Host: gate", *(f"{name}: {value}" for name, value in headers.items())]
        if body is not None:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        request = "\r\n".join([*head, "", ""]).encode() + (body or b"")
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._exchange(request, keep=keep)
        except TimeoutError:
            return WireResponse(HUNG, {}, b"")
        except (OSError, EOFError, asyncio.IncompleteReadError, ValueError) as error:
            self.addresses.append(self.addresses.pop(0))
            return WireResponse(BROKEN, {"error": type(error).__name__}, b"")

    async def _exchange(self, request: bytes, *, keep: bool) -> WireResponse:
        reader, writer = await self._connection()
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        except BaseException:
            writer.close()
            raise
        if keep and headers.get("connection", "").lower() != "close":
            self._idle.append((reader, writer))
        else:
            writer.close()
        return WireResponse(int(first.split(" ", 2)[1]), headers, body)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(*self.addresses[0])

    async def close(self) -> None:
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
