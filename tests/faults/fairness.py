"""What to make of a trial on a machine that has no time for it.

What a promise says about time is only shown where the processes may run. When load or gate were kept from a processor
for more than a third of a trial, an assertion about time that failed says nothing: the row is played again once,
and then skipped with that reason. What a promise says about anything else counts always.
"""

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec

import pytest

P = ParamSpec("P")

OF_TIME = {"I4", "I5"}
MOST = 0.33
TIMES = 2

_last = {"starved": 0.0, "hard": False}


def remember(starved: float, *, hard: bool) -> None:
    """What the last trial went through; `hard`: it broke a promise that is not about time."""
    _last.update(starved=starved, hard=hard)


def fairly(test: Callable[P, Awaitable[None]]) -> Callable[P, Awaitable[None]]:
    @functools.wraps(test)
    async def played(*args: P.args, **kwargs: P.kwargs) -> None:
        for _ in range(TIMES):
            remember(0.0, hard=False)
            try:
                return await test(*args, **kwargs)
            except AssertionError:
                if _last["hard"] or _last["starved"] < MOST:
                    raise
        pytest.skip(f"the machine kept the gate from running for {_last['starved']:.0%} of the time, twice")

    return played
