"""How long the machine did not let somebody run who could have: what a promise about time has to leave out.

Linux counts for each thread the time it was ready and waited for a processor (`/proc/…/schedstat`, second number).
A shared machine takes it away from the gate as well as from the load that measures it. Where there is no such count,
only the lag of the load's own event loop is known.
"""

import asyncio
import bisect
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

EVERY = 0.02


class Stalls:
    """Samples, while it runs, the waiting of the processes that `watched` names and the lag of this event loop."""

    def __init__(self, watched: Callable[[], Sequence[int]]) -> None:
        self._watched = watched
        self._at: list[float] = []
        self._waited: dict[int, list[float]] = {}
        self._lag: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._sample(), name="stalls")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _sample(self) -> None:
        lag = 0.0
        while True:
            began = time.monotonic()
            await asyncio.sleep(EVERY)
            now = time.monotonic()
            lag += max(0.0, now - began - EVERY - 0.002)
            self._at.append(now)
            self._lag.append(lag)
            for pid in self._watched():
                series = self._waited.setdefault(pid, [])
                waited = _waited(pid)
                series += [waited] * (len(self._at) - len(series))

    def between(self, start: float, end: float) -> float:
        """Seconds in which the load, or the worst of the watched processes, was kept from running. Monotonic times."""
        if not self._at:
            return 0.0
        first = max(0, bisect.bisect_left(self._at, start) - 1)
        last = min(len(self._at) - 1, bisect.bisect_right(self._at, end))
        worst = max(
            (
                series[min(last, len(series) - 1)] - series[min(first, len(series) - 1)]
                for series in self._waited.values()
            ),
            default=0.0,
        )
        return min(end - start, self._lag[last] - self._lag[first] + max(0.0, worst))


def _waited(pid: int) -> float:
    """Of the main thread, in seconds: it is the one that answers."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9
    return 0.0
