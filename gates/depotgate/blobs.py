"""Where the bytes of artifacts are. A blob is written once and never changed.

A key is `<tenant>/<ULID>`, chosen by DepotGate: nothing that a caller said reaches a store (DP-02).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

PART_BYTES: Final = 8 * 1024 * 1024
"""A part of a multipart upload to a bucket."""
PIECE_BYTES: Final = 1024 * 1024
"""What an upload holds in memory at a time, twice: one piece is hashed and written while the next arrives (DP-09)."""
READ_BYTES: Final = 256 * 1024
"""About the size of the parts that a reader yields."""


class StoreError(Exception):
    """The store did not do what it was asked."""


class StoreFull(StoreError):  # noqa: N818 - a state of the store
    """There is no room for these bytes. Whatever was written of them is removed."""


class StoreUnavailable(StoreError):  # noqa: N818 - a state of the store
    """The store cannot be asked now, or refuses."""


class BlobMissing(StoreError):  # noqa: N818 - a state of the store
    """There is no blob of this key."""


class UnusableStore(Exception):  # noqa: N818 - the setting names no store
    """The URL of the store, or what it names, cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """What a store lists. Also what an interrupted upload left: no row has its key."""

    key: str
    size_bytes: int
    modified_at: datetime


class BlobWriter(Protocol):
    """One blob that is being written. Exactly one of `commit` and `abandon` ends it."""

    async def write(self, part: bytes | bytearray) -> None:
        """Raises StoreFull, StoreUnavailable."""

    async def commit(self) -> None:
        """Afterwards the blob is durable: a power cut does not take it. Raises StoreFull, StoreUnavailable."""

    async def abandon(self) -> None:
        """Removes what was written. Never raises: what it cannot remove, `sweep` finds."""


class BlobReader(Protocol):
    """Bytes of one blob. Once it is open, the blob may be removed and is still read whole."""

    def parts(self) -> AsyncIterator[bytes]:
        """The bytes, once. Raises StoreUnavailable."""

    async def close(self) -> None:
        """Harmless to repeat."""


class Blobs(Protocol):
    """A store of blobs."""

    async def put(self, key: str, content: bytes | bytearray) -> None:
        """A whole blob, durable afterwards. Nothing is left of one that fails. Raises StoreFull, StoreUnavailable."""

    async def writer(self, key: str) -> BlobWriter:
        """For a blob that is larger than one part. Raises StoreFull, StoreUnavailable."""

    async def reader(self, key: str, start: int, end: int) -> BlobReader:
        """The bytes from `start` up to and without `end`. Raises BlobMissing, StoreUnavailable."""

    async def size(self, key: str) -> int | None:
        """In bytes; None: there is no such blob. Raises StoreUnavailable."""

    async def remove(self, key: str) -> None:
        """Harmless where there is none. Raises StoreUnavailable."""

    def listing(self) -> AsyncIterator[StoredBlob]:
        """Everything in the store, in no order. Raises StoreUnavailable."""

    async def close(self) -> None: ...
