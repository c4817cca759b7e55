"""Waits for tasks to be completed in the ledger: one statement for everybody who waits in this process (GW-06)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol
from uuid import UUID

from legivellum.gate.snapshot_poller import LOST

TaskKey = tuple[UUID, str]
_POLL_SECONDS = 0.05


class ClosedTasks(Protocol):
    async def closed_tasks(self, tasks: Sequence[TaskKey]) -> list[TaskKey]: ...


class CompletionWatch:
    """`database` is asked as long as somebody waits."""

    def __init__(self, database: Callable[[], ClosedTasks]) -> None:
        self._database = database
        self._waiting: dict[TaskKey, asyncio.Event] = {}
        self._users: dict[TaskKey, int] = {}
        self._polling: asyncio.Task[None] | None = None

    async def completed(self, task: TaskKey, seconds: float) -> bool:
        """Whether the task is over within that time."""
        event = self._waiting.setdefault(task, asyncio.Event())
        self._users[task] = self._users.get(task, 0) + 1
        if self._polling is None or self._polling.done():
            self._polling = asyncio.create_task(self._poll(), name="watch for completed tasks")
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        finally:
            self._users[task] -= 1
            if not self._users[task]:
                del self._users[task]
                self._waiting.pop(task, None)
        return True

    async def close(self) -> None:
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)

    async def _poll(self) -> None:
        while self._waiting:
            try:
                closed = await self._database().closed_tasks(list(self._waiting))
            except LOST:
                closed = []  # the database's poller says that it is away; whoever waits is answered at their time
            for task in closed:
                if (event := self._waiting.get(task)) is not None:
                    event.set()
            await asyncio.sleep(_POLL_SECONDS)
