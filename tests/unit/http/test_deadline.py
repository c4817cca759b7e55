"""The outer deadline."""

import asyncio

import pytest

from legivellum.http.deadline import Deadline, DeadlineExceeded, Overloaded


async def test_work_in_time_is_answered() -> None:
    """The result, or the error, of work that ends in time is passed on."""
    outer = Deadline(1)

    async def good() -> int:
        return 7

    async def bad() -> int:
        raise KeyError("x")

    assert await outer.run(good(), name="good") == 7
    with pytest.raises(KeyError):
        await outer.run(bad(), name="bad")


async def test_work_that_ignores_cancellation_is_left_behind() -> None:
    """The answer does not wait for a driver that will not stop; too many of those refuse new work."""
    outer = Deadline(0.02, leftovers=2)
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    loop = asyncio.get_running_loop()
    for _ in range(2):
        started = loop.time()
        with pytest.raises(DeadlineExceeded):
            await outer.run(stubborn(), name="stubborn")
        assert loop.time() - started < 0.2
    assert outer.cancelling == 2
    with pytest.raises(Overloaded):
        await outer.run(stubborn(), name="one too many")
    release.set()
    await asyncio.sleep(0.01)
    assert outer.cancelling == 0
