"""One upload: bytes are received, hashed and written beside each other, and durable when `receive` returns."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from depotgate.blobs import PIECE_BYTES, Blobs, BlobWriter
from depotgate.metrics import BYTES
from depotgate.problem_codes import Code
from depotgate.transfers import BYTES_PER_SECOND, WINDOW_SECONDS, ClientPace, now
from legivellum.http.exchange import ClientGone, Exchange, too_large
from legivellum.http.problems import refuse


class Received(NamedTuple):
    """Bytes that are durable in the store."""

    sha256: str
    size_bytes: int


async def receive(exchange: Exchange, blobs: Blobs, key: str, *, limit: int, digests: frozenset[str]) -> Received:
    """Store the body under `key`. `digests`: what the client says its SHA-256 is, in hex; nothing: it does not say.

    Whatever goes wrong, nothing is under the key. Raises ClientGone, BODY_TOO_LARGE (413), REQUEST_TIMEOUT (408),
    DIGEST_MISMATCH (422), StoreUnavailable, StoreFull.
    """
    pieces = _pieces(exchange, limit)
    first = await anext(pieces, b"")
    BYTES.labels("in").inc(len(first))
    if len(first) < PIECE_BYTES:
        # The whole body, so there is nothing to do side by side: one call of the store.
        sha256 = hashlib.sha256(first).hexdigest()
        _require_digests(digests, sha256)
        await blobs.put(key, first)
        return Received(sha256, len(first))
    writer = await blobs.writer(key)
    working = _Working(writer)
    size = len(first)
    try:
        await working.take(first)
        async for piece in pieces:
            size += len(piece)
            BYTES.labels("in").inc(len(piece))
            await working.take(piece)
        sha256 = await working.finish()
        _require_digests(digests, sha256)
        await writer.commit()
    except BaseException:
        await asyncio.shield(_given_up(working, writer))
        raise
    return Received(sha256, size)


def _require_digests(announced: frozenset[str], sha256: str) -> None:
    if announced - {sha256}:
        raise refuse(Code.DIGEST_MISMATCH, "The bytes are not those of the Content-Digest.")


async def _given_up(working: _Working, writer: BlobWriter) -> None:
    with suppress(Exception):
        await working.settle()
    await writer.abandon()


class _Working:
    """Hashes and writes one piece, both in threads, while the next one arrives."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer = writer
        self._hash = hashlib.sha256()
        self._task: asyncio.Task[None] | None = None

    async def take(self, piece: bytes) -> None:
        await self.settle()
        self._task = asyncio.create_task(self._work(piece), name="hash and write a piece")

    async def settle(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await task

    async def finish(self) -> str:
        await self.settle()
        return self._hash.hexdigest()

    async def _work(self, piece: bytes) -> None:
        await asyncio.gather(asyncio.to_thread(self._hash.update, piece), self._writer.write(piece))


async def _pieces(exchange: Exchange, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces of PIECE_BYTES and a shorter last one."""
    fragments: list[bytes] = []
    size = total = 0
    pace = ClientPace()
    more = True
    while more:
        began = now()
        try:
            async with asyncio.timeout(pace.patience):
                message = await exchange.receive()
        except TimeoutError:
            detail = f"Fewer than {BYTES_PER_SECOND} bytes a second arrived for {WINDOW_SECONDS:.0f} s."
            raise refuse(Code.REQUEST_TIMEOUT, detail) from None
        if message["type"] != "http.request":
            raise ClientGone
        fragment: bytes = message.get("body", b"")
        pace.note(now() - began, len(fragment))
        more = message.get("more_body", False)
        total += len(fragment)
        if total > limit:
            raise too_large(limit)
        fragments.append(fragment)
        size += len(fragment)
        if size >= PIECE_BYTES:
            yield b"".join(fragments)
            fragments, size = [], 0
    if size:
        yield b"".join(fragments)
