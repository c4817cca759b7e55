"""What DepotGate counts beside what every gate counts. No label ever carries a name somebody declared or sent."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from legivellum.gate.metrics import GateMetrics

METRICS: Final = GateMetrics("depotgate")

DEPOSITS: Final = Counter(
    "depotgate_deposits", "Deposits, by what became of them.", ("outcome",), registry=METRICS.registry
)
BYTES: Final = Counter(
    "depotgate_bytes", "Bytes of artifacts that came in and went out.", ("direction",), registry=METRICS.registry
)
CORRUPT: Final = Counter(
    "depotgate_corrupt", "Reads whose bytes were missing or not those that were stored.", registry=METRICS.registry
)
ORPHANS: Final = Counter(
    "depotgate_orphans",
    "Blobs that a failed deposit may have left without a row, for `depotgate sweep`.",
    registry=METRICS.registry,
)
UPLOADS: Final = METRICS.gauge("depotgate_uploads", "Uploads that run.", "livesum")
DOWNLOADS: Final = METRICS.gauge("depotgate_downloads", "Downloads that run.", "livesum")
