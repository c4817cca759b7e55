"""What was done under a lease that was over (INV-125).

Renewals leave no receipt, so the time that a lease names is not its end. It is over for certain once AsyncGate says so,
once the next lease is issued, and once the longest life that the task permits is behind it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import ASYNCGATE, DEPOTGATE, ReceiptFacts, RootReceipts, TenantFacts, mapping

_ENDING = frozenset({"queued", "expired", "revoked"})
_RETURNING = frozenset({"complete", "escalate"})


@dataclass(slots=True)
class _LeaseClock:
    """The lease of a task at one place of its receipts."""

    number: int | None = None
    latest_end: datetime | None = None
    longest: timedelta | None = None

    def observe(self, receipt: ReceiptFacts) -> None:
        if receipt.emitter != ASYNCGATE or receipt.kind != "lifecycle":
            return
        if receipt.phase == "lease_issued":
            self.number = receipt.attempt
            self.latest_end = None if self.longest is None else receipt.stored_at + self.longest
        elif receipt.phase in _ENDING:
            seconds = mapping(receipt.body.get("terms")).get("max_lifetime_seconds")
            if isinstance(seconds, int):
                self.longest = timedelta(seconds=seconds)
            self.number = None

    def reason(self, number: object, at: datetime) -> str | None:
        """Why the lease of that number is not live; None: it may be."""
        if number != self.number:
            return (
                f"after lease {number} was over"
                if self.number is None
                else f"under lease {number} after {self.number} was issued"
            )
        if self.latest_end is not None and at > self.latest_end:
            return f"after the longest life of lease {number}"
        return None


def lease_over(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    for task_id, receipts in root.by_task.items():
        if any(receipt.emitter == ASYNCGATE for receipt in receipts):
            yield from _of_task(task_id, receipts)


def _of_task(task_id: str, receipts: Sequence[ReceiptFacts]) -> Iterator[ComplianceFinding]:
    clock = _LeaseClock()
    for receipt in receipts:
        number = receipt.body.get("lease_number")
        if number is not None and _is_work(receipt):
            reason = clock.reason(number, receipt.stored_at)
            if reason is not None:
                detail = f"has {receipt.what} {reason}"
                yield ComplianceFinding(FindingCode.LEASE_OVER, task_id, detail, receipt.receipt_id)
        clock.observe(receipt)


def _is_work(receipt: ReceiptFacts) -> bool:
    """Whether it was done by the holder of a lease."""
    if receipt.emitter == DEPOTGATE:
        return receipt.phase == "stored"
    return receipt.emitter == ASYNCGATE and receipt.kind == "obligation" and receipt.phase in _RETURNING
