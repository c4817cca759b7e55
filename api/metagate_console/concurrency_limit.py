"""How many of the console's questions the database is asked at once.

The console reads through the connections that bootstraps need too. Whoever looks waits for a turn, and is told so when
that takes too long: a hundred open pages cost those who boot no more than a few do.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse


class ConcurrencyLimit:
    """`most` at once in this process; whoever waits longer than `patience` seconds is refused."""

    def __init__(self, most: int, *, patience: float) -> None:
        self._free = asyncio.Semaphore(most)
        self._patience = patience

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """While it lasts, one of them is ours; ask one question after the other. Raises OVERLOADED."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise refuse(Code.OVERLOADED, "Too many pages are being drawn at once; try again in a moment.") from None
        try:
            yield
        finally:
            self._free.release()
