"""What the ledger counts beside what every gate counts. No label ever carries a name that somebody declared or sent."""

import collections
import contextlib
from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from legivellum.gate.metrics import GateMetrics

METRICS = GateMetrics("memorygate")

RECEIPTS = Counter("memorygate_receipts", "Receipts by outcome.", ("kind", "outcome"), registry=METRICS.registry)
BATCH_ROWS = Histogram(
    "memorygate_batch_rows",
    "Receipts carried by one statement.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
    registry=METRICS.registry,
)
CONSOLE_STREAMS = METRICS.gauge("memorygate_console_streams", "Open live streams of the console.", "livesum")
STREAMED = Counter("memorygate_streamed_receipts", "Receipts sent to streams.", registry=METRICS.registry)


def stored(receipts: Iterable[tuple[str, str]]) -> None:
    """Count the receipts of one statement, each by kind and outcome. A receipt is stored already: a failure to count it
    never becomes an error of its request (EXT-18).
    """
    with contextlib.suppress(Exception):
        for (kind, outcome), number in collections.Counter(receipts).items():
            RECEIPTS.labels(kind, outcome).inc(number)
