"""One publisher for several tasks: the reconciler and the refresher of issuers' keys share a connection,
one at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metagate_store.publisher import Publisher
from metagate_store.rows import Change, IssuerKeyRow, IssuerRow, Published


class TakingTurns:
    """The publisher's calls, each alone."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._turn = asyncio.Lock()

    async def load(self) -> Published:
        async with self._turn:
            return await self._publisher.load()

    async def publish(self, change: Change, *, mirror: bool = False) -> int:
        async with self._turn:
            return await self._publisher.publish(change, mirror=mirror)

    async def issuers(self) -> Sequence[IssuerRow]:
        async with self._turn:
            return await self._publisher.issuers()

    async def issuer_keys(self, issuer: str) -> Sequence[IssuerKeyRow]:
        async with self._turn:
            return await self._publisher.issuer_keys(issuer)

    async def keep_issuer_keys(self, keys: Sequence[IssuerKeyRow], gone: Sequence[tuple[str, str]] = ()) -> None:
        async with self._turn:
            await self._publisher.keep_issuer_keys(keys, gone)
