"""How long to wait before the next attempt: longer after each failure, and never the same for two processes."""

import random
from collections.abc import Callable

_MOST_DOUBLINGS = 30


class Backoff:
    """Pauses that begin with `first` seconds, double with each failure and stay at `longest`.

    Each is shortened at random by up to `spread` of it, so that a fleet which lost the same server does not return to
    it at once. `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self, first: float, longest: float, *, spread: float = 0.5, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first = first
        self._longest = longest
        self._spread = spread
        self._jitter = jitter
        self.failures = 0

    def pause(self) -> float:
        """Counts a failure. Returns the seconds to wait."""
        self.failures += 1
        return self.after(self.failures)

    def reset(self) -> None:
        """After a success the next pause is the first again."""
        self.failures = 0

    def after(self, failures: int) -> float:
        """The seconds to wait after this many failures in a row, where somebody else counts them."""
        grown: float = self._first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS)
        return min(grown, self._longest) * (1 - self._spread * self._jitter())
