"""From a request to a plan receipt: steps 1 to 6 of a plan, and whatever of them a crash left to do (DG-03 to DG-08).

Nothing of a plan is held in memory. Each step looks at what the ledger has and sends what is missing, in the same bytes
whoever sends them; so a repeated request, `dispatch`, a start of the gate and another replica all go on alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from delegate import plan_receipts
from delegate.delegate_gate import DeleGate
from delegate.dispatching import PlanDispatcher
from delegate.gate_clients import TaskAnswer
from delegate.plan_receipts import PlanArtifact, PlanIds, PlanSubject, encoded
from delegate.plan_record import PlanRecord
from delegate.plan_requests import PlanRequest, invalid_plan
from delegate.problem_codes import Code
from legivellum.base.canonical_json import Uncanonical, canonical
from legivellum.gate.gate_caller import GateRefused
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.tenant_credentials import ServedTenant
from metagate_crds.authority import Authority, exceeded, parse_authority
from metagate_crds.plans.expansion import plan_from_template
from metagate_crds.plans.plan import Plan, PlanOrigin, UnreadablePlan

_ROUNDS: Final = 3
"""How often a plan is looked at anew because another replica was a step ahead."""


class PlanningFailed(Exception):  # noqa: N818 - what became of the plan
    """After the request was accepted: there can be no plan of it any more."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class PlanOrder:
    """A request for a plan. `intent`: `{template, parameters}`, `{draft}`, or `{capability, parameters}` as admitted.
    `ceiling`: the authority of the lease under which a worker asks (DG-08).
    """

    tenant: ServedTenant
    subject: PlanSubject
    root_task_id: str
    intent: Mapping[str, Any]
    ceiling: Authority | None = None

    @classmethod
    def recorded(cls, tenant: ServedTenant, record: PlanRecord) -> PlanOrder:
        """The request of an accepted plan, as the ledger keeps it."""
        assert record.accepted is not None
        ceiling = None if record.admission is None else lease_authority(record.admission)
        return cls(
            tenant, record.subject, record.accepted["root_task_id"], record.accepted["inputs"]["intent"], ceiling
        )

    @property
    def inputs(self) -> dict[str, Any]:
        return {"intent": dict(self.intent)}

    @property
    def summary(self) -> str:
        if "draft" in self.intent:
            return "A plan from a draft"
        name = self.intent.get("template") or self.intent["capability"]
        return f"A plan from {plan_receipts.one_line(name)}"


def order_ids(tenant: ServedTenant, plan_id: str) -> PlanIds:
    return PlanIds(plan_id, str(tenant.uid))


def lease_authority(admission: Mapping[str, Any]) -> Authority | None:
    """What the lease permitted under which the admitted request was made; None: it was made under none."""
    lease = admission["body"].get("lease")
    if lease is None:
        return None
    authority = parse_authority(lease.get("authority") or {})
    return authority if isinstance(authority, Authority) else Authority()


class PlanFlow:
    """Brings plans as far as they can come now. One per process."""

    def __init__(self, gate: DeleGate) -> None:
        self._gate = gate
        self._dispatcher = PlanDispatcher(gate)

    async def record(self, tenant: ServedTenant, plan_id: str) -> PlanRecord:
        receipts = await self._gate.clients.task_receipts(tenant, plan_id)
        return PlanRecord.of(plan_id, str(tenant.uid), receipts)

    async def take(self, order: PlanOrder) -> tuple[PlanRecord, bool]:
        """The plan of a request, and whether the request was taken before.

        Raises 4xx before the first receipt, and GateAway whenever another gate is away: the same request again goes on.
        """
        plan_id = order.subject.ids.plan_id
        record = await self.record(order.tenant, plan_id)
        taken_before = record.accepted is not None
        plan: Plan | None = None
        if taken_before:
            _require_same(order, record)
        else:
            plan = self._expand(order)
            await self._require_tasks_taken(order, plan)
            await self._accept(order, plan)
        await self._advance(order, record, plan)
        return await self.record(order.tenant, plan_id), taken_before

    async def resume(self, tenant: ServedTenant, record: PlanRecord) -> PlanRecord:
        """Finish what was begun, dispatch what was approved. Raises GateAway."""
        await self._advance(PlanOrder.recorded(tenant, record), record, None)
        return await self.record(tenant, record.ids.plan_id)

    def _expand(self, order: PlanOrder) -> Plan:
        """Raises TEMPLATE_NOT_FOUND, INVALID_PLAN, AUTHORITY_EXCEEDED."""
        tenant, ids = order.tenant.uid, order.subject.ids
        origin = PlanOrigin(
            plan_id=ids.plan_id,
            tenant_id=ids.tenant_id,
            principal_ai=order.subject.principal_ai,
            caused_by_receipt_id=ids.accepted,
            root_task_id=order.root_task_id,
            parent_task_id=order.subject.parent_task_id,
        )
        templates, principals = self._gate.templates.of(tenant), self._gate.principals(tenant)
        intent = order.intent
        if "capability" in intent:
            template = self._gate.templates.for_capability(tenant, intent["capability"])
            if template is None:
                raise refuse(Code.TEMPLATE_NOT_FOUND, "No PlanTemplate that is served has this capability.")
            result = plan_from_template(origin, template, intent["parameters"], templates, principals)
        else:
            request = PlanRequest(None, None, intent.get("template"), intent.get("parameters"), intent.get("draft"))
            result = request.expand(origin, templates, principals)
        if not isinstance(result, Plan):
            raise invalid_plan(result)
        _require_within(order.ceiling, result)
        return result

    async def _require_tasks_taken(self, order: PlanOrder, plan: Plan) -> None:
        """Whether AsyncGate would take the tasks (step 3). Raises AUTHORITY_EXCEEDED, before there is any receipt."""
        pointer = f"depot:{order.subject.ids.artifact}:{hashlib.sha256(plan.body).hexdigest()}"
        refused = await self._dispatcher.refused_task(order.tenant, plan, pointer)
        if refused is not None:
            raise refuse(Code.AUTHORITY_EXCEEDED, _described(plan, refused))

    async def _accept(self, order: PlanOrder, plan: Plan) -> None:
        """Step 4: both obligations in one transaction. Raises PLAN_CONFLICT, INVALID_REQUEST."""
        try:
            receipts = [
                encoded(receipt)
                for receipt in plan_receipts.accepted(order.subject, order.inputs, order.summary, plan.deadline_at)
            ]
        except Uncanonical:
            raise refuse(Code.INVALID_REQUEST, "intent: must hold only numbers and text that JSON carries.") from None
        for answer in await self._gate.clients.post_receipts(order.tenant, receipts):
            if answer.refusal == "INVALID_RECEIPT":
                raise refuse(Code.INVALID_REQUEST, f"The ledger does not take the request: {answer.detail}")
            if answer.refusal is not None:
                raise _conflict()

    async def _advance(self, order: PlanOrder, record: PlanRecord, plan: Plan | None) -> None:
        """Steps 5 to 9, of a plan that was accepted."""
        for _ in range(_ROUNDS):
            if record.end is not None or record.escalation is not None:
                return
            if record.failure is not None:
                await self._escalate_failure(order, record.failure["body"]["code"])
                return
            is_new = record.plan_receipt is None
            try:
                plan, artifact = await self._kept_plan(order, record, plan)
            except PlanningFailed as failed:
                if is_new:
                    await self._fail(order, failed)
                else:
                    await self._dispatcher.escalate(order.tenant, order.subject, None, "other", str(failed))
                return
            if await self._receipted(order, record, plan, artifact):
                await self._dispatcher.dispatch(order.tenant, order.subject, record, plan, artifact.pointer)
                return
            record, plan = await self.record(order.tenant, order.subject.ids.plan_id), None

    async def _kept_plan(self, order: PlanOrder, record: PlanRecord, plan: Plan | None) -> tuple[Plan, PlanArtifact]:
        """The plan as DepotGate keeps it: what lies there decides, also where a template changed since (DG-06).

        Raises PlanningFailed.
        """
        tenant, ids = order.tenant, order.subject.ids
        try:
            if (artifact := record.artifact) is not None:
                body = await self._gate.clients.plan_body(tenant, artifact.pointer)
                if body is None:
                    raise PlanningFailed("ARTIFACT_RETIRED", "DepotGate does not keep the plan any more")
                return Plan.read(body), artifact
            made = plan or self._expand(order)
            stored = await self._gate.clients.deposit_plan(
                tenant, plan_id=ids.plan_id, artifact_id=ids.artifact, body=made.body, caused_by_receipt_id=ids.planning
            )
            artifact = PlanArtifact(stored.pointer, stored.location, stored.sha256, len(stored.body), stored.receipt_id)
            return made if stored.body == made.body else Plan.read(stored.body), artifact
        except UnreadablePlan as error:
            raise PlanningFailed("INVALID_PLAN", str(error)) from error
        except GateRefused as refused:
            raise PlanningFailed(refused.code, refused.detail) from refused
        except RequestRefused as refused:
            if refused.problem.status >= 500:
                raise
            # The templates, principals or ceilings are others than when the request was accepted.
            raise PlanningFailed(refused.problem.code.name, refused.problem.detail) from refused

    async def _receipted(self, order: PlanOrder, record: PlanRecord, plan: Plan, artifact: PlanArtifact) -> bool:
        """Step 6: the plan receipt, and who has to approve. False where another replica brought it elsewhere."""
        receipts = []
        if record.plan_receipt is None:
            receipts.append(plan_receipts.plan_receipt(order.subject, plan, artifact))
        if plan.is_held and record.approval is None:
            receipts.append(plan_receipts.approval(order.subject, plan, artifact))
        if not receipts:
            return True
        answers = await self._gate.clients.post_receipts(order.tenant, list(map(encoded, receipts)))
        if record.plan_receipt is None and answers[0].refusal is not None:
            return False
        if answers[-1].refusal is not None:
            # The approver is gone, or somebody opened P:approval before: nobody can approve this plan.
            reason = f"nobody can approve the plan: {answers[-1].refusal}"
            await self._dispatcher.escalate(order.tenant, order.subject, plan, "owner", reason)
            return False
        return True

    async def _fail(self, order: PlanOrder, failed: PlanningFailed) -> None:
        """What fails before the plan receipt ends P:planning, and P goes to somebody who may end it (DG-07)."""
        failure = plan_receipts.planning_failure(order.subject, failed.code, failed.detail)
        [answer] = await self._gate.clients.post_receipts(order.tenant, [encoded(failure)])
        if answer.refusal is None:
            await self._escalate_failure(order, failed.code, failed.detail)

    async def _escalate_failure(self, order: PlanOrder, code: str, detail: str = "") -> None:
        kind = "policy" if code == Code.AUTHORITY_EXCEEDED.name else "other"
        reason = f"There is no plan: {code} {detail}"
        await self._dispatcher.escalate(order.tenant, order.subject, None, kind, reason)


def _require_same(order: PlanOrder, record: PlanRecord) -> None:
    """Raises PLAN_CONFLICT where another request was taken under the plan's id."""
    assert record.accepted is not None
    try:
        is_same = canonical(record.accepted["inputs"]) == canonical(order.inputs)
    except (Uncanonical, KeyError):
        is_same = False
    if not is_same or record.subject != order.subject:
        raise _conflict()


def _require_within(ceiling: Authority | None, plan: Plan) -> None:
    """Authority only shrinks: what a worker asks for stays within its own lease (DG-08)."""
    if ceiling is None:
        return
    for task in plan.tasks:
        authority = parse_authority(dict(task.authority))
        assert isinstance(authority, Authority)
        if member := exceeded(authority, ceiling):
            detail = f"{task.step_id}: authority.{member} is beyond the lease under which it is asked for."
            raise refuse(Code.AUTHORITY_EXCEEDED, detail)


def _conflict() -> RequestRefused:
    return refuse(Code.PLAN_CONFLICT, "plan_id: another request was taken under it.")


def _described(plan: Plan, refused: TaskAnswer) -> str:
    step_id = refused.task_id.removeprefix(f"{plan.plan_id}.")
    return f"AsyncGate does not take {step_id}: {refused.code}: {refused.detail}"
