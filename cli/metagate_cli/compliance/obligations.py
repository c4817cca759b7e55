"""Who opened obligations, whether tasks were accepted before they were worked on, and what nobody attends to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from legivellum.receipts.rights import OPENED_BY_DELEGATES, PLAN
from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import (
    ASYNCGATE,
    PLAN_RUN,
    CustodyRecord,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
)

_MINTERS = frozenset({"principal", "delegate"})


def opened_by_others(root: RootReceipts, tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """INV-122: only principals and delegates open obligations, a principal only its own."""
    for record in root.custody.values():
        opened = record.opened
        if opened is None:
            continue
        reason = _wrong_opener(opened, tenant)
        if reason is not None:
            yield ComplianceFinding(FindingCode.OPENED_BY_OTHERS, record.task_id, reason, opened.receipt_id)


def _wrong_opener(opened: ReceiptFacts, tenant: TenantFacts) -> str | None:
    if opened.by_gate:
        return f"was opened by the gate {opened.emitter}"
    opener_type = tenant.types.get(opened.emitter)
    if opener_type is None:
        return None
    if opener_type not in _MINTERS:
        return f"was opened by {opened.emitter}, a {opener_type}"
    if opener_type == "principal" and opened.principal_ai != opened.emitter:
        return f"was opened by {opened.emitter} on behalf of {opened.principal_ai}"
    if opener_type != "delegate" and opened.task_type in {PLAN, *OPENED_BY_DELEGATES}:
        return f"is a plan and was opened by {opened.emitter}, a {opener_type}"
    return None


def ended_twice(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """INV-120: an obligation has one end."""
    for receipt in root.receipts:
        if receipt.what != "obligation/complete":
            continue
        end = root.custody[receipt.obligation_id].end
        if end is not None and end.receipt_id != receipt.receipt_id:
            detail = f"{receipt.obligation_id} ended already as {end.status}"
            yield ComplianceFinding(FindingCode.ENDED_TWICE, receipt.task_id, detail, receipt.receipt_id)


def not_accepted(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """INV-121: whoever takes responsibility says so first: the minter, AsyncGate, its queue, and the admission."""
    for task_id, receipts in root.by_task.items():
        missing = _missing(receipts) or _not_admitted(root, task_id)
        if missing is not None:
            receipt, reason = missing
            yield ComplianceFinding(FindingCode.TASK_NOT_ACCEPTED, task_id, reason, receipt.receipt_id)


def _missing(receipts: Sequence[ReceiptFacts]) -> tuple[ReceiptFacts, str] | None:
    """The first receipt of a task that needs an earlier one which is not there."""
    opened: set[str] = set()
    acknowledged = queued = False
    for receipt in receipts:
        if receipt.kind == "obligation" and receipt.obligation_id not in opened:
            if receipt.phase != "accepted":
                return receipt, f"has {receipt.phase} of {receipt.obligation_id}, which nobody accepted"
            opened.add(receipt.obligation_id)
        if receipt.emitter != ASYNCGATE:
            continue
        if receipt.what == "obligation/accepted":
            acknowledged = True
        elif not acknowledged:
            return receipt, f"has {receipt.phase} of AsyncGate, which never acknowledged it"
        elif receipt.phase == "queued":
            queued = True
        elif receipt.phase == "lease_issued" and not queued:
            return receipt, "was leased and never queued"
    return None


def _not_admitted(root: RootReceipts, task_id: str) -> tuple[ReceiptFacts, str] | None:
    """A step of a plan that was admitted is admitted itself."""
    record = root.custody.get(task_id)
    opened = None if record is None else record.opened
    if opened is None or opened.parent is None or task_id not in root.acknowledged or _is_admitted(root, opened):
        return None
    plan = root.custody.get(opened.parent)
    whole = None if plan is None else plan.opened
    if whole is None or whole.task_type != PLAN_RUN or not _is_admitted(root, whole):
        return None
    return opened, f"is a step of {opened.parent}, which was admitted, and was not admitted itself"


def _is_admitted(root: RootReceipts, opened: ReceiptFacts) -> bool:
    cause = root.cause_of(opened)
    return cause is not None and cause.what == "admission/accepted"


def unattended(root: RootReceipts, tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """INV-121: an obligation that nobody works on: it waits at AsyncGate without a lease, or its custodian is gone."""
    before = tenant.now - tenant.unattended
    for record in root.custody.values():
        if record.state != "open" or record.custody_since is None or record.custody_since > before:
            continue
        receipts = root.by_task[record.task_id]
        last = receipts[-1]
        if last.stored_at > before or not _with_nobody(root, record, tenant):
            continue
        detail = (
            f"{record.obligation_id} is open with {record.custodian}, and nobody has worked on it since {_time(last)}"
        )
        yield ComplianceFinding(FindingCode.OBLIGATION_UNATTENDED, record.task_id, detail, last.receipt_id)


def _with_nobody(root: RootReceipts, record: CustodyRecord, tenant: TenantFacts) -> bool:
    if record.custodian != ASYNCGATE:
        # Types name every principal of the tenant; nothing is known where there are none.
        return bool(tenant.types) and record.custodian not in tenant.types
    queued = [receipt for receipt in root.by_task[record.task_id] if receipt.phase == "queued"]
    needs = queued[0].body.get("waits_for") if queued else None
    open_needs = [need for need in needs if _is_open(root, str(need))] if isinstance(needs, list) else []
    # What it waits for is listed itself, if nobody attends to that.
    return not open_needs


def _is_open(root: RootReceipts, obligation_id: str) -> bool:
    record = root.custody.get(obligation_id)
    return record is None or record.state == "open"


def _time(receipt: ReceiptFacts) -> str:
    return f"{receipt.stored_at:%Y-%m-%dT%H:%M:%SZ}"
