"""What sending junk costs the sender.

A wrong token can cost as much work as a good one, and nothing in it says beforehand which it is: a limit on that work
would refuse good tokens too, and a limit by address would make a fleet behind one address its own enemy. So the work
is not limited but the *senders* are slowed. Up to `rate` refusals a second are answered at once, which is more than
misconfiguration produces. Beyond that a refusal is answered after a wait of at most `longest` seconds: whoever sends
junk in a loop over n connections gets at most n / longest refusals out of a process each second, however fast it is,
and good requests never wait. Waiting costs the process a timer; connections are bounded at the edge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


class AuthFailureThrottle:
    """Awaited once before each refusal is answered. One per process."""

    def __init__(
        self,
        *,
        rate: float = 200.0,
        burst: float = 400.0,
        longest: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._gap = 1.0 / rate
        self._slack = burst / rate
        self._longest = longest
        self._clock = clock
        self._sleep = sleep
        self._due = clock() - self._slack

    async def __call__(self) -> None:
        """Return at once while refusals are rare, else when this one's turn has come or `longest` has passed."""
        now = self._clock()
        self._due = min(max(self._due, now - self._slack) + self._gap, now + self._longest)
        if self._due > now:
            await self._sleep(self._due - now)
