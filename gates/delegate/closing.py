"""The end of a plan: one completion of P, whoever asks and however often (DG-11, INV-082).

It says how many steps ended how and names none: whether their work is good is not DeleGate's to judge (INV-084).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from delegate import metrics, plan_receipts
from delegate.delegate_gate import DeleGate
from delegate.gate_clients import ObligationState
from delegate.plan_receipts import encoded
from delegate.plan_record import PlanRecord, Receipt
from delegate.problem_codes import Code
from legivellum.gate.gate_caller import GateAway
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.tenant_credentials import ServedTenant
from metagate_crds.plans.plan import CLOSE

ENDED: Final = ("success", "failure", "canceled")
_SHOWN_STEPS: Final = 20


@dataclass(frozen=True, slots=True)
class PlanEnd:
    receipt_id: str
    status: str
    counts: Mapping[str, int]

    @classmethod
    def of(cls, receipt: Receipt) -> PlanEnd:
        body = receipt.get("body")
        counts = body.get("counts", {}) if isinstance(body, dict) else {}
        # In one order, also when it is read back from the ledger, which sorts names.
        ordered = {status: counts[status] for status in ENDED if status in counts}
        return cls(receipt["receipt_id"], receipt["status"], ordered)


class PlanCloser:
    """One per process."""

    def __init__(self, gate: DeleGate) -> None:
        self._clients = gate.clients

    async def close(self, tenant: ServedTenant, record: PlanRecord) -> PlanEnd:
        """Raises PLAN_NOT_FINISHED, GateAway."""
        if record.end is not None:
            return PlanEnd.of(record.end)
        steps = [step_id for step_id in record.step_ids if step_id != CLOSE]
        if not steps:
            raise refuse(Code.PLAN_NOT_FINISHED, "There is no plan yet.", members={"open": []})
        obligations = await self._clients.obligations(tenant, [f"{record.ids.plan_id}.{step_id}" for step_id in steps])
        still_open = [
            step_id for step_id, obligation in zip(steps, obligations, strict=True) if obligation.state not in ENDED
        ]
        if still_open:
            shown = still_open[:_SHOWN_STEPS]
            raise refuse(Code.PLAN_NOT_FINISHED, f"{len(still_open)} steps are not over.", members={"open": shown})
        states = Counter(str(obligation.state) for obligation in obligations)
        counts = {status: states[status] for status in ENDED}
        # Ids are ULIDs, so the greatest was made last; the same one for all who look.
        last = max(obligation.closed_by or "" for obligation in obligations)
        end = plan_receipts.end(
            record.subject,
            "success" if counts["success"] == len(steps) else "failure",
            last,
            {"counts": counts},
            await self._result(tenant, record, steps, obligations),
        )
        return await self._ended(tenant, record, end)

    async def abandon(self, tenant: ServedTenant, record: PlanRecord, reason: str | None) -> PlanEnd:
        """End it whatever its steps do; they go on until their principal revokes them (D-09).

        Raises OBLIGATION_ALREADY_TERMINATED, ROLE_REQUIRED, GateAway.
        """
        if record.end is None:
            receipts = [self._abandoning(record, reason)]
            if record.planned is None:
                receipts.append(plan_receipts.planning_canceled(record.subject))
            return await self._ended(tenant, record, *receipts, abandons=True)
        return _abandoned(record.end)

    def _abandoning(self, record: PlanRecord, reason: str | None) -> dict[str, Any]:
        body = {"abandoned": True, "counts": {}, "reason": reason}
        cause = record.ids.accepted if record.planned is None else record.ids.plan
        return plan_receipts.end(record.subject, "canceled", cause, body)

    async def _result(
        self, tenant: ServedTenant, record: PlanRecord, steps: Sequence[str], obligations: Sequence[ObligationState]
    ) -> Receipt | None:
        """The completion of the step whose artifact is the plan's; None where there is none."""
        assert record.plan_receipt is not None
        result = record.plan_receipt["body"]["result"]
        closed_by = None if result is None else obligations[steps.index(result)].closed_by
        return None if closed_by is None else await self._clients.receipt(tenant, closed_by)

    async def _ended(
        self, tenant: ServedTenant, record: PlanRecord, *receipts: Mapping[str, Any], abandons: bool = False
    ) -> PlanEnd:
        """The end that is stored: this one, or the one of somebody who was faster."""
        answers = await self._clients.post_receipts(tenant, list(map(encoded, receipts)))
        if answers[0].refusal is None:
            metrics.CLOSED.labels(receipts[0]["status"]).inc()
            return PlanEnd.of(receipts[0])
        ids = record.ids
        now = PlanRecord.of(ids.plan_id, ids.tenant_id, await self._clients.task_receipts(tenant, ids.plan_id))
        if now.end is not None:
            return _abandoned(now.end) if abandons else PlanEnd.of(now.end)
        if answers[0].refusal == "NOT_CUSTODIAN":
            raise _in_other_hands(now)
        raise GateAway("memorygate", f"does not take the end of the plan: {answers[0].refusal}")


def _abandoned(end: Receipt) -> PlanEnd:
    """Raises OBLIGATION_ALREADY_TERMINATED where the plan ended otherwise."""
    body = end.get("body")
    if isinstance(body, dict) and body.get("abandoned") is True:
        return PlanEnd.of(end)
    raise refuse(Code.OBLIGATION_ALREADY_TERMINATED, "The plan is over.")


def _in_other_hands(record: PlanRecord) -> RequestRefused:
    to = "somebody else" if record.escalation is None else record.escalation["escalation_to"]
    return refuse(Code.ROLE_REQUIRED, f"The plan was escalated: {to} has custody of it and may end it.")
