"""Plans whose steps are over and which nobody closed (INV-082)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import (
    CLOSE_STEP,
    PLAN_RUN,
    PLANNING,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
)


def plan_not_closed(root: RootReceipts, tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    plan_receipts = {receipt.task_id: receipt for receipt in root.receipts if _is_plan_receipt(receipt)}
    for record in root.custody.values():
        if record.opened is None or record.opened.task_type != PLAN_RUN or record.state != "open" or record.escalated:
            continue
        planned = plan_receipts.get(record.task_id)
        if planned is None:
            continue
        reason = _reason(_ends(root, planned), tenant)
        if reason is not None:
            yield ComplianceFinding(FindingCode.PLAN_NOT_CLOSED, record.task_id, reason, planned.receipt_id)


def _is_plan_receipt(receipt: ReceiptFacts) -> bool:
    return receipt.what == "obligation/complete" and receipt.task_type == PLANNING and receipt.status == "success"


def _ends(root: RootReceipts, planned: ReceiptFacts) -> Mapping[str, ReceiptFacts | None]:
    """The end of each step; None: it is open."""
    steps = planned.body.get("steps")
    records = (
        {str(step): root.custody.get(f"{planned.task_id}.{step}") for step in steps} if isinstance(steps, list) else {}
    )
    return {step: None if record is None else record.end for step, record in records.items()}


def _reason(ends: Mapping[str, ReceiptFacts | None], tenant: TenantFacts) -> str | None:
    """Why it should be closed. DeleGate writes the end before whoever asked for it completes the step `close`."""
    if ends.get(CLOSE_STEP) is not None:
        return "is open, and its step close is over"
    work = [end for step, end in ends.items() if step != CLOSE_STEP]
    times = [end.stored_at for end in work if end is not None]
    if work and len(times) == len(work) and max(times) < tenant.now - tenant.unattended:
        return f"is open, and its last step ended at {max(times):%Y-%m-%dT%H:%M:%SZ}"
    return None
