"""Who emitted what (INV-126): each gate its own kinds, each principal what its type may, and nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from legivellum.receipts.rights import Right, right_to_emit
from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import (
    ASYNCGATE,
    DEPOTGATE,
    INTERROGATE,
    PLAN_RUN,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
)

EMITTED: Final[Mapping[str, frozenset[str]]] = {
    INTERROGATE: frozenset({"admission/accepted", "admission/rejected", "admission/complete", "admission/escalate"}),
    ASYNCGATE: frozenset({
        "obligation/accepted", "obligation/complete", "obligation/escalate", "lifecycle/queued",
        "lifecycle/lease_issued", "lifecycle/reassigned", "lifecycle/expired", "lifecycle/revoked",
    }),
    DEPOTGATE: frozenset({"artifact/stored", "artifact/retired"}),
}  # fmt: skip
"""What each gate that is in the ledger's database may emit."""
_OF_GATES: Final = frozenset({"admission", "artifact"})
_WORKING_TYPES: Final = frozenset({"worker", "service", "component"})
_LEASING_TYPES: Final = _WORKING_TYPES
_ENQUEUING_TYPES: Final = frozenset({"principal", "delegate"})


def edge_not_permitted(root: RootReceipts, tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    for receipt in root.receipts:
        reason = _of_gate(receipt, tenant) if receipt.by_gate else _of_principal(root, receipt, tenant)
        if reason is not None:
            yield ComplianceFinding(FindingCode.EDGE_NOT_PERMITTED, receipt.task_id, reason, receipt.receipt_id)


def _of_gate(receipt: ReceiptFacts, tenant: TenantFacts) -> str | None:
    if receipt.what not in EMITTED.get(receipt.emitter, frozenset()):
        return f"has {receipt.what} by {receipt.emitter}, which emits no such receipt"
    if receipt.phase == "lease_issued":
        return _wrong_type(receipt.recipient_ai, _LEASING_TYPES, "was leased to", tenant)
    if receipt.emitter == ASYNCGATE and receipt.phase == "queued" and "minter" in receipt.body:
        return _wrong_type(str(receipt.body["minter"]), _ENQUEUING_TYPES, "was handed to AsyncGate by", tenant)
    return None


def _wrong_type(name: str, types: frozenset[str], how: str, tenant: TenantFacts) -> str | None:
    principal_type = tenant.types.get(name)
    return None if principal_type is None or principal_type in types else f"{how} {name}, a {principal_type}"


def _of_principal(root: RootReceipts, receipt: ReceiptFacts, tenant: TenantFacts) -> str | None:
    emitter_type = tenant.types.get(receipt.emitter)
    if receipt.kind in _OF_GATES or (receipt.kind == "lifecycle" and receipt.phase != "published"):
        return f"has {receipt.what} by {receipt.emitter}, which is no gate"
    if emitter_type is None or receipt.kind != "obligation":
        return None  # The witness has a right that no listing shows.
    if right_to_emit(emitter_type, receipt.kind, receipt.phase, receipt.task_type) is Right.NONE:
        return f"has {receipt.what} by {receipt.emitter}, a {emitter_type}"
    return _replanned(root, receipt, tenant)


def _replanned(root: RootReceipts, receipt: ReceiptFacts, tenant: TenantFacts) -> str | None:
    """A worker that wants more work done asks InterroGate: DeleGate plans nothing for it directly."""
    if receipt.task_type != PLAN_RUN or receipt.phase != "accepted":
        return None
    cause = root.cause_of(receipt)
    admitted = cause is not None and cause.kind == "admission"
    if tenant.types.get(receipt.principal_ai) not in _WORKING_TYPES or admitted:
        return None
    return f"is a plan that {receipt.principal_ai}, a {tenant.types[receipt.principal_ai]}, asked DeleGate for directly"
