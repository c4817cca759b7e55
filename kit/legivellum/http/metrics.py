"""What every gate's metrics have in common: one exposition for however many workers, and how answers are counted.

With several workers prometheus-client's multiprocess mode adds them up (`PROMETHEUS_MULTIPROC_DIR`, set by the server
before anything is imported).
"""

import os
from dataclasses import dataclass

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest, multiprocess

from legivellum.http.exchange import AnyResponse, Exchange

MULTIPROCESS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds."""
NO_CALLER = "none"
"""`from_type` of requests without a good credential."""


@dataclass(frozen=True, slots=True)
class Exposition:
    content_type: str
    body: bytes


def combined_registry(own: CollectorRegistry) -> CollectorRegistry:
    """The metrics of this process, or of all workers in multiprocess mode."""
    if MULTIPROCESS_DIRECTORY not in os.environ:  # noqa: TID251  # prometheus-client's own switch
        return own
    added_up = CollectorRegistry()
    multiprocess.MultiProcessCollector(added_up)  # type: ignore[no-untyped-call]
    return added_up


def exposition_of(own: CollectorRegistry) -> Exposition:
    return Exposition(CONTENT_TYPE_LATEST, generate_latest(combined_registry(own)))


class RouteMetrics:
    """Counts answers. Children are looked up once per (route, status): resolving labels costs more than counting."""

    def __init__(self, requests: Counter, latency: Histogram, edges: Counter) -> None:
        self._requests = requests
        self._latency = latency
        self._edges = edges
        self._counters: dict[tuple[str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._edge_counters: dict[tuple[str, str], Counter] = {}

    def __call__(self, exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        route = exchange.route or "other"
        key = (route, answer.status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self._requests.labels(route, str(answer.status))
            self._histograms.setdefault(route, self._latency.labels(route))
        counter.inc()
        self._histograms[route].observe(seconds)
        self._count_edge(exchange.caller_type or NO_CALLER, route)

    def _count_edge(self, from_type: str, route: str) -> None:
        counter = self._edge_counters.get((from_type, route))
        if counter is None:
            counter = self._edge_counters[from_type, route] = self._edges.labels(from_type, route)
        counter.inc()
