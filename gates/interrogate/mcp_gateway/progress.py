"""Progress of a tool on its way to the caller: at most ten times a second, never in the way of the answer (GW-11)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

ProgressSink = Callable[[float, float | None, str | None], Awaitable[None]]
"""Is given `progress`, `total` and `message` of the upstream's notifications."""

_INTERVAL_SECONDS: Final = 0.1
_MESSAGE_LENGTH: Final = 256
_SINK_SECONDS: Final = 1.0


class ProgressRelay:
    """Of one call. A caller that no longer takes it is not told any more; the call goes on."""

    def __init__(self, sink: ProgressSink, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink: ProgressSink | None = sink
        self._clock = clock
        self._next = 0.0

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        now = self._clock()
        if self._sink is None or now < self._next:
            return
        self._next = now + _INTERVAL_SECONDS
        try:
            async with asyncio.timeout(_SINK_SECONDS):
                await self._sink(progress, total, None if message is None else message[:_MESSAGE_LENGTH])
        except Exception:  # noqa: BLE001 - whatever keeps a caller from reading is no reason to lose the outcome
            self._sink = None
