"""Protection against mass deletion (D-40): when a listing misses many objects, a second listing must confirm it.

A namespace that the API server could not read, a mount that is not there yet: both look like deletions. A witnessed
deletion never comes here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from metagate_crds.objects import ObjectKey

Incarnation = tuple[ObjectKey, str]


class MassDeletionGuard:
    """Remembers which incarnations the previous listing missed, and since when."""

    def __init__(self, *, objects: int, share: float, seconds: float) -> None:
        self._objects, self._share, self._seconds = objects, share, seconds
        self._suspects: dict[Incarnation, float] = {}

    @property
    def waiting(self) -> bool:
        """Whether a second listing must confirm something."""
        return bool(self._suspects)

    def confirmed(self, missing: Iterable[Incarnation], known: Mapping[str, int], now: float) -> frozenset[Incarnation]:
        """Which of the missing are gone. `known` counts what was there before, by kind; `now` is a monotonic second."""
        missing = frozenset(missing)
        counts = Counter(key.kind for key, _ in missing)
        braked = {
            kind
            for kind, count in counts.items()
            if count >= self._objects and count > self._share * known.get(kind, 0)
        }
        suspects = {
            incarnation: self._suspects.get(incarnation, now)
            for incarnation in missing
            if incarnation[0].kind in braked or incarnation in self._suspects
        }
        waiting = {incarnation for incarnation, since in suspects.items() if now - since < self._seconds}
        self._suspects = {incarnation: suspects[incarnation] for incarnation in waiting}
        return frozenset(missing - waiting)
