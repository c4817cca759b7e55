"""The receipts that DeleGate emits for a plan (docs/delegate/plans.md). Pure: the same bytes whenever they are made.

Every id is derived from the plan's, and every time that stands in a repeated receipt is the moment in it (DG-04). So
whoever goes on after a crash sends what was sent before, and the ledger answers a replay.

    P            the whole plan, type `plan.run`: opened first, ended once
    P:planning   type `plan`: ended by the plan receipt, or by its failure
    P:approval   type `plan.approval`, in the approver's custody: of a plan that is held
    P.<step>     one for each task, in AsyncGate's custody
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from legivellum.base.canonical_json import canonical
from legivellum.base.timestamps import rfc3339
from metagate_crds.plans.identifiers import created_at, derived_ulid
from metagate_crds.plans.plan import MEDIA_TYPE, Plan, PlannedTask

ASYNCGATE: Final = "svc:asyncgate"
RUN: Final = "plan.run"
PLANNING: Final = "plan"
APPROVAL: Final = "plan.approval"
_LONGEST_REASON: Final = 2_000


@dataclass(frozen=True, slots=True)
class PlanIds:
    """The ids of what belongs to one plan of one tenant."""

    plan_id: str
    tenant_id: str

    def of(self, what: str) -> str:
        return derived_ulid(self.plan_id, self.tenant_id, what)

    @property
    def accepted(self) -> str:
        return self.of("accepted")

    @property
    def planning(self) -> str:
        """Opens P:planning."""
        return self.of("planning")

    @property
    def artifact(self) -> str:
        return self.of("artifact")

    @property
    def plan(self) -> str:
        """Ends P:planning: the plan receipt, or the failure. One id, so there is never one of each."""
        return self.of("plan")

    @property
    def approval(self) -> str:
        return self.of("approval")

    @property
    def escalation(self) -> str:
        return self.of("escalation")

    @property
    def end(self) -> str:
        return self.of("end")


@dataclass(frozen=True, slots=True)
class PlanSubject:
    """Whose plan it is, and what it comes from: what all its receipts say."""

    ids: PlanIds
    principal_ai: str
    caused_by_receipt_id: str | None
    parent_task_id: str | None

    def receipt(self, receipt_id: str, phase: str, cause: str | None, **fields: Any) -> dict[str, Any]:
        moment = rfc3339(created_at(self.ids.plan_id))
        common = {
            "receipt_id": receipt_id,
            "tenant_id": self.ids.tenant_id,
            "task_id": self.ids.plan_id,
            "principal_ai": self.principal_ai,
            "caused_by_receipt_id": cause,
            "phase": phase,
            "created_at": moment,
        }
        if phase == "complete":
            common["completed_at"] = moment
        return {**common, **fields}


@dataclass(frozen=True, slots=True)
class PlanArtifact:
    """Where the plan lies, and the receipt that says that it is kept."""

    pointer: str
    location: str
    sha256: str
    size_bytes: int
    receipt_id: str


def encoded(receipt: Mapping[str, Any]) -> bytes:
    """As it is sent: what has no value is left out."""
    return canonical({name: value for name, value in receipt.items() if value is not None})


def accepted(
    subject: PlanSubject, inputs: Mapping[str, Any], summary: str, deadline_at: str | None
) -> list[dict[str, Any]]:
    """Opens P and P:planning. The request is in `inputs`: it is stored nowhere else (DG-01). What is still open after
    `deadline_at` the ledger counts as overdue.
    """
    ids = subject.ids
    parent = subject.parent_task_id
    whole = subject.receipt(
        ids.accepted, "accepted", subject.caused_by_receipt_id,
        obligation_id=ids.plan_id, parent_task_id=parent, task_type=RUN, task_summary=summary, inputs=inputs,
        metadata={} if deadline_at is None else {"deadline_at": deadline_at},
    )  # fmt: skip
    planning = subject.receipt(
        ids.planning, "accepted", ids.accepted,
        obligation_id=planning_of(ids.plan_id), parent_task_id=parent, task_type=PLANNING, task_summary=summary,
    )  # fmt: skip
    return [whole, planning]


def plan_receipt(subject: PlanSubject, plan: Plan, artifact: PlanArtifact) -> dict[str, Any]:
    """The commit point: from here on the plan is what lies under the pointer. Its body names the steps, so that who
    reads or closes the plan needs the ledger alone.
    """
    document = plan.document
    return subject.receipt(
        subject.ids.plan, "complete", artifact.receipt_id,
        obligation_id=planning_of(subject.ids.plan_id), task_type=PLANNING, status="success",
        outcome_kind="artifact_pointer", artifact_pointer=artifact.pointer, artifact_location=artifact.location,
        artifact_mime=MEDIA_TYPE, artifact_checksum=f"sha256:{artifact.sha256}",
        artifact_size_bytes=artifact.size_bytes,
        body={
            "plan_digest": plan.plan_digest,
            "planner": document["planner"],
            "dispatch": document["dispatch"],
            "approver": plan.approver,
            "escalate_to": document["escalate_to"],
            "result": document["result"],
            "steps": [task.step_id for task in plan.tasks],
        },
    )  # fmt: skip


def planning_failure(subject: PlanSubject, code: str, detail: str) -> dict[str, Any]:
    return subject.receipt(
        subject.ids.plan, "complete", subject.ids.planning,
        obligation_id=planning_of(subject.ids.plan_id), task_type=PLANNING, status="failure",
        outcome_kind="response_text", outcome_text=f"{code}: {one_line(detail)}", body={"code": code},
    )  # fmt: skip


def planning_canceled(subject: PlanSubject) -> dict[str, Any]:
    """Of a plan that was abandoned before there was one."""
    return subject.receipt(
        subject.ids.plan, "complete", subject.ids.planning,
        obligation_id=planning_of(subject.ids.plan_id), task_type=PLANNING, status="canceled", outcome_kind="none",
    )  # fmt: skip


def approval(subject: PlanSubject, plan: Plan, artifact: PlanArtifact) -> dict[str, Any]:
    """Opens P:approval in the approver's custody. Who completes it repeats the digest: of these bytes and no others."""
    return subject.receipt(
        subject.ids.approval, "accepted", subject.ids.plan,
        obligation_id=approval_of(subject.ids.plan_id), task_type=APPROVAL, recipient_ai=plan.approver,
        task_summary=f"Approve plan {subject.ids.plan_id}: {len(plan.tasks) - 1} steps",
        body={"pointer": artifact.pointer}, metadata={"plan_digest": plan.plan_digest},
    )  # fmt: skip


def task_accepted(subject: PlanSubject, task: PlannedTask, cause: str) -> dict[str, Any]:
    """Opens the obligation of one task in AsyncGate's custody. `cause`: its admission, or else the plan receipt."""
    ids = subject.ids
    return subject.receipt(
        ids.of(f"task/{task.step_id}"), "accepted", cause,
        task_id=task.task_id, obligation_id=task.task_id, parent_task_id=ids.plan_id, recipient_ai=ASYNCGATE,
        task_summary=task_summary(task), metadata={"plan_id": ids.plan_id, "step_id": task.step_id},
    )  # fmt: skip


def escalation(subject: PlanSubject, to: str, kind: str, reason: str, cause: str) -> dict[str, Any]:
    """Moves P to a person or system that may end it (INV-083)."""
    return subject.receipt(
        subject.ids.escalation, "escalate", cause,
        obligation_id=subject.ids.plan_id, task_type=RUN, escalation_to=to, escalation_class=kind,
        escalation_reason=one_line(reason),
    )  # fmt: skip


def end(
    subject: PlanSubject,
    status: str,
    cause: str,
    body: Mapping[str, Any],
    result: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The one completion of P. `result`: the receipt whose artifact is the plan's. It says when it happened: an end
    depends on who came first, and the second one reads it.
    """
    artifact = {} if result is None else _artifact_of(result)
    return subject.receipt(
        subject.ids.end, "complete", cause,
        obligation_id=subject.ids.plan_id, task_type=RUN, status=status,
        outcome_kind="artifact_pointer" if artifact else "none", completed_at=rfc3339(datetime.now(UTC)),
        body=body, **artifact,
    )  # fmt: skip


def task_document(plan: Plan, task: PlannedTask, pointer: str) -> dict[str, Any]:
    """The task as AsyncGate gets it, and as it is admitted: in RFC 8785 these are the bytes of the payload."""
    document: dict[str, Any] = {
        "task_id": task.task_id,
        "principal_ai": plan.principal_ai,
        "parent_task_id": plan.plan_id,
        "capability": task.capability,
        "payload_pointer": f"{pointer}#{task.step_id}",
        "task_summary": task_summary(task),
        "needs": list(task.depends_on),
        "escalation_to": list(task.escalation_to),
    }
    if task.authority:
        document["authority"] = dict(task.authority)
    return document


def task_summary(task: PlannedTask) -> str:
    return f"{task.capability}: step {task.step_id}"


def planning_of(plan_id: str) -> str:
    return f"{plan_id}:planning"


def approval_of(plan_id: str) -> str:
    return f"{plan_id}:approval"


def one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_REASON] or "no reason was given"


def _artifact_of(receipt: Mapping[str, Any]) -> dict[str, Any]:
    names = ("artifact_pointer", "artifact_location", "artifact_mime", "artifact_checksum", "artifact_size_bytes")
    if receipt.get("artifact_pointer") is None:
        return {}
    return {name: receipt[name] for name in names if receipt.get(name) is not None}
