"""What is counted. docs/metrics.md shows the same table.

No label ever carries a name that somebody declared.
"""

from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram

from legivellum.gate.metrics import RequestMetrics

_requests = RequestMetrics("metagate")
REGISTRY = _requests.registry
REQUESTS, LATENCY, EDGES = _requests.requests, _requests.latency, _requests.edges
AUTH_FAILURES, RATE_LIMITED = _requests.auth_failures, _requests.rate_limited
BOOTSTRAPS = Counter("metagate_bootstraps", "Bootstraps by outcome of the statement.", ("outcome",), registry=REGISTRY)
REPORTS = Counter("metagate_reports", "READY and FAILED reports by outcome.", ("status", "outcome"), registry=REGISTRY)
PACKETS_REFUSED = Counter(
    "metagate_packets_refused", "Stored packets that failed their own check (D-38): an alert.", registry=REGISTRY
)
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
    "metagate_database_up", "Whether the last poll was answered.", registry=REGISTRY, multiprocess_mode="livemin"
)
CONSOLE_STREAMS = Gauge(
    "metagate_console_streams", "Open live streams of the console.", registry=REGISTRY, multiprocess_mode="livesum"
)

CERTIFICATE_ENDS = Gauge(
    "metagate_certificate_not_after_timestamp_seconds",
    "When the certificate that is served ends; 0 without TLS.",
    registry=REGISTRY,
    multiprocess_mode="mostrecent",
)


def certificate_loaded(ends: datetime) -> None:
    CERTIFICATE_ENDS.set(ends.timestamp())
