"""What `legivellum comply` may find: a code for each rule, with the invariant that it watches (docs/comply.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FindingCode(StrEnum):
    VIEW_WITHOUT_RECEIPT = "VIEW_WITHOUT_RECEIPT"
    ENDED_TWICE = "ENDED_TWICE"
    TASK_NOT_ACCEPTED = "TASK_NOT_ACCEPTED"
    OPENED_BY_OTHERS = "OPENED_BY_OTHERS"
    MODEL_NOT_GRANTED = "MODEL_NOT_GRANTED"
    TOOL_NOT_GRANTED = "TOOL_NOT_GRANTED"
    SINK_NOT_GRANTED = "SINK_NOT_GRANTED"
    USAGE_EXCEEDED = "USAGE_EXCEEDED"
    AUTHORITY_GREW = "AUTHORITY_GREW"
    LEASE_OVER = "LEASE_OVER"
    EDGE_NOT_PERMITTED = "EDGE_NOT_PERMITTED"
    DEPTH_EXCEEDED = "DEPTH_EXCEEDED"
    DESCENDANTS_EXCEEDED = "DESCENDANTS_EXCEEDED"
    PLAN_NOT_CLOSED = "PLAN_NOT_CLOSED"
    OBLIGATION_UNATTENDED = "OBLIGATION_UNATTENDED"
    CAUSE_UNKNOWN = "CAUSE_UNKNOWN"
    CHAIN_BROKEN = "CHAIN_BROKEN"
    PROBE_NOT_REFUSED = "PROBE_NOT_REFUSED"


INVARIANTS: Final[Mapping[FindingCode, str]] = {
    FindingCode.VIEW_WITHOUT_RECEIPT: "INV-120",
    FindingCode.ENDED_TWICE: "INV-120",
    FindingCode.TASK_NOT_ACCEPTED: "INV-121",
    FindingCode.OPENED_BY_OTHERS: "INV-122",
    FindingCode.MODEL_NOT_GRANTED: "INV-124",
    FindingCode.TOOL_NOT_GRANTED: "INV-124",
    FindingCode.SINK_NOT_GRANTED: "INV-124",
    FindingCode.USAGE_EXCEEDED: "INV-124",
    FindingCode.AUTHORITY_GREW: "INV-124",
    FindingCode.LEASE_OVER: "INV-125",
    FindingCode.EDGE_NOT_PERMITTED: "INV-126",
    FindingCode.DEPTH_EXCEEDED: "INV-127",
    FindingCode.DESCENDANTS_EXCEEDED: "INV-127",
    FindingCode.PLAN_NOT_CLOSED: "INV-082",
    FindingCode.OBLIGATION_UNATTENDED: "INV-121",
    FindingCode.CAUSE_UNKNOWN: "INV-120",
    FindingCode.CHAIN_BROKEN: "INV-120",
    FindingCode.PROBE_NOT_REFUSED: "INV-124",
}
"""The invariant that each code watches, in the order in which findings are listed."""


@dataclass(frozen=True, slots=True)
class ComplianceFinding:
    """One rule that one task breaks. `detail` continues a sentence that begins with the task."""

    code: FindingCode
    task_id: str
    detail: str
    receipt_id: str | None = None
    """The receipt that shows it, where there is one."""

    @property
    def invariant(self) -> str:
        return INVARIANTS[self.code]

    def document(self) -> dict[str, str | None]:
        return {
            "code": str(self.code),
            "invariant": self.invariant,
            "task_id": self.task_id,
            "receipt_id": self.receipt_id,
            "detail": self.detail,
        }
