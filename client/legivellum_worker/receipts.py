"""What a receipt says, before it is sent: ids and times made here, fields as docs/memorygate/receipts.md has them.

A receipt is complete when it is made, so sending it again is a replay: the ledger takes the same id and content once.
"""

from __future__ import annotations

import hashlib
import time

from legivellum_worker.ulids import new_ulid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Literal, Protocol, TypedDict

    from legivellum_worker.artifacts import StoredArtifact

    Status = Literal["success", "failure", "canceled"]
    EscalationClass = Literal["owner", "capability", "trust", "policy", "scope", "other"]

    class ObligationName(Protocol):
        """What names an obligation to the ledger: RecordedReceipt, OpenObligation and Question do."""

        @property
        def task_id(self) -> str: ...

        @property
        def obligation_id(self) -> str: ...

        @property
        def principal_ai(self) -> str: ...

        @property
        def receipt_id(self) -> str: ...

    class AcceptedFields(TypedDict, total=False):
        """What `Ledger.accept` takes. `fields` are other fields of a receipt, by their names."""

        owner: str | None
        obligation_id: str | None
        recipient: str | None
        task_type: str | None
        summary: str | None
        body: Any
        inputs: Any
        parent_task_id: str | None
        caused_by: str | None
        deadline_at: str | None
        dedupe_key: str | None
        attempt: int | None
        fields: Mapping[str, Any] | None

    class CompleteFields(TypedDict, total=False):
        """What `Ledger.complete` takes. `reason` is a word for programs, kept in the metadata."""

        status: Status
        text: str | None
        artifact: StoredArtifact | Mapping[str, Any] | None
        reason: str | None
        usage: Mapping[str, Any] | None
        caused_by: str | None
        started_at: str | None
        fields: Mapping[str, Any] | None

    class EscalateFields(TypedDict, total=False):
        """What `Ledger.escalate` takes."""

        escalation_class: EscalationClass
        caused_by: str | None
        fields: Mapping[str, Any] | None

    class ObligationFields(TypedDict, total=False):
        """What `Ledger.obligation` takes."""

        task_id: str | None
        attempt: int | None
        task_type: str | None
        summary: str | None
        body: Any
        inputs: Any
        owner: str | None
        deadline_at: str | None


LARGEST_OUTCOME = 64 * 1024
"""Bytes of `outcome_text`."""


def now() -> str:
    """RFC 3339, UTC, microseconds."""
    seconds, fraction = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction // 1000:06d}Z"


def accepted(
    task_id: str,
    *,
    owner: str,
    obligation_id: str | None = None,
    recipient: str | None = None,
    task_type: str | None = None,
    summary: str | None = None,
    body: Any = None,
    inputs: Any = None,
    parent_task_id: str | None = None,
    caused_by: str | None = None,
    deadline_at: str | None = None,
    dedupe_key: str | None = None,
    attempt: int | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Opens an obligation; without an `obligation_id` it is named like the task."""
    return _without_none(
        {
            "receipt_id": new_ulid(),
            "phase": "accepted",
            "task_id": task_id,
            "obligation_id": obligation_id or task_id,
            "principal_ai": owner,
            "recipient_ai": recipient,
            "task_type": task_type,
            "task_summary": summary,
            "task_body": body,
            "inputs": inputs,
            "parent_task_id": parent_task_id,
            "caused_by_receipt_id": caused_by,
            "dedupe_key": dedupe_key,
            "attempt": attempt,
            "created_at": now(),
            "metadata": None if deadline_at is None else {"deadline_at": deadline_at},
            **(fields or {}),
        }
    )


def complete(
    obligation: ObligationName,
    *,
    status: Status = "success",
    text: str | None = None,
    artifact: StoredArtifact | Mapping[str, Any] | None = None,
    reason: str | None = None,
    usage: Mapping[str, Any] | None = None,
    caused_by: str | None = None,
    started_at: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Closes an obligation. `reason` is a word for programs, kept in the metadata."""
    outcome = _outcome(text, None if artifact is None else artifact_fields(artifact))
    metadata = _without_none({"reason": reason, "usage": None if usage is None else dict(usage)})
    return _without_none(
        {
            "receipt_id": new_ulid(),
            "phase": "complete",
            **_names(obligation),
            "caused_by_receipt_id": caused_by or obligation.receipt_id or None,
            "status": status,
            **outcome,
            "started_at": started_at,
            "completed_at": now(),
            "metadata": metadata or None,
            **(fields or {}),
        }
    )


def escalate(
    obligation: ObligationName,
    to: str,
    reason: str,
    *,
    escalation_class: EscalationClass = "other",
    caused_by: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Gives the custody of an obligation to `to`."""
    return _without_none(
        {
            "receipt_id": new_ulid(),
            "phase": "escalate",
            **_names(obligation),
            "caused_by_receipt_id": caused_by or obligation.receipt_id or None,
            "escalation_class": escalation_class,
            "escalation_reason": reason,
            "escalation_to": to,
            **(fields or {}),
        }
    )


def artifact_fields(artifact: StoredArtifact | Mapping[str, Any]) -> dict[str, Any]:
    """The `artifact_*` fields of what DepotGate stored, or of a mapping that has them already."""
    pointer = getattr(artifact, "pointer", None)
    if pointer is None:
        return dict(artifact)  # type: ignore[arg-type]
    stored: Any = artifact
    return {
        "artifact_pointer": pointer,
        "artifact_location": stored.location,
        "artifact_mime": stored.media_type,
        "artifact_checksum": f"sha256:{stored.sha256}",
        "artifact_size_bytes": stored.size_bytes,
    }


def question_id(task_id: str, to: str, question: str) -> str:
    """The obligation of a question: the same for the same question of a task, so that asking twice opens one."""
    digest = hashlib.sha256(f"{to}\0{question}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{task_id}:ask:{digest[:16]}"


def _names(obligation: ObligationName) -> dict[str, str]:
    return {
        "task_id": obligation.task_id,
        "obligation_id": obligation.obligation_id,
        "principal_ai": obligation.principal_ai,
    }


def _outcome(text: str | None, artifact: dict[str, Any] | None) -> dict[str, Any]:
    if text is not None and len(text.encode("utf-8", "surrogatepass")) > LARGEST_OUTCOME:
        raise ValueError(f"the text of an outcome may have {LARGEST_OUTCOME} bytes; store it and name the artifact")
    if artifact is None:
        return {"outcome_kind": "response_text", "outcome_text": text} if text else {"outcome_kind": "none"}
    if text:
        return {"outcome_kind": "mixed", "outcome_text": text, **artifact}
    return {"outcome_kind": "artifact_pointer", **artifact}


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
