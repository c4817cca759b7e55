"""What becomes of each item of a statement: values, never exceptions, for many requests share one commit (D-58)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Value = TypeVar("Value")
Name = TypeVar("Name", bound=str)

ParkOutcome = Literal[
    "PARKED", "REPLAYED",
    "TASK_CONFLICT", "TASK_MISMATCH", "EMITTER_MISMATCH", "NOT_CUSTODIAN", "OBLIGATION_NOT_ACCEPTED",
    "OBLIGATION_ALREADY_TERMINATED", "ADMISSION_USED", "TOO_MANY_WAIT", "GROUP_REFUSED", "REFUSED",
]  # fmt: skip
"""REPLAYED: parked before, perhaps ended meanwhile. OBLIGATION_NOT_ACCEPTED: the task's own, or a need of it, which
`detail` names. GROUP_REFUSED: nothing is wrong with this task, but with another of its batch."""

RenewOutcome = Literal["RENEWED", "LEASE_LOST", "LEASE_EXHAUSTED", "REFUSED"]

ReleaseOutcome = Literal["RELEASED", "LEASE_LOST", "REFUSED"]

EndOutcome = Literal["ENDED", "REPLAYED", "LEASE_LOST", "ESCALATION_NOT_PERMITTED", "REFUSED"]

RevokeOutcome = Literal["REVOKED", "REPLAYED", "TASK_NOT_FOUND", "TASK_ENDED", "REFUSED"]


@dataclass(frozen=True, slots=True)
class VerbOutcome(Generic[Name, Value]):
    """`value` is there where something was done, now or before.

    REFUSED: the ledger refused a receipt, as `detail` says. Nothing of the item happened; it is a bug of this gate.
    LEASE_LOST, and REVOKED of a lease: `detail` is EXPIRED where this call was the first to see and wrote the expiry
    down, ESCALATED where that ended the task too (AG-11).
    """

    name: Name
    value: Value | None = None
    detail: str = ""
