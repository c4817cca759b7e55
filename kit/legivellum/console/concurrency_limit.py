"""How many of a console's questions the database is asked at once.

Pages read through the connections that the gate's other requests need too. A page waits for a free slot and is refused
when that takes too long: a hundred open pages cost the other requests no more than a few do.
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
        """One of the connections while the block lasts; ask one question after the other. Raises OVERLOADED (503)."""
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise refuse(Code.OVERLOADED, "Too many pages are being drawn at once; try again in a moment.") from None
        try:
            yield
        finally:
            self._free.release()
