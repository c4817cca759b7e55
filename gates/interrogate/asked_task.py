"""What became of an admitted task, as the ledger tells it: what agents ask of the MCP gateway (GW-05, GW-06).

Nothing of it is kept beside the receipts but what a target answered, for 72 hours: so any process answers, also one
that never saw the request.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from interrogate.forwards import ForwardRow
from legivellum.base.timestamps import rfc3339

TaskState = Literal["admitted", "open", "escalated", "success", "failure", "canceled", "undelivered"]
"""admitted: nobody has custody yet. open, escalated: somebody has. undelivered: a target was not reached. The others:
it is over."""
LONGER_THAN_A_CALL: Final = 202
"""The status of a target that took the request and will complete its task in the ledger."""
_ARTIFACT: Final = {
    "pointer": "artifact_pointer",
    "location": "artifact_location",
    "mime": "artifact_mime",
    "checksum": "artifact_checksum",
    "size_bytes": "artifact_size_bytes",
}


@dataclass(frozen=True, slots=True)
class AskedTask:
    """An admission, the custody of its task, and what its targets answered."""

    receipt_id: str
    admitted_at: datetime
    admission: Mapping[str, Any]
    """The receipt."""
    custody_state: str | None
    custodian: str | None
    closing: Mapping[str, Any] | None
    """The receipt that closed its obligation."""
    closed_at: datetime | None
    forwards: tuple[ForwardRow, ...]
    """Empty where nothing was to be forwarded, and after 72 hours."""
    canceled_at: datetime | None
    """When the client ended its handle; the task itself goes on."""

    @classmethod
    def from_row(cls, row: Any) -> AskedTask:
        forwards = json.loads(row["forwards"] or "[]")
        return cls(
            receipt_id=row["receipt_id"],
            admitted_at=row["stored_at"],
            admission=json.loads(row["body"]),
            custody_state=row["state"],
            custodian=row["custodian"],
            closing=None if row["closing"] is None else json.loads(row["closing"]),
            closed_at=row["closed_at"],
            forwards=tuple(
                ForwardRow(
                    **{**forward, "answer": None if forward["answer"] is None else json.loads(forward["answer"])}
                )
                for forward in forwards
            ),
            canceled_at=row["canceled_at"],
        )

    @property
    def task_id(self) -> str:
        return str(self.admission["task_id"])

    @property
    def asked_by(self) -> str:
        return str(self.admission["body"]["caller"]["principal_key"])


@dataclass(frozen=True, slots=True)
class TaskReceipt:
    """A receipt of the task; `fields` is what was stored."""

    receipt_id: str
    stored_at: datetime
    fields: Mapping[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        names = ("kind", "phase", "emitter", "status", "caused_by_receipt_id")
        return {
            "receipt_id": self.receipt_id,
            "stored_at": rfc3339(self.stored_at),
            **{name: self.fields.get(name) for name in names},
        }


def task_state(task: AskedTask, receipts: Sequence[TaskReceipt]) -> TaskState:
    """`receipts`: those of the task, oldest first."""
    if task.custody_state in {"success", "failure", "canceled"}:
        return task.custody_state  # type: ignore[return-value]  # compared on the line above
    if task.custody_state is not None:
        last = next((receipt for receipt in reversed(receipts) if receipt.fields["kind"] == "obligation"), None)
        return "escalated" if last is not None and last.fields["phase"] == "escalate" else "open"
    if escalation_of(task, receipts) is not None:
        return "undelivered"
    states = {forward.state for forward in task.forwards}
    answered = all(forward.status != LONGER_THAN_A_CALL for forward in task.forwards)
    return "success" if states == {"delivered"} and answered else "admitted"


def escalation_of(task: AskedTask, receipts: Sequence[TaskReceipt]) -> TaskReceipt | None:
    """The receipt that says that a target of the admission was not reached."""
    wanted = ("admission", "escalate", task.receipt_id)
    names = ("kind", "phase", "caused_by_receipt_id")
    return next((receipt for receipt in receipts if tuple(map(receipt.fields.get, names)) == wanted), None)


def artifact_of(receipt: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The artifact that a receipt points to."""
    if receipt is None or receipt.get("artifact_pointer") is None:
        return None
    return {name: receipt.get(field) for name, field in _ARTIFACT.items()}


def ledger_result(closing: Mapping[str, Any]) -> dict[str, Any]:
    """A result that came by the ledger: the claim of whoever completed the task."""
    artifact = artifact_of(closing)
    if artifact is not None:
        artifact.pop("location")
    return {"status": closing["status"], "outcome_text": closing.get("outcome_text"), "artifact": artifact}


def answered_result(forwards: Sequence[ForwardRow]) -> Any:
    """What the target answered; of several targets each answer under its name."""
    if len(forwards) == 1:
        return forwards[0].answer
    return {forward.target: forward.answer for forward in forwards}
