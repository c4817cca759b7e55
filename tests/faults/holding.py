"""What the gate holds while it runs for long: read again and again, and compared between the beginning and the end.

Only what is read in calm moments counts, and what the oldest worker holds: one that was killed begins anew.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import psutil

WARM = 0.2
"""Share of a run in which caches fill and pools open: not compared."""

BYTES, FILES, CONNECTIONS = 12 << 20, 8, 2
"""How much more at the end than at the beginning is still flat: one worker's memory and files, everybody's connections."""


@dataclass(frozen=True, slots=True)
class Reading:
    """`at`: seconds into the run. `oldest`: bytes and files of the worker that was never killed. `rss`: of all workers."""

    at: float
    calm: bool
    rss: int
    oldest_rss: int
    oldest_files: int
    connections: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Medians of the first and of the last third after the warm-up."""

    what: str
    first: float
    last: float
    most: float
    allowed: float

    @property
    def flat(self) -> bool:
        return self.last - self.first <= self.allowed

    def told(self) -> dict[str, Any]:
        return {**asdict(self), "flat": self.flat}


def read(at: float, workers: Sequence[psutil.Process], connections: int, *, calm: bool) -> Reading | None:
    """What is held now; None while nobody works."""
    held: list[tuple[float, int, int]] = []
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            held.append((worker.create_time(), worker.memory_info().rss, worker.num_fds()))
    if not held:
        return None
    _, rss, files = min(held)
    return Reading(round(at, 2), calm, sum(one[1] for one in held), rss, files, connections)


def growth(readings: Sequence[Reading]) -> list[Growth]:
    """Of memory, files and connections."""
    if not readings:
        return []
    end = readings[-1].at
    warm = [one for one in readings if one.calm and one.at >= WARM * end]
    third = (1 - WARM) * end / 3
    first = [one for one in warm if one.at < WARM * end + third]
    last = [one for one in warm if one.at >= end - third]
    if not first or not last:
        return []
    return [
        Growth(
            what,
            median(getattr(one, name) for one in first),
            median(getattr(one, name) for one in last),
            max(getattr(one, name) for one in readings),
            allowed,
        )
        for what, name, allowed in (
            ("bytes of the oldest worker", "oldest_rss", BYTES),
            ("files of the oldest worker", "oldest_files", FILES),
            ("connections to the database", "connections", CONNECTIONS),
        )
    ]
