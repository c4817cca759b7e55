"""A decision of InterroGate's as a row of a page: its reason, and the rule with what it compared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from memorygate.console_queries import DecisionReceipt

ALLOW: Final = "ALLOW"
_LIMIT: Final = re.compile(r"(?:at most|it grants|no depth above) (\d+)")
_OCCURRED: Final = re.compile(r"occurs (\d+) times")
_OBSERVED: Final[Mapping[str, tuple[str, str]]] = {
    "BUDGET_EXHAUSTED": ("derived", "budget"),
    "DEPTH_EXCEEDED": ("derived", "depth"),
    "DESCENDANTS_EXCEEDED": ("observed", "descendants"),
    "REPEATS_EXCEEDED": ("observed", "repeats"),
}
"""Where in the receipt's body the number is that a reason compared with its limit."""


class AdmissionRow(NamedTuple):
    """`reason` is ALLOW where the request was admitted. `limit` and `observed` are None where nothing was counted."""

    receipt_id: str
    stored_at: datetime
    task_id: str
    root_task_id: str
    asked_by: str
    reason: str
    rule: str | None
    limit: str | None
    observed: str | None
    detail: str
    profile: str
    capability: str | None


def admission_row(admission: DecisionReceipt) -> AdmissionRow:
    receipt = json.loads(admission.body)
    body = _object(receipt.get("body"))
    reason = str(body.get("reason_code") or ALLOW)
    detail = _text(body.get("detail")) or ""
    return AdmissionRow(
        receipt_id=admission.receipt_id,
        stored_at=admission.stored_at,
        task_id=str(receipt["task_id"]),
        root_task_id=admission.root_task_id,
        asked_by=str(_object(body.get("caller")).get("principal_key") or receipt["principal_ai"]),
        reason=reason,
        rule=_text(body.get("rule")),
        limit=_limit(reason, detail),
        observed=_observed(reason, detail, body),
        detail=detail if reason != ALLOW else _place(body),
        profile=f"{_text(body.get('policy_profile_id')) or '–'} / {_text(body.get('surface_id')) or '–'}",
        capability=_text(body.get("capability_id")),
    )


def _limit(reason: str, detail: str) -> str | None:
    """The receipt keeps the number that a rule allowed in its sentence only."""
    if reason == "BUDGET_EXHAUSTED":
        return "1"
    match = _LIMIT.search(detail)
    return match[1] if match else None


def _observed(reason: str, detail: str, body: Mapping[str, Any]) -> str | None:
    if reason in _OBSERVED:
        part, name = _OBSERVED[reason]
        return _text(_object(body.get(part)).get(name))
    match = _OCCURRED.search(detail)
    return match[1] if match else None


def _place(body: Mapping[str, Any]) -> str:
    """What an admitted request was found to be in its tree."""
    derived, observed = _object(body.get("derived")), _object(body.get("observed"))
    numbers = (
        ("depth", derived.get("depth")),
        ("descendants", observed.get("descendants")),
        ("repeats", observed.get("repeats")),
        ("budget left", derived.get("budget_remaining")),
    )
    return ", ".join(f"{name} {number}" for name, number in numbers if number is not None)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
