"""The event loop of `async def` handlers: one for a worker, in a thread of its own, or the one that the caller runs."""

from __future__ import annotations

import threading

from legivellum_worker.results import Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable
    from typing import Any

    from legivellum_worker.attempt import Attempt


class HandlerLoop:
    """asyncio is imported with the first coroutine: most workers need none."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def use(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run handlers on this loop, which its owner runs and closes."""
        self._loop = loop

    def result(self, awaitable: Awaitable[Any], attempt: Attempt) -> object:
        """What the awaitable gives; waits until it has really ended, also when it is cancelled."""
        import asyncio
        from concurrent.futures import Future

        loop = self._running()
        ended: Future[object] = Future()

        def start() -> None:
            task = loop.create_task(_awaited(awaitable))
            task.add_done_callback(finish)
            attempt.on_cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            if attempt.work.cancelled.is_set():
                task.cancel()

        def finish(task: asyncio.Task[object]) -> None:
            error = asyncio.CancelledError() if task.cancelled() else task.exception()
            if error is None:
                ended.set_result(task.result())
            else:
                ended.set_exception(error)

        loop.call_soon_threadsafe(start)
        return ended.result()

    def close(self) -> None:
        """End the loop if it is ours; handlers that go on are left behind."""
        if self._thread is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1)
            self._thread = self._loop = None

    def _running(self) -> asyncio.AbstractEventLoop:
        import asyncio

        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="handlers", daemon=True)
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _awaited(awaitable: Awaitable[Any]) -> object:
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt) as error:
        # asyncio would end the loop, and with it the other handlers.
        raise Failed(type(error).__name__) from error
