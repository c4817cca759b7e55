"""Blobs as objects of a bucket, by obstore: S3 and what speaks like it, Google's and Azure's. Memory, for tests.

Address, region and keys of a bucket come from the library's variables (`AWS_ENDPOINT_URL`, …) or the pod's identity.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, Self

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store, from_url

from depotgate.blobs import (
    PART_BYTES,
    READ_BYTES,
    BlobMissing,
    StoredBlob,
    StoreFull,
    StoreUnavailable,
    UnusableStore,
)

_SCHEMES: Final = ("s3://", "gs://", "az://", "memory://")
_WRITES_AT_ONCE: Final = 2
_RETRIED_FOR: Final = timedelta(seconds=10)
"""A request to the store is repeated for so long; then the deposit or the read is refused."""
_REST_SECONDS: Final = 0.3
"""A process that ends right after a stream was aborted in the library's runtime; it needs a moment (DP-08)."""
_FULL: Final = re.compile(r"QuotaExceeded|StorageFull|InsufficientStorage|EntityTooLarge|\b507\b")
"""The library has no type of its own for a store that is full: its errors carry the store's answer as text."""

_ObjectStore = S3Store | GCSStore | AzureStore | MemoryStore


class ObjectBlobs:
    def __init__(self, store: _ObjectStore) -> None:
        self._store = store
        self._has_streamed = False

    @classmethod
    def open(cls, url: str, *, sse: str = "", kms_key: str = "") -> Self:
        """Raises UnusableStore."""
        if not url.startswith(_SCHEMES):
            raise UnusableStore("a store is named as file:///directory, s3://bucket/prefix, gs://… or az://…")
        encryption = {"server_side_encryption": sse, "sse_kms_key_id": kms_key} if url.startswith("s3://") else {}
        config = {name: value for name, value in encryption.items() if value}
        try:
            if url.startswith("memory://"):
                return cls(MemoryStore())
            retry = {"max_retries": 5, "retry_timeout": _RETRIED_FOR}
            store = from_url(url, config=config or None, retry_config=retry)  # type: ignore[call-overload]
        except (BaseError, ValueError) as error:
            raise UnusableStore(f"{url}: {error}") from error
        return cls(store)

    async def put(self, key: str, content: bytes | bytearray) -> None:
        with _translated():
            await obstore.put_async(self._store, key, bytes(content), use_multipart=False)

    async def writer(self, key: str) -> ObjectWriter:
        self._has_streamed = True
        with _translated():
            return ObjectWriter(
                obstore.open_writer_async(self._store, key, buffer_size=PART_BYTES, max_concurrency=_WRITES_AT_ONCE)
            )

    async def reader(self, key: str, start: int, end: int) -> ObjectReader:
        if start == end:
            # A store refuses to read an empty range; whether there is a blob is asked all the same.
            if await self.size(key) is None:
                raise BlobMissing
            return ObjectReader(None)
        self._has_streamed = True
        with _translated():
            return ObjectReader(await obstore.get_async(self._store, key, options={"range": (start, end)}))

    async def size(self, key: str) -> int | None:
        try:
            with _translated():
                return (await obstore.head_async(self._store, key))["size"]
        except BlobMissing:
            return None

    async def remove(self, key: str) -> None:
        try:
            with _translated():
                await obstore.delete_async(self._store, key)
        except BlobMissing:
            return

    async def listing(self) -> AsyncIterator[StoredBlob]:
        with _translated():
            async for page in obstore.list(self._store):
                for meta in page:
                    yield StoredBlob(meta["path"], meta["size"], meta["last_modified"])

    async def close(self) -> None:
        if self._has_streamed:
            await asyncio.sleep(_REST_SECONDS)


class ObjectWriter:
    def __init__(self, writer: obstore.AsyncWritableFile) -> None:
        self._writer = writer

    async def write(self, part: bytes | bytearray) -> None:
        with _translated():
            await self._writer.write(bytes(part))

    async def commit(self) -> None:
        with _translated():
            await self._writer.close()

    async def abandon(self) -> None:
        # The library offers no way to abort. S3 keeps the parts, which no listing shows: the bucket's lifecycle rule
        # removes them, and `verify` looks (DP-08).
        del self._writer


class ObjectReader:
    """An answer of the store that is open. `None`: there is nothing to read."""

    def __init__(self, answer: obstore.GetResult | None) -> None:
        self._answer = answer

    async def parts(self) -> AsyncIterator[bytes]:
        if self._answer is None:
            return
        with _translated():
            async for part in self._answer.stream(min_chunk_size=READ_BYTES):
                yield bytes(part)

    async def close(self) -> None:
        self._answer = None


@contextmanager
def _translated() -> Iterator[None]:
    """The library's errors in this package's. Raises BlobMissing, StoreFull, StoreUnavailable."""
    try:
        yield
    except FileNotFoundError as error:
        raise BlobMissing from error
    except (BaseError, OSError) as error:
        text = str(error)
        raise (StoreFull if _FULL.search(text) else StoreUnavailable)(text.partition("\n")[0][:200]) from error
