"""What the gate holds while it runs for long: read again and again, and compared between the thirds of the run.

Only what is read in calm moments counts, and what the oldest worker holds: one that was killed begins anew. Of each third
the least that was held: whoever has just been there still has open connections. A leak raises that floor again and again;
the largest crowd so far raises it once, because a heap that has grown is not given back.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil

WARM = 0.2
"""Share of a run in which caches fill and pools open: not compared."""

ALLOWED = (
    ("bytes of the oldest worker", "oldest_rss", 6 << 20, 36 << 20),
    ("files of the oldest worker", "oldest_files", 4, 8),
    ("connections to the database", "connections", 1, 6),
)
"""By how much a third may begin above the one before it, and by how much if the other one does not."""


@dataclass(frozen=True, slots=True)
class ResourceReading:
    """`at`: seconds into the run. `oldest`: bytes and files of the worker that was never killed; connections that are
    established are not its files, because whoever lost the other worker comes to this one. `rss`: of all workers.
    """

    at: float
    calm: bool
    rss: int
    oldest_rss: int
    oldest_files: int
    connections: int


@dataclass(frozen=True, slots=True)
class ResourceGrowth:
    """The floors of the thirds after the warm-up, and the most of all."""

    what: str
    first: float
    second: float
    last: float
    most: float
    allowed: float
    once: float

    @property
    def flat(self) -> bool:
        steps = (self.second - self.first, self.last - self.second)
        return min(steps) <= self.allowed and max(steps) <= self.once

    def as_row(self) -> dict[str, Any]:
        return {**asdict(self), "flat": self.flat}


def read(at: float, workers: Sequence[psutil.Process], connections: int, *, calm: bool) -> ResourceReading | None:
    """What is held now; None while nobody works."""
    held: list[tuple[float, int, int]] = []
    for worker in workers:
        with contextlib.suppress(psutil.Error):
            connected = sum(
                connection.status == psutil.CONN_ESTABLISHED for connection in worker.net_connections("tcp")
            )
            held.append((worker.create_time(), worker.memory_info().rss, worker.num_fds() - connected))
    if not held:
        return None
    _, rss, files = min(held)
    return ResourceReading(round(at, 2), calm, sum(item[1] for item in held), rss, files, connections)


def growth(readings: Sequence[ResourceReading]) -> list[ResourceGrowth]:
    """Of memory, files and connections."""
    if not readings:
        return []
    end = readings[-1].at
    warm = [reading for reading in readings if reading.calm and reading.at >= WARM * end]
    third = (1 - WARM) * end / 3
    thirds: list[list[ResourceReading]] = [[], [], []]
    for item in warm:
        thirds[min(2, int((item.at - WARM * end) / third))].append(item)
    if not all(thirds):
        return []
    return [
        ResourceGrowth(
            what,
            *(min(getattr(entry, name) for entry in item) for item in thirds),
            most=max(getattr(reading, name) for reading in readings),
            allowed=allowed,
            once=once,
        )
        for what, name, allowed, once in ALLOWED
    ]
