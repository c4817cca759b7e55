"""What CogniGate counts beside what every gate counts. No label ever carries a name somebody declared or sent."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter

from legivellum.gate.metrics import ServedMetrics

METRICS: Final = ServedMetrics("cognigate")
OUTCOMES: Final = ("success", "failure", "release", "lost")
KINDS: Final = ("prompt", "cached", "completion")
COUNTED: Final = ("running", *(f"jobs_{o}" for o in OUTCOMES), "model_calls", *(f"{kind}_tokens" for kind in KINDS))
"""What `GET /v1/interview` says."""

JOBS: Final = Counter("cognigate_jobs", "Jobs, by how they ended here.", ("outcome",), registry=METRICS.registry)
MODEL_CALLS: Final = Counter(
    "cognigate_model_calls", "Questions to models, by what came of them.", ("outcome",), registry=METRICS.registry
)
TOKENS: Final = Counter("cognigate_tokens", "Tokens as they were counted.", ("kind",), registry=METRICS.registry)
RUNNING: Final = METRICS.gauge("cognigate_running", "Jobs that run.", "livesum")
