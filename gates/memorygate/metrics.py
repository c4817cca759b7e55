"""What is counted. No label ever carries a name that somebody declared or sent."""

import collections
import contextlib
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from legivellum.http.metrics import LATENCY_BUCKETS

REGISTRY = CollectorRegistry()

REQUESTS = Counter("memorygate_http_requests", "Answers by route and status.", ("route", "status"), registry=REGISTRY)
LATENCY = Histogram(
    "memorygate_http_request_seconds",
    "Time from request to answer.",
    ("route",),
    buckets=LATENCY_BUCKETS,
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
    "memorygate_database_up", "Whether the ledger's database answers.", registry=REGISTRY, multiprocess_mode="livemin"
)
IDENTITY_AGE = Gauge(
    "memorygate_identity_age_seconds",
    "How old what is known of principals and keys is.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)


def stored(receipts: Iterable[tuple[str, str]]) -> None:
    """Count the receipts of one statement, each by kind and outcome. What is told about a receipt after its commit
    never turns it into an error (EXT-18).
    """
    with contextlib.suppress(Exception):
        for (kind, outcome), number in collections.Counter(receipts).items():
            RECEIPTS.labels(kind, outcome).inc(number)
