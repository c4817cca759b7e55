"""What the ledger holds of a plan: everything that DeleGate knows of it (DG-01). Pure.

A plan's own receipts are all of one task, P, so one look at the ledger tells how far it came, whoever brought it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from delegate.plan_receipts import RUN, PlanArtifact, PlanIds, PlanSubject, approval_of, planning_of

Receipt = Mapping[str, Any]

DEPOTGATE: Final = "svc:depotgate"
INTERROGATE: Final = "svc:interrogate"


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """The receipts of one plan; None for those that are not there."""

    ids: PlanIds
    admission: Receipt | None
    accepted: Receipt | None
    stored: Receipt | None
    """DepotGate keeps the plan."""
    planned: Receipt | None
    """The end of P:planning: the plan receipt, or its failure."""
    approval: Receipt | None
    """P:approval was opened."""
    decision: Receipt | None
    """P:approval was ended, in whichever way."""
    escalation: Receipt | None
    end: Receipt | None

    @classmethod
    def of(cls, plan_id: str, tenant_id: str, receipts: Iterable[Receipt]) -> PlanRecord:
        """`receipts`: those of the task P, as the ledger shows them. Others may have filed theirs under it too: the
        ledger lets only a delegate open `plan.run`, and only its custodian end or move an obligation.
        """
        ids = PlanIds(plan_id, tenant_id)
        filed = list(receipts)
        by_id = {receipt["receipt_id"]: receipt for receipt in filed}
        ends = {
            receipt["obligation_id"]: receipt
            for receipt in filed
            if (receipt["kind"], receipt["phase"]) == ("obligation", "complete")
        }
        accepted = by_id.get(ids.accepted)
        if accepted is not None and (accepted["phase"], accepted.get("task_type")) != ("accepted", RUN):
            accepted = None
        pointer = f"depot:{ids.artifact}:"
        return cls(
            ids,
            admission=_first(filed, INTERROGATE, "admission", "accepted"),
            accepted=accepted,
            stored=next(
                (
                    receipt
                    for receipt in filed
                    if (receipt["emitter"], receipt["phase"]) == (DEPOTGATE, "stored")
                    and receipt["artifact_pointer"].startswith(pointer)
                ),
                None,
            ),
            planned=ends.get(planning_of(plan_id)),
            approval=by_id.get(ids.approval),
            decision=ends.get(approval_of(plan_id)),
            escalation=by_id.get(ids.escalation),
            end=ends.get(plan_id),
        )

    @property
    def plan_receipt(self) -> Receipt | None:
        return self.planned if self.planned is not None and self.planned["status"] == "success" else None

    @property
    def failure(self) -> Receipt | None:
        """Planning failed: there will be no plan receipt."""
        return self.planned if self.planned is not None and self.planned["status"] == "failure" else None

    @property
    def phase(self) -> str:
        if self.end is not None:
            return "closed"
        if self.failure is not None:
            return "failed"
        if self.escalation is not None:
            return "escalated"
        if self.plan_receipt is None:
            return "planning"
        return "held" if self.approval is not None and self.decision is None else "running"

    @property
    def subject(self) -> PlanSubject:
        """Of a plan that was accepted."""
        assert self.accepted is not None
        return PlanSubject(
            self.ids,
            self.accepted["principal_ai"],
            self.accepted.get("caused_by_receipt_id"),
            self.accepted.get("parent_task_id"),
        )

    @property
    def artifact(self) -> PlanArtifact | None:
        """The plan as DepotGate keeps it."""
        if self.stored is None:
            return None
        return PlanArtifact(
            self.stored["artifact_pointer"],
            self.stored["artifact_location"],
            self.stored["artifact_checksum"].removeprefix("sha256:"),
            self.stored["artifact_size_bytes"],
            self.stored["receipt_id"],
        )

    @property
    def step_ids(self) -> list[str]:
        """In the order of the plan, `close` last; empty before the plan receipt."""
        return [] if self.plan_receipt is None else self.plan_receipt["body"]["steps"]


def rendered(record: PlanRecord) -> dict[str, Any]:
    """As it is answered, of a plan that was accepted."""
    assert record.accepted is not None
    plan, artifact, escalation = record.plan_receipt, record.artifact, record.escalation
    return {
        "plan_id": record.ids.plan_id,
        "principal_ai": record.accepted["principal_ai"],
        "phase": record.phase,
        "root_task_id": record.accepted["root_task_id"],
        "artifact": None if artifact is None else {"pointer": artifact.pointer, "sha256": artifact.sha256},
        "plan_digest": None if plan is None else plan["body"]["plan_digest"],
        "receipts": {
            "accepted": record.accepted["receipt_id"],
            "plan": None if record.planned is None else record.planned["receipt_id"],
            "end": None if record.end is None else record.end["receipt_id"],
        },
        "steps": [{"step_id": step_id, "task_id": f"{record.ids.plan_id}.{step_id}"} for step_id in record.step_ids],
        "escalation": None
        if escalation is None
        else {
            "receipt_id": escalation["receipt_id"],
            "to": escalation["escalation_to"],
            "class": escalation["escalation_class"],
            "reason": escalation["escalation_reason"],
        },
    }


def _first(receipts: Iterable[Receipt], emitter: str, kind: str, phase: str) -> Receipt | None:
    wanted = (emitter, kind, phase)
    names = ("emitter", "kind", "phase")
    return next((receipt for receipt in receipts if tuple(map(receipt.get, names)) == wanted), None)
