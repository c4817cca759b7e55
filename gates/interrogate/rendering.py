"""Decisions as they are answered: from what was recorded, so that a replay says what was said first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from interrogate.admission_receipt import RecordedAdmission
from interrogate.database import StoredDecision
from interrogate.decision import AdmissionOutcome, Decision, ReasonCode, RuleResult
from interrogate.forwards import ForwardRow, SettledForwards
from interrogate.ruleset import Ruleset
from legivellum.base.timestamps import rfc3339
from legivellum.http import strict_json
from legivellum.http.exchange import Response, json_response

NOTHING_FORWARDED: Final = SettledForwards((), None)


def decision_response(
    stored: StoredDecision, admission: RecordedAdmission, settled: SettledForwards, *, replayed: bool
) -> Response:
    """200, 403, 429 or 502 with the decision as its body."""
    headers = [(b"idempotency-replayed", b"true")] if replayed else []
    decision = admission.decision
    status = _status(decision, settled)
    if status == 429:
        headers.append((b"retry-after", b"%d" % _whole_seconds(decision.retry_after_ms)))
    return json_response(status, strict_json.encode(_rendered(stored, admission, settled)), *headers)


def _status(decision: Decision, settled: SettledForwards) -> int:
    if decision.outcome is AdmissionOutcome.DENY:
        return 429 if decision.reason_code is ReasonCode.RATE_LIMITED else 403
    return 200 if all(forward.state == "delivered" for forward in settled.forwards) else 502


def _whole_seconds(milliseconds: int | None) -> int:
    """Rounded up: a client that waits so long is not refused for the same reason again."""
    return max(1, -(-(milliseconds or 0) // 1_000))


def _rendered(stored: StoredDecision, admission: RecordedAdmission, settled: SettledForwards) -> dict[str, Any]:
    decision = admission.decision
    allowed = decision.outcome is AdmissionOutcome.ALLOW
    return {
        "outcome": decision.outcome.value,
        "receipt_id": stored.receipt_id,
        "stored_at": rfc3339(stored.stored_at),
        "task_id": admission.task_id if allowed and admission.envelope.begins else None,
        "root_task_id": decision.root_task_id,
        "parent_task_id": decision.parent_task_id,
        "capability_id": admission.envelope.capability_id,
        "depth": decision.depth,
        "budget_remaining": decision.budget_remaining,
        "policy": _policy(admission.envelope.policy_profile_id, admission.policy_hash, admission.policy_revision),
        "reason_code": decision.reason_code,
        "detail": decision.detail,
        "retry_after_ms": decision.retry_after_ms,
        "forwards": [_forward(forward) for forward in settled.forwards],
        "escalation_receipt_id": settled.escalation_receipt_id,
    }


def _policy(profile: str, policy_hash: str | None, revision: int) -> dict[str, Any] | None:
    """None where the tenant has no such profile: what was asked for is not shown as if it were there."""
    return None if policy_hash is None else {"profile": profile, "hash": policy_hash, "revision": revision}


def _forward(forward: ForwardRow) -> dict[str, Any]:
    return {
        "target": forward.target,
        "state": forward.state,
        "status": forward.status,
        "reason": forward.reason,
        "answer": forward.answer,
    }


def check_response(decision: Decision, ruleset: Ruleset | None) -> Response:
    policy = None if ruleset is None else _policy(ruleset.profile, ruleset.policy_hash, ruleset.revision)
    return json_response(
        200,
        strict_json.encode(
            {
                "outcome": decision.outcome.value,
                "reason_code": decision.reason_code,
                "detail": decision.detail,
                "policy": policy,
                "depth": decision.depth,
                "budget_remaining": decision.budget_remaining,
                "retry_after_ms": decision.retry_after_ms,
            }
        ),
    )


def rules_rendered(results: Sequence[RuleResult]) -> list[dict[str, Any]]:
    return [
        {
            "rule": result.rule,
            "reason_code": result.reason_code,
            "passed": result.passed,
            "limit": result.limit,
            "observed": result.observed,
        }
        for result in results
    ]


def explanation_response(explanation: Mapping[str, Any]) -> Response:
    return json_response(200, strict_json.encode(explanation))


def decision_summary(decision: Decision) -> dict[str, Any]:
    """A decision as `explain` compares it."""
    return {
        "outcome": decision.outcome.value,
        "reason_code": decision.reason_code,
        "detail": decision.detail,
        "rule": decision.rule,
        "depth": decision.depth,
        "budget_remaining": decision.budget_remaining,
    }
