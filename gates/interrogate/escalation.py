"""The receipt of a forward that failed: somebody has to look, because the target may have acted (IG-09)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ulid import ULID

from interrogate.admission_receipt import EMITTER, ReceiptInvalid
from interrogate.forwarding import ForwardResult
from legivellum.receipts.receipt import Receipt, examine


@dataclass(frozen=True, slots=True)
class ForwardedAdmission:
    """What an escalate receipt repeats of the admission that it is about."""

    tenant: str
    receipt_id: str
    task_id: str
    parent_task_id: str | None
    principal_ai: str
    task_type: str | None
    escalate_to: str

    @classmethod
    def of(cls, receipt: Mapping[str, Any], *, escalate_to: str) -> ForwardedAdmission:
        """`receipt`: the admission as it is stored."""
        return cls(
            tenant=receipt["tenant_id"],
            receipt_id=receipt["receipt_id"],
            task_id=receipt["task_id"],
            parent_task_id=receipt.get("parent_task_id"),
            principal_ai=receipt["principal_ai"],
            task_type=receipt.get("task_type"),
            escalate_to=escalate_to,
        )


def escalation_receipt(admission: ForwardedAdmission, results: Sequence[ForwardResult]) -> str:
    """Canonical. It names what became of every target; it moves no custody, because its kind has none."""
    failed = [f"{result.target}: {result.reason}" for result in results if result.state == "failed"]
    receipt = examine(
        {
            "receipt_id": str(ULID()),
            "kind": "admission",
            "phase": "escalate",
            "task_id": admission.task_id,
            "parent_task_id": admission.parent_task_id,
            "task_type": admission.task_type,
            "principal_ai": admission.principal_ai,
            "caused_by_receipt_id": admission.receipt_id,
            "escalation_class": "other",
            "escalation_reason": f"An admitted request was not delivered ({', '.join(failed)})",
            "escalation_to": admission.escalate_to,
            "body": {
                "v": 1,
                "admission": admission.receipt_id,
                "forwards": [
                    {"target": result.target, "state": result.state, "status": result.status, "reason": result.reason}
                    for result in results
                ],
            },
        },
        tenant=admission.tenant,
        emitter=EMITTER,
    )
    if not isinstance(receipt, Receipt):
        raise ReceiptInvalid("an escalation is no receipt: " + "; ".join(map(str, receipt)))
    return receipt.form.decode()
