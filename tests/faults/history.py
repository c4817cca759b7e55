"""What happened in a run: every call with its operation, start, end, key and answer, and what was stored in the end.

One format for all rows. A history file is JSON lines, one call each, so that a failed run can be looked at afterwards.
Times are seconds of the load's monotonic clock since the run began; moments of the database are epoch seconds.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Operation = Literal[
    "bootstrap", "ready", "failed", "list", "stranger", "evaluate", "check", "enqueue", "lease", "complete", "escalate", "depth",
    "deposit", "read", "manifests",
]  # fmt: skip

HUNG, BROKEN = -1, 0
"""Statuses that are none: no answer at all, the connection was refused or broke."""


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One request and its answer.

    `client`: who asks, `tenant/principal`. `key`: the idempotency key of a bootstrap, the startup of a report.
    `stall`: seconds within it in which the machine let the load or the gate not run although they could have.
    `settling`: asked after the run, to learn what became of calls that nobody answered.
    """

    operation: Operation
    client: str
    key: str
    start: float
    end: float
    status: int
    answer: Mapping[str, Any] = field(default_factory=dict)
    stall: float = 0.0
    settling: bool = False

    @property
    def acked(self) -> bool:
        """Served, or decided: a denial is a decision that is stored."""
        return self.status in {200, 201, 304} or "outcome" in self.answer

    @property
    def seconds(self) -> float:
        """Time to the answer, without what the machine took away."""
        return max(0.0, self.end - self.start - self.stall)

    @property
    def tenant(self) -> str:
        return self.client.partition("/")[0]


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A stored startup session. The component is made for one bootstrap alone, so it stands for its key."""

    startup_id: str
    client: str
    component: str
    digest: str
    status: str
    deadline_at: float
    acknowledged_at: float | None
    late: bool | None


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gate held at a moment: its processes' resident bytes, connections at the database, open files."""

    at: float
    rss: int
    connections: int
    files: int


@dataclass(frozen=True, slots=True)
class RequestHistory:
    """A run. `fault`: when it began and ended. `output`: texts that must hold no secret, by where they were found."""

    calls: Sequence[RecordedCall]
    stored: Sequence[StoredSession] = ()
    fault: tuple[float, float] = (0.0, 0.0)
    samples: Sequence[Sample] = ()
    output: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps({"fault": self.fault} | asdict(call)) + "\n" for call in self.calls)


def percentile(values: Iterable[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
