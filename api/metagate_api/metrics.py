"""What is counted. docs/metrics.md shows the same table.

With several workers prometheus-client's multiprocess mode adds them up (`PROMETHEUS_MULTIPROC_DIR`, set by the server
before anything is imported). No label ever carries a name that somebody declared.
"""

import os
from dataclasses import dataclass
from datetime import datetime

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
from legivellum_http.serving import MULTIPROCESS_DIRECTORY

REGISTRY = CollectorRegistry()

REQUESTS = Counter("metagate_http_requests", "Answers by route and status.", ("route", "status"), registry=REGISTRY)
LATENCY = Histogram(
    "metagate_http_request_seconds",
    "Time from request to answer.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
    registry=REGISTRY,
)
BOOTSTRAPS = Counter("metagate_bootstraps", "Bootstraps by outcome of the statement.", ("outcome",), registry=REGISTRY)
REPORTS = Counter("metagate_reports", "READY and FAILED reports by outcome.", ("status", "outcome"), registry=REGISTRY)
AUTH_FAILURES = Counter("metagate_auth_failures", "Refused credentials by reason.", ("reason",), registry=REGISTRY)
PACKETS_REFUSED = Counter(
    "metagate_packets_refused", "Stored packets that failed their own check (D-38): an alert.", registry=REGISTRY
)
RATE_LIMITED = Counter("metagate_rate_limited", "Requests over a principal's rate.", registry=REGISTRY)
BATCH_ROWS = Histogram(
    "metagate_batch_rows",
    "Questions carried by one statement.",
    ("statement",),
    buckets=(1, 2, 4, 8, 16, 32, 64),
    registry=REGISTRY,
)
REVISION = Gauge("metagate_snapshot_revision", "Revision last seen.", registry=REGISTRY, multiprocess_mode="mostrecent")
COMPILED_AT = Gauge(
    "metagate_snapshot_compiled_timestamp_seconds",
    "When that revision was compiled.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)
DATABASE_UP = Gauge(
    "metagate_database_up", "Whether the last poll was answered.", registry=REGISTRY, multiprocess_mode="min"
)

CERTIFICATE_ENDS = Gauge(
    "metagate_certificate_not_after_timestamp_seconds",
    "When the certificate that is served ends; 0 without TLS.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)


def certificate_loaded(ends: datetime) -> None:
    CERTIFICATE_ENDS.set(ends.timestamp())


@dataclass(frozen=True, slots=True)
class Exposition:
    content_type: str
    body: bytes


def registry() -> CollectorRegistry:
    """The metrics of this process, or of all workers in multiprocess mode."""
    if MULTIPROCESS_DIRECTORY not in os.environ:  # noqa: TID251  # prometheus-client's own switch
        return REGISTRY
    added_up = CollectorRegistry()
    multiprocess.MultiProcessCollector(added_up)  # type: ignore[no-untyped-call]
    return added_up


def exposition() -> Exposition:
    return Exposition(CONTENT_TYPE_LATEST, generate_latest(registry()))


class RouteMetrics:
    """Counts answers. Children are looked up once per (route, status): resolving labels costs more than counting."""

    def __init__(self, routes: frozenset[str]) -> None:
        self._routes = routes
        self._counters: dict[tuple[str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def __call__(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        route = exchange.path if exchange.path in self._routes else exchange.scope.get("route_path", "other")
        key = (route, answer.status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = REQUESTS.labels(route, str(answer.status))
            self._histograms.setdefault(route, LATENCY.labels(route))
        counter.inc()
        self._histograms[route].observe(seconds)
