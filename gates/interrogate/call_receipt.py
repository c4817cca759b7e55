"""The second receipt of a tool call: `complete` where the MCP server answered, `escalate` where it did not (GW-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from ulid import ULID

from interrogate.admission_receipt import EMITTER, ReceiptInvalid, RecordedAdmission
from interrogate.envelope import TOOL_CALL
from interrogate.tool_call import CallOutcome
from legivellum.base.timestamps import rfc3339
from legivellum.receipts.receipt import Receipt, examine

VERSION: Final = 1
_LEVELS: Final = {"success": "tool", "tool_error": "tool", "protocol_error": "protocol"}


def outcome_receipt(
    admission: RecordedAdmission, outcome: CallOutcome, *, tenant: str, escalate_to: str | None, completed_at: datetime
) -> tuple[str, str]:
    """Its id and its canonical form. `escalate_to`: who is told where no answer came; None: the caller.

    Raises ReceiptInvalid. It is caused by the admission and filed under the same task; it moves no custody.
    """
    receipt_id, lease = str(ULID()), admission.observed.lease
    receipt = examine(
        {
            "receipt_id": receipt_id,
            "kind": "admission",
            "task_id": admission.task_id,
            "task_type": TOOL_CALL,
            "principal_ai": lease.principal_ai if lease is not None else admission.requester.principal_key,
            "caused_by_receipt_id": admission.receipt_id,
            **_phase(admission, outcome, escalate_to or admission.requester.principal_key, completed_at),
        },
        tenant=tenant,
        emitter=EMITTER,
    )
    if not isinstance(receipt, Receipt):
        raise ReceiptInvalid("the outcome of a call is no receipt: " + "; ".join(map(str, receipt)))
    return receipt_id, receipt.form.decode()


def _phase(
    admission: RecordedAdmission, outcome: CallOutcome, escalate_to: str, completed_at: datetime
) -> dict[str, Any]:
    spent = {"duration_us": outcome.duration_us, "attempts": outcome.attempts}
    if outcome.state is None:
        target = "" if admission.tool is None else f" by {admission.tool.target}"
        return {
            "phase": "escalate",
            "escalation_class": "other",
            "escalation_reason": f"A call of a tool was not answered{target} ({outcome.reason})",
            "escalation_to": escalate_to,
            "body": {"v": VERSION, "reason": outcome.reason, **spent},
        }
    return {
        "phase": "complete",
        "status": "success" if outcome.state == "success" else "failure",
        "outcome_kind": "none",
        "completed_at": rfc3339(completed_at.astimezone(UTC)),
        "body": {
            "v": VERSION,
            "level": _LEVELS[outcome.state],
            "code": outcome.code,
            "result_sha256": outcome.result_sha256,
            "result_bytes": outcome.result_bytes,
            "protocol": outcome.protocol,
            **spent,
        },
    }


@dataclass(frozen=True, slots=True)
class RecordedOutcome:
    """The outcome of a call as its receipt tells it."""

    receipt_id: str
    admission_receipt_id: str
    outcome: CallOutcome


def read_outcome(receipt: Mapping[str, Any]) -> RecordedOutcome | None:
    """None for another receipt of this gate: an admission, or an escalation of a forward (IG-09).

    Raises KeyError, TypeError or ValueError for a receipt that is none of these.
    """
    body: Mapping[str, Any] = receipt["body"]
    if receipt["phase"] == "escalate" and "reason" in body:
        outcome = CallOutcome(body["duration_us"], body["attempts"], reason=body["reason"])
    elif receipt["phase"] == "complete":
        outcome = CallOutcome(
            body["duration_us"],
            body["attempts"],
            state=_state(body["level"], receipt["status"]),
            code=body["code"],
            result_sha256=body["result_sha256"],
            result_bytes=body["result_bytes"],
            protocol=body["protocol"],
        )
    else:
        return None
    return RecordedOutcome(receipt["receipt_id"], receipt["caused_by_receipt_id"], outcome)


def _state(level: str, status: str) -> Any:
    if level == "protocol":
        return "protocol_error"
    return "success" if status == "success" else "tool_error"
