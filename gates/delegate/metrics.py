"""What DeleGate counts beside what every gate counts. No label ever carries a name somebody declared or sent."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from legivellum.gate.metrics import IdentityMetrics
from legivellum.http.metrics import LATENCY_BUCKETS

METRICS: Final = IdentityMetrics("delegate")

PLANS: Final = Counter(
    "delegate_plans", "Requests for plans, by what became of them.", ("outcome",), registry=METRICS.registry
)
TASKS: Final = Counter("delegate_tasks", "Tasks that were handed to AsyncGate.", registry=METRICS.registry)
CLOSED: Final = Counter("delegate_closed", "Plans that ended, by how.", ("status",), registry=METRICS.registry)
GATE_CALLS: Final = Counter(
    "delegate_gate_calls",
    "Calls of other gates, by gate and what became of them.",
    ("gate", "outcome"),
    registry=METRICS.registry,
)
GATE_SECONDS: Final = Histogram(
    "delegate_gate_seconds",
    "How long other gates took to answer.",
    ("gate",),
    buckets=LATENCY_BUCKETS,
    registry=METRICS.registry,
)
TEMPLATE_AGE: Final = METRICS.gauge(
    "delegate_template_age_seconds", "How old what is known of plan templates is.", "livemax"
)
TENANTS: Final = METRICS.gauge("delegate_tenants", "Tenants whose credential is in the directory.", "livemax")


def count_gate_call(gate: str, outcome: str, seconds: float) -> None:
    GATE_CALLS.labels(gate, outcome).inc()
    GATE_SECONDS.labels(gate).observe(seconds)
