"""Kubernetes events: one when an object's readiness changes, never one per pass."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from metagate_crds.kinds import API_VERSION
from metagate_crds.verdict import Condition, Verdict
from metagate_operator.cluster.object_cache import CachedObject

REPORTER = "metagate.legivellum.io/operator"
NOTE_LIMIT = 1024


class EventBudget:
    """A token bucket: after a cold start of ten thousand objects the API server has better things to do than to store
    events.
    """

    def __init__(self, clock: Callable[[], float], *, burst: int = 100, per_second: float = 10.0) -> None:
        self._clock = clock
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at = clock()

    def take(self) -> bool:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def ready_transition(verdict: Verdict, before: CachedObject) -> Condition | None:
    """The Ready condition, when it says something else than the object did: another status, or another
    reason for it.
    """
    ready = verdict.condition("Ready")
    if ready is None:
        return None
    known = before.since.get("Ready")
    return ready if known is None or known[:2] != (ready.status, ready.reason) else None


def event_body(verdict: Verdict, ready: Condition, now: datetime, instance: str) -> tuple[str, dict[str, Any]]:
    """The namespace and body of the event; those about cluster-scoped objects live in `default`."""
    namespace = verdict.key.namespace or "default"
    regarding = {
        "apiVersion": API_VERSION,
        "kind": verdict.key.kind,
        "name": verdict.key.name,
        "uid": verdict.uid,
        **({"namespace": verdict.key.namespace} if verdict.key.namespace else {}),
    }
    return namespace, {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{verdict.key.name[:200]}.{secrets.token_hex(8)}", "namespace": namespace},
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": REPORTER,
        "reportingInstance": instance,
        "action": "Publish",
        "type": "Normal" if ready.status == "True" else "Warning",
        "reason": ready.reason,
        "note": _bounded(ready.message),
        "regarding": regarding,
    }


def _bounded(text: str) -> str:
    cut = text.encode()[: NOTE_LIMIT - 3]
    return text if len(text.encode()) <= NOTE_LIMIT else cut.decode(errors="ignore") + "…"
