"""Tasks that end together."""

import asyncio
from contextlib import suppress

import pytest

from legivellum.base.supervision import run_until_first_exit


class SupervisedWork:
    """Waits until it is cancelled, and says so."""

    def __init__(self) -> None:
        self.name = ""
        self.cancelled = False

    async def __call__(self) -> None:
        self.name = asyncio.current_task().get_name()  # type: ignore[union-attr]
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled = True


async def returning() -> None:
    await asyncio.sleep(0)


async def failing() -> None:
    await asyncio.sleep(0)
    raise LookupError("reason")


async def test_one_that_ends_ends_the_others() -> None:
    """The caller learns which it was, and nothing is left running."""
    first, second = SupervisedWork(), SupervisedWork()
    assert await run_until_first_exit(first=first, short=returning, second=second) == "short"
    assert (first.name, first.cancelled, second.cancelled) == ("first", True, True)


async def test_one_that_fails_raises_its_own_error() -> None:
    """No group of errors; the first by the order given when several failed at once."""
    work = SupervisedWork()

    async def failing_too() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(LookupError, match="reason"):
        await run_until_first_exit(work=work, one=failing, other=failing_too)
    assert work.cancelled


async def test_whoever_cancels_it_cancels_all() -> None:
    """And waits until they have ended."""
    work = SupervisedWork()
    task = asyncio.create_task(run_until_first_exit(work=work))
    while not work.name:
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert work.cancelled
