"""What AsyncGate counts beside what every gate counts. No label ever carries a name somebody declared or sent."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from legivellum.gate.metrics import GateMetrics

METRICS: Final = GateMetrics("asyncgate")

HANDOFFS: Final = Counter(
    "asyncgate_handoffs", "Tasks that somebody enqueued, by what became of it.", ("outcome",), registry=METRICS.registry
)
LEASES: Final = Counter(
    "asyncgate_leases",
    "What happened to leases: issued, renewed, released, expired.",
    ("event",),
    registry=METRICS.registry,
)
ENDED: Final = Counter(
    "asyncgate_ended", "Tasks that left: returned, escalated, revoked.", ("how",), registry=METRICS.registry
)
LOST: Final = Counter(
    "asyncgate_lost", "Requests under a lease that had ended, by verb.", ("verb",), registry=METRICS.registry
)
REFUSED: Final = Counter(
    "asyncgate_refused_by_ledger", "Receipts of this gate that the ledger refused: a defect.", registry=METRICS.registry
)
WAITING: Final = METRICS.gauge("asyncgate_waiting", "Tasks that could be leased now, counted up to 10,000.", "livemax")
OLDEST_SECONDS: Final = METRICS.gauge(
    "asyncgate_oldest_seconds", "Since when the oldest of them could be leased; 0: none waits.", "livemax"
)
LEASED: Final = METRICS.gauge("asyncgate_leased", "Tasks that are leased, counted up to 10,000.", "livemax")
WAITERS: Final = METRICS.gauge("asyncgate_waiters", "Long polls that wait for a task.", "livesum")
