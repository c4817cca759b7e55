"""From a plan receipt to tasks: steps 7 to 9. All tasks of a plan are handed over, or none (DG-09, INV-081).

`close` is the last task of every plan and the batch is all or none: so where AsyncGate acknowledged it,
it has all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from delegate import metrics, plan_receipts
from delegate.delegate_gate import DeleGate
from delegate.gate_clients import TaskAnswer
from delegate.plan_receipts import ASYNCGATE, PlanSubject, encoded, task_document
from delegate.plan_record import PlanRecord, Receipt
from delegate.problem_codes import Code
from legivellum.base.canonical_json import canonical
from legivellum.gate.gate_caller import GateRefused
from legivellum.http.problems import refuse
from legivellum.identity.tenant_credentials import ServedTenant
from metagate_crds.plans.plan import Plan, PlannedTask

SURFACE: Final = "plans"
"""On which steps are admitted, of the profile by which the request was."""
_AT_ONCE: Final = 16


class AdmissionDenied(Exception):  # noqa: N818 - what InterroGate decided
    """A step may not be: no task of the plan will."""

    def __init__(self, step_id: str, reason: str) -> None:
        super().__init__(f"InterroGate does not admit {step_id}: {reason}")


class PlanDispatcher:
    """One per process."""

    def __init__(self, gate: DeleGate) -> None:
        self._gate = gate

    async def refused_task(self, tenant: ServedTenant, plan: Plan, pointer: str) -> TaskAnswer | None:
        """The first task that AsyncGate would not take now; it stores nothing."""
        documents = [task_document(plan, task, pointer) for task in plan.tasks]
        try:
            answers = await self._gate.clients.check_tasks(tenant, documents)
        except GateRefused as refused:
            return TaskAnswer(plan.tasks[0].task_id, refused.status, refused.code, refused.detail)
        return next((answer for answer in answers if answer.refused), None)

    async def dispatch(
        self, tenant: ServedTenant, subject: PlanSubject, record: PlanRecord, plan: Plan, pointer: str
    ) -> None:
        """Hand over what may be handed over. Raises GateAway, ADMISSION_REQUIRED."""
        if plan.is_held and not await self._is_approved(tenant, subject, record, plan):
            return
        # A plan whose receipt was written a moment ago has no tasks.
        if record.plan_receipt is not None:
            if await self._is_handed_over(tenant, plan):
                return
            if (refused := await self.refused_task(tenant, plan, pointer)) is not None:
                await self.escalate(tenant, subject, plan, "policy", f"AsyncGate: {refused.code}: {refused.detail}")
                return
        try:
            admissions = await self._admissions(tenant, record, plan, pointer)
        except AdmissionDenied as denied:
            await self.escalate(tenant, subject, plan, "policy", str(denied))
            return
        await self._mint(tenant, subject, plan, pointer, admissions)

    async def _is_approved(self, tenant: ServedTenant, subject: PlanSubject, record: PlanRecord, plan: Plan) -> bool:
        """Only the approver's own success on this digest is an approval. Anything else ends the plan."""
        decision = record.decision
        if decision is None:
            return False
        if is_approval(decision, plan):
            return True
        end = plan_receipts.end(subject, "canceled", decision["receipt_id"], {"counts": {}, "reason": "not approved"})
        await self._gate.clients.post_receipts(tenant, [encoded(end)])
        return False

    async def _is_handed_over(self, tenant: ServedTenant, plan: Plan) -> bool:
        """Whether AsyncGate acknowledged the tasks. Its copy may be gone by now, the receipts are not."""
        receipts = await self._gate.clients.task_receipts(tenant, plan.tasks[-1].task_id)
        return any((receipt["emitter"], receipt["phase"]) == (ASYNCGATE, "accepted") for receipt in receipts)

    async def _admissions(self, tenant: ServedTenant, record: PlanRecord, plan: Plan, pointer: str) -> list[str]:
        """Step 7: the admission of each task, in their order; empty where nothing is admitted (DG-09).

        Raises AdmissionDenied, GateAway, ADMISSION_REQUIRED.
        """
        if self._gate.settings.admission == "off":
            return []
        if record.admission is None:
            raise refuse(Code.ADMISSION_REQUIRED, "The request for this plan was not admitted.")
        profile = record.admission["body"]["policy_profile_id"]
        slots = asyncio.Semaphore(_AT_ONCE)

        async def admitted(task: PlannedTask) -> str:
            async with slots:
                return await self._admission(tenant, plan, task, profile, pointer)

        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(admitted(task), name="admit a task") for task in plan.tasks]
        except BaseExceptionGroup as failures:
            # A denial is a verdict; that a gate was away for another step is none.
            denials = [failure for failure in failures.exceptions if isinstance(failure, AdmissionDenied)]
            raise (denials or failures.exceptions)[0] from None
        return [task.result() for task in running]

    async def _admission(self, tenant: ServedTenant, plan: Plan, task: PlannedTask, profile: str, pointer: str) -> str:
        """The receipt that admits a task. Asked again it is the same one: InterroGate knows the task and its bytes."""
        envelope = {
            "tenant_id": str(tenant.uid),
            "surface_id": SURFACE,
            "policy_profile_id": profile,
            "payload_kind": "task",
            "causality": {
                "root_task_id": plan.document["root_task_id"],
                "parent_task_id": plan.plan_id,
                "caused_by_receipt_id": plan_receipts.PlanIds(plan.plan_id, str(tenant.uid)).plan,
                "spawn_depth": None,
                "capability_id": task.capability,
                "task_id": task.task_id,
            },
        }
        payload = canonical(task_document(plan, task, pointer))
        try:
            verdict = await self._gate.clients.admit(tenant, envelope, payload)
        except GateRefused as refused:
            raise AdmissionDenied(task.step_id, f"{refused.code}: {refused.detail}") from refused
        if not verdict.allowed:
            raise AdmissionDenied(task.step_id, f"{verdict.reason_code}: {verdict.detail}")
        return verdict.receipt_id

    async def _mint(
        self, tenant: ServedTenant, subject: PlanSubject, plan: Plan, pointer: str, admissions: Sequence[str]
    ) -> None:
        """Steps 8 and 9. What AsyncGate does not take after all is ended again: nothing is left half minted."""
        causes = admissions or [subject.ids.plan] * len(plan.tasks)
        receipts = [
            encoded(plan_receipts.task_accepted(subject, task, cause))
            for task, cause in zip(plan.tasks, causes, strict=True)
        ]
        for receipt in await self._gate.clients.post_receipts(tenant, receipts):
            if receipt.refusal is not None:
                await self._revoke(tenant, subject, plan, f"the ledger: {receipt.refusal}: {receipt.detail}", "other")
                return
        documents = [task_document(plan, task, pointer) for task in plan.tasks]
        try:
            answers = await self._gate.clients.enqueue(tenant, documents, admissions)
        except GateRefused as refused:
            await self._revoke(tenant, subject, plan, f"AsyncGate: {refused.code}: {refused.detail}", "policy")
            return
        refused_tasks = [answer for answer in answers if answer.refused]
        if refused_tasks:
            first = next((task for task in refused_tasks if task.code != "GROUP_REFUSED"), refused_tasks[0])
            await self._revoke(tenant, subject, plan, f"AsyncGate: {first.code}: {first.detail}", "policy")
            return
        metrics.TASKS.inc(sum(1 for answer in answers if answer.status == 201))

    async def _revoke(self, tenant: ServedTenant, subject: PlanSubject, plan: Plan, reason: str, kind: str) -> None:
        """End what was opened for AsyncGate and never handed over, and give the plan to somebody who may end it."""
        await self.escalate(tenant, subject, plan, kind, reason)
        for task in plan.tasks:
            try:
                await self._gate.clients.revoke(tenant, task.task_id, "its plan was not handed over")
            except GateRefused:
                continue

    async def escalate(
        self, tenant: ServedTenant, subject: PlanSubject, plan: Plan | None, kind: str, reason: str
    ) -> None:
        """P to whom the plan names, once; to its principal where that one is gone, or there is no plan (DG-07)."""
        named = subject.principal_ai if plan is None else plan.document["escalate_to"]
        for to in dict.fromkeys((named, subject.principal_ai)):
            receipt = plan_receipts.escalation(subject, to, kind, reason, subject.ids.plan)
            [answer] = await self._gate.clients.post_receipts(tenant, [encoded(receipt)])
            if answer.refusal != "RECIPIENT_UNKNOWN":
                return


def is_approval(decision: Receipt, plan: Plan) -> bool:
    """Whether the end of P:approval approves exactly this plan."""
    metadata: Mapping[str, Any] = decision.get("metadata") or {}
    return (
        decision["emitter"] == plan.approver
        and decision["status"] == "success"
        and metadata.get("plan_digest") == plan.plan_digest
    )
