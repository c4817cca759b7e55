"""How deep and how wide trees of requests grew (INV-127), against what their policy permits."""

from __future__ import annotations

from collections.abc import Iterator

from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import (
    ASYNCGATE,
    INTERROGATE,
    PolicyLimits,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
    mapping,
)


def beyond_policy(root: RootReceipts, tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """Each admission against the limits of the policy that made it; silent where that has changed since."""
    descendants = 0
    for receipt in root.receipts:
        if receipt.emitter != INTERROGATE or receipt.what != "admission/accepted":
            continue
        depth, limits = _depth(receipt), _limits(receipt, tenant)
        if depth is None or "tool" in receipt.body:
            continue
        descendants += depth > 0
        if limits is None:
            continue
        if limits.depth is not None and depth > limits.depth:
            detail = f"has depth {depth}; the policy {receipt.body['policy_profile_id']} permits {limits.depth}"
            yield ComplianceFinding(FindingCode.DEPTH_EXCEEDED, receipt.task_id, detail, receipt.receipt_id)
        if depth and limits.descendants is not None and descendants > limits.descendants:
            detail = f"is number {descendants} below {root.root_task_id}; the policy permits {limits.descendants}"
            yield ComplianceFinding(FindingCode.DESCENDANTS_EXCEEDED, receipt.task_id, detail, receipt.receipt_id)


def _limits(receipt: ReceiptFacts, tenant: TenantFacts) -> PolicyLimits | None:
    limits = tenant.policies.get(str(receipt.body.get("policy_profile_id")))
    return limits if limits is not None and limits.policy_hash == receipt.body.get("policy_hash") else None


def _depth(receipt: ReceiptFacts) -> int | None:
    source = mapping(receipt.body.get("derived")) if receipt.emitter == INTERROGATE else receipt.body
    depth = source.get("depth")
    return depth if isinstance(depth, int) and not isinstance(depth, bool) else None


def depth_not_derived(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """A request is one deeper than what it hangs below: who says less is let through by every limit."""
    depths: dict[tuple[str, str], int] = {}
    for receipt in root.receipts:
        if receipt.what not in {"admission/accepted", "lifecycle/queued"} or (depth := _depth(receipt)) is None:
            continue
        if receipt.emitter not in {INTERROGATE, ASYNCGATE} or "tool" in receipt.body:
            continue
        parent = receipt.parent or _opened_below(root, receipt)
        above = None if parent is None else depths.get((receipt.emitter, parent))
        if above is not None and depth != above + 1:
            detail = f"says depth {depth}; {parent}, which it hangs below, has {above}"
            yield ComplianceFinding(FindingCode.DEPTH_EXCEEDED, receipt.task_id, detail, receipt.receipt_id)
        depths.setdefault((receipt.emitter, receipt.task_id), depth)


def _opened_below(root: RootReceipts, receipt: ReceiptFacts) -> str | None:
    record = root.custody.get(receipt.obligation_id)
    return None if record is None or record.opened is None else record.opened.parent
