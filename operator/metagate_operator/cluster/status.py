"""A verdict as the status of its object. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from metagate_crds.kinds import API_VERSION, KINDS
from metagate_crds.verdict import Verdict
from metagate_operator.cluster.object_cache import CachedObject, status_digest

FIELD_MANAGER = "metagate"
MESSAGE_LIMIT = 32_768
COUNTED = frozenset({"Principal", "Profile", "Manifest"})


def status_of(verdict: Verdict, revision: int, now: datetime, before: CachedObject) -> dict[str, Any]:
    """The whole status, as it is applied: what is not in it is taken away from the object.

    A condition keeps the time of its last transition while its status stays, and the snapshot keeps its revision while
    its content stays, so that equal verdicts give equal statuses. A revision newer than the newest one is another
    database's, replaced or restored from a backup since: it says nothing any more.
    """
    moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    status: dict[str, Any] = {
        "observedGeneration": verdict.generation,
        "conditions": [
            {
                "type": condition.type,
                "status": condition.status,
                "reason": condition.reason,
                "message": _bounded(condition.message),
                "observedGeneration": verdict.generation,
                "lastTransitionTime": _since(condition.type, condition.status, before) or moment,
            }
            for condition in verdict.conditions
        ],
    }
    if verdict.served_generation is not None:
        digest, generation, known = before.snapshot
        unchanged = (digest, generation) == (verdict.digest or "", verdict.served_generation) and known
        status["snapshot"] = {
            **({"digest": verdict.digest} if verdict.digest else {}),
            "generation": verdict.served_generation,
            "revision": known if unchanged and known <= revision else revision,
        }
    if verdict.key.kind in COUNTED:
        status["uses"] = verdict.uses
    return status


def _bounded(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def _since(condition: str, status: str, before: CachedObject) -> str | None:
    known = before.since.get(condition)
    return known[2] if known is not None and known[0] == status else None


def status_differs(status: dict[str, Any], before: CachedObject) -> bool:
    """Whether the object says something else than this status, or names a revision that is not there any more."""
    named = (status.get("snapshot") or {}).get("revision", 0)
    return status_digest(status) != before.status_digest or bool(before.snapshot[2] > named)


def status_patch(verdict: Verdict, status: dict[str, Any], version: str) -> dict[str, Any]:
    """The body of the server-side apply; with its version it is refused (409) when the object has moved on."""
    metadata: dict[str, Any] = {"name": verdict.key.name, "resourceVersion": version}
    if verdict.key.namespace:
        metadata["namespace"] = verdict.key.namespace
    return {"apiVersion": API_VERSION, "kind": KINDS[verdict.key.kind].name, "metadata": metadata, "status": status}
