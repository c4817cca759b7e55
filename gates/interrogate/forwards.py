"""What became of the targets of a decision: rows, what settles them, and what is left over (IG-09)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple
from uuid import UUID

ForwardState = Literal["pending", "delivered", "failed"]


@dataclass(frozen=True, slots=True)
class ForwardRow:
    """A target of a decision and what became of it."""

    target: str
    state: ForwardState
    status: int | None = None
    reason: str | None = None
    answer: Any = None
    """What the target answered: JSON, or its text."""
    escalation_receipt_id: str | None = None
    """Of a failed one: the escalate receipt of its decision."""


@dataclass(frozen=True, slots=True)
class ForwardSettlement:
    """What became of targets of one decision, and the escalate receipt for those that failed."""

    tenant: UUID
    receipt_id: str
    results: tuple[ForwardRow, ...]
    escalation: str | None = None
    """Canonical; needed where a result is `failed`. It is not stored where the decision was escalated before."""


@dataclass(frozen=True, slots=True)
class SettledForwards:
    """The same targets as they are stored now: what was settled before stays as it was."""

    forwards: tuple[ForwardRow, ...]
    escalation_receipt_id: str | None
    refusal: str | None = None
    """Why the ledger refused the escalate receipt, which is a bug of this gate; the rows stay pending then."""


class StaleForward(NamedTuple):
    """A decision with targets that nobody settled in time."""

    tenant: UUID
    receipt_id: str
    targets: list[str]
    escalate_to: str
    stored_at: datetime
    body: str


class PendingForwards(NamedTuple):
    number: int
    """At most 10,000."""
    oldest: datetime | None


def forward_row(row: Any) -> ForwardRow:
    answer = row["answer"]
    return ForwardRow(
        row["target"], row["state"], row["status"], row["reason"],
        None if answer is None else json.loads(answer), row["escalation_receipt_id"],
    )  # fmt: skip


def settled_forwards(rows: Sequence[Any], settlement: ForwardSettlement) -> SettledForwards:
    """Of targets that have no row any more, what the caller says is answered."""
    forwards = tuple(
        forward_row({**dict(row), "target": result.target}) if row["state"] is not None else result
        for row, result in zip(rows, settlement.results, strict=True)
    )
    escalation = next((forward.escalation_receipt_id for forward in forwards if forward.escalation_receipt_id), None)
    return SettledForwards(forwards, escalation, next((row["detail"] for row in rows if row["detail"]), None))
