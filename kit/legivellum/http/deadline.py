"""The outer deadline: whatever the driver does, every request is answered in time (docs/database.md).

A driver that waits for a frozen server can swallow cancellation for seconds. So the waiting is never done in the
task that answers: work runs in a task of its own, the answer waits for it until the deadline and then goes without it.
What is left behind is cancelled, owned until it ends, and bounded.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlineExceeded(Exception):  # noqa: N818  # an outcome of waiting
    """The work had no result before the deadline."""


class Overloaded(Exception):  # noqa: N818  # an outcome of asking
    """The bounded queue is full: nothing was tried."""


class Deadline:
    """Runs work under a deadline. `leftovers` bounds how many overrun tasks may still be cancelling at once."""

    def __init__(self, seconds: float, *, leftovers: int = 256) -> None:
        self.seconds = seconds
        self._leftovers = leftovers
        self._cancelling: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """The result of `work`. Raises DeadlineExceeded, Overloaded, or what `work` raises."""
        # Tasks that do not end when cancelled pile up while the database is frozen: beyond the bound nothing is begun.
        if len(self._cancelling) >= self._leftovers:
            work.close()
            raise Overloaded
        task = asyncio.create_task(work, name=name)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise DeadlineExceeded
        return task.result()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        if task.done():
            return
        self._cancelling.add(task)
        task.add_done_callback(self._on_cancelled)
        task.cancel()

    def _on_cancelled(self, task: asyncio.Task[Any]) -> None:
        self._cancelling.discard(task)
        if not task.cancelled():
            task.exception()  # else asyncio logs that it was never retrieved

    @property
    def cancelling(self) -> int:
        return len(self._cancelling)
