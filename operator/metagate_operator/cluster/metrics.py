"""The writer's facts as metrics, read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from metagate_operator.reconcile.health import HealthFacts


class OperatorMetrics(Collector):
    """Registered once per process; `facts` is asked at each scrape."""

    def __init__(self, facts: Callable[[], HealthFacts], *, registry: CollectorRegistry = REGISTRY) -> None:
        self._facts = facts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        yield _counter("metagate_passes", "Passes that ended, with or without success", facts.passes)
        yield _counter("metagate_pass_failures", "Passes that failed; what was served stayed", facts.failures)
        yield _gauge("metagate_revision", "The revision that is served", facts.revision)
        yield _gauge("metagate_objects", "Declared objects", facts.objects)
        yield _gauge("metagate_objects_not_ready", "Declared objects whose Ready is not True", facts.not_ready)
        yield _gauge(
            "metagate_brake_held",
            "Objects that a listing missed (D-40)",
            facts.brake_held,
        )
        yield _gauge("metagate_pass_seconds", "How long the last pass took", facts.last_pass_seconds)
        yield _gauge("metagate_pass_success_age_seconds", "Since a pass succeeded; -1: never", _age(facts.success_age))


def _age(seconds: float | None) -> float:
    return -1.0 if seconds is None else seconds


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _counter(name: str, about: str, value: float) -> Metric:
    return CounterMetricFamily(name, about, value=value)
