"""What is known about the writer's own work, for probes and metrics. Facts only; who asks decides what they mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic


@dataclass(frozen=True, slots=True)
class HealthFacts:
    """Ages in seconds; None where it has not happened yet."""

    revision: int
    objects: int
    not_ready: int
    passes: int
    failures: int
    consecutive_failures: int
    pass_ended_age: float | None
    success_age: float | None
    last_pass_seconds: float
    brake_held: int
    reports_waiting: int


class WriterHealth:
    """Written by the reconciler; D-52's liveness is `pass_ended_age` against three resyncs."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._ended: float | None = None
        self._succeeded: float | None = None
        self.revision = 0
        self.objects = 0
        self.not_ready = 0
        self.passes = 0
        self.failures = 0
        self.consecutive_failures = 0
        self.last_failure: type[BaseException] | None = None
        self.last_pass_seconds = 0.0
        self.brake_held = 0
        self.reports_waiting = 0

    def succeeded(self, seconds: float) -> None:
        self.passes += 1
        self.consecutive_failures = 0
        self.last_failure = None
        self.last_pass_seconds = seconds
        self._ended = self._succeeded = self._clock()

    def failed(self, error: BaseException) -> None:
        self.passes += 1
        self.failures += 1
        self.consecutive_failures += 1
        self.last_failure = type(error)
        self._ended = self._clock()

    def alive(self, bound_seconds: float) -> bool:
        """Whether a pass ended, with or without success, within the bound (or the process is younger than that)."""
        since = self._ended if self._ended is not None else self._started
        return self._clock() - since <= bound_seconds

    def facts(self) -> HealthFacts:
        now = self._clock()
        return HealthFacts(
            revision=self.revision,
            objects=self.objects,
            not_ready=self.not_ready,
            passes=self.passes,
            failures=self.failures,
            consecutive_failures=self.consecutive_failures,
            pass_ended_age=None if self._ended is None else now - self._ended,
            success_age=None if self._succeeded is None else now - self._succeeded,
            last_pass_seconds=self.last_pass_seconds,
            brake_held=self.brake_held,
            reports_waiting=self.reports_waiting,
        )
