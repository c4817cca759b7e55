"""What is counted. No label ever carries a name that somebody declared or sent."""

import collections
import contextlib
import os
from collections.abc import Iterable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from legivellum_http.exchange import Answer, Exchange

REGISTRY = CollectorRegistry()

REQUESTS = Counter("memorygate_http_requests", "Answers by route and status.", ("route", "status"), registry=REGISTRY)
LATENCY = Histogram(
    "memorygate_http_request_seconds",
    "Time from request to answer.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    registry=REGISTRY,
)
RECEIPTS = Counter("memorygate_receipts", "Receipts by outcome.", ("kind", "outcome"), registry=REGISTRY)
BATCH_ROWS = Histogram(
    "memorygate_batch_rows",
    "Receipts carried by one statement.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=REGISTRY,
)
AUTH_FAILURES = Counter("memorygate_auth_failures", "Refused credentials by reason.", ("reason",), registry=REGISTRY)
RATE_LIMITED = Counter("memorygate_rate_limited", "Requests over a principal's rate.", registry=REGISTRY)
STREAMS = Gauge("memorygate_streams", "Open streams.", registry=REGISTRY, multiprocess_mode="livesum")
STREAMED = Counter("memorygate_streamed_receipts", "Receipts sent to streams.", registry=REGISTRY)
DATABASE_UP = Gauge(
    "memorygate_database_up", "Whether the ledger's database answers.", registry=REGISTRY, multiprocess_mode="min"
)
IDENTITY_AGE = Gauge(
    "memorygate_identity_age_seconds",
    "How old what is known of principals and keys is.",
    registry=REGISTRY,
    multiprocess_mode="max",
)


def stored(receipts: Iterable[tuple[str, str]]) -> None:
    """Count the receipts of one statement, each by kind and outcome. What is told about a receipt after its commit
    never turns it into an error (EXT-18).
    """
    with contextlib.suppress(Exception):
        for (kind, outcome), number in collections.Counter(receipts).items():
            RECEIPTS.labels(kind, outcome).inc(number)


def exposition() -> tuple[str, bytes]:
    """Content type and text, of this process or of all workers in multiprocess mode."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # noqa: TID251 - prometheus-client's own switch
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_LATEST, generate_latest(registry)


class RouteMetrics:
    """Counts answers. Children are looked up once per (route, status): resolving labels costs more than counting."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def __call__(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        route = exchange.scope.get("route_path", "other")
        key = (route, answer.status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = REQUESTS.labels(route, str(answer.status))
            self._histograms.setdefault(route, LATENCY.labels(route))
        counter.inc()
        self._histograms[route].observe(seconds)
