"""Returns the memory of a large pass to the operating system.

A first publish of ten thousand objects builds their rows as text, and the allocator keeps the pages for a next time
that does not come.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

import structlog

from metagate_operator.reconcile.health import WriterHealth

log = structlog.get_logger(__name__)

LARGE_PASS_SECONDS = 0.5
CHECK_SECONDS = 2.0


class MemoryTrimmer:
    """After each large pass: collect, and return free pages where the C library knows how."""

    def __init__(self, health: WriterHealth) -> None:
        self._health = health
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    async def run(self) -> None:
        passes = 0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self._health.passes != passes and self._health.last_pass_seconds > LARGE_PASS_SECONDS:
                gc.collect()
                if self._trim is not None:
                    await asyncio.to_thread(self._trim, 0)
            passes = self._health.passes
