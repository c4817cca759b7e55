"""A token bucket per principal, in this process (EXT-07). Never per address: a fleet restarts from one."""

import math
import time
from collections.abc import Callable, Hashable


class TokenBuckets:
    """`rate` tokens a second refill a bucket of `burst`. With N processes a principal may get N times as much.

    At most `principals` buckets are kept; beyond that the full ones are dropped (a new principal gets a full bucket
    anyway), and if none is full, all are: when in doubt a request is served.
    """

    def __init__(
        self, rate: float, burst: float, *, principals: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._principals = principals
        self._clock = clock
        self._buckets: dict[Hashable, tuple[float, float]] = {}

    def take(self, principal: Hashable, amount: int = 1, *, taken: int = 0) -> int:
        """0 when so many tokens were taken, else the whole seconds after which there will be as many.

        `taken`: tokens that the same request has taken already. Together they cost at most a full bucket: a request
        that needs more could otherwise never be served.
        """
        if self._rate <= 0:
            return 0
        cost = min(float(amount), self._burst - taken)
        now = self._clock()
        tokens, since = self._buckets.get(principal, (self._burst, now))
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        if tokens < cost:
            self._buckets[principal] = (tokens, now)
            return max(1, math.ceil((cost - tokens) / self._rate))
        if len(self._buckets) >= self._principals:
            self._drop_full(now)
        self._buckets[principal] = (tokens - cost, now)
        return 0

    def _drop_full(self, now: float) -> None:
        self._buckets = {
            principal: (tokens, since)
            for principal, (tokens, since) in self._buckets.items()
            if tokens + (now - since) * self._rate < self._burst
        }
        if len(self._buckets) >= self._principals:
            self._buckets.clear()
