"""Is in the store what the rows say, and what else is in it? (`depotgate verify`, `depotgate sweep`; DP-12)"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from depotgate.artifact import Blob
from depotgate.blobs import BlobMissing, Blobs, StoredBlob
from depotgate.database import DepotGateDatabase

LEFT_FOR: Final = timedelta(hours=24)
"""An upload may run for six hours, and its row comes after its bytes: what has none by now never gets one."""
_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class BlobDefect:
    """A blob that is not what its artifacts say."""

    blob: Blob
    problem: Literal["missing", "size", "digest"]


async def defects(database: DepotGateDatabase, blobs: Blobs) -> AsyncIterator[Blob | BlobDefect]:
    """Reads every blob that kept artifacts have: it, if it is right, or what is wrong.

    Raises Unavailable, StoreUnavailable.
    """
    after = ""
    while page := await database.blobs(after_key=after, limit=_PAGE):
        for blob in page:
            problem = await _problem(blobs, blob)
            # It may have been retired while it was read.
            if problem is None or not await database.known_keys([blob.key]):
                yield blob
            else:
                yield BlobDefect(blob, problem)
        after = page[-1].key


async def _problem(blobs: Blobs, blob: Blob) -> Literal["missing", "size", "digest"] | None:
    size = await blobs.size(blob.key)
    if size is None:
        return "missing"
    if size != blob.size_bytes:
        return "size"
    digest = hashlib.sha256()
    try:
        reader = await blobs.reader(blob.key, 0, blob.size_bytes)
    except BlobMissing:
        return "missing"
    try:
        async for part in reader.parts():
            await asyncio.to_thread(digest.update, part)
    finally:
        await reader.close()
    return None if digest.hexdigest() == blob.sha256 else "digest"


async def leftovers(database: DepotGateDatabase, blobs: Blobs) -> AsyncIterator[StoredBlob]:
    """What lies in the store for longer than `LEFT_FOR` and belongs to no row. Raises Unavailable, StoreUnavailable."""
    limit = datetime.now(UTC) - LEFT_FOR
    page: list[StoredBlob] = []
    async for stored in blobs.listing():
        if stored.modified_at < limit:
            page.append(stored)
        if len(page) == _PAGE:
            for blob in await _unknown(database, page):
                yield blob
            page = []
    for blob in await _unknown(database, page):
        yield blob


async def _unknown(database: DepotGateDatabase, page: list[StoredBlob]) -> list[StoredBlob]:
    known = await database.known_keys([stored.key for stored in page]) if page else set()
    return [stored for stored in page if stored.key not in known]
