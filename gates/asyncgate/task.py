"""A task as it is parked (docs/asyncgate/api.md). Pure.

AsyncGate holds a task until a lease on it ended: it keeps where the work lies and never the work itself (INV-064).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

EMITTER: Final = "svc:asyncgate"
"""Under this name AsyncGate has custody of a task and emits receipts (D-59)."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How long a lease on a task may last: the gate's caps, lowered by the task (AG-05)."""

    ttl_seconds: int
    """Of a lease whose worker asks for no time."""
    max_ttl_seconds: int
    """A worker that asks for more gets this."""
    max_renewals: int
    max_lifetime_seconds: int
    """From the issue of a lease to the latest moment to which it can be renewed."""


@dataclass(frozen=True, slots=True)
class Task:
    """Complete: what the request left out is filled in."""

    tenant: UUID
    task_id: str
    obligation_id: str
    """The task's id where the request names none."""
    principal_ai: str
    capability: str
    not_before: datetime | None
    parent_task_id: str | None
    task_type: str | None
    task_summary: str | None
    authority: str | None
    """Canonical JSON of the Authority; None: the holder of a lease may do nothing but the task (INV-124)."""
    needs: tuple[str, ...]
    """Obligations that have to be closed before the task can be leased; each once, none of them its own."""
    terms: LeaseTerms
    max_leases: int
    """After so many leases the task is escalated instead of leased again (AG-11)."""
    escalation_to: tuple[str, ...]
    """To whom a worker may escalate. Empty: to nobody; AsyncGate itself then escalates to `principal_ai`."""
    document: str
    """Canonical JSON of the task as the wire shows it: in the acknowledging receipt, in leases, in `GET /tasks`."""
    digest: bytes
    """SHA-256 of what was sent, in canonical form: the same task again is a replay."""


@dataclass(frozen=True, slots=True)
class TaskAdmission:
    """The receipt of InterroGate that admits a task (AG-09), already verified but for having been used."""

    receipt_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Parking:
    """A task that somebody asks AsyncGate to hold."""

    task: Task
    minter: str
    """Who asks: besides the task's principal it may revoke the task."""
    admission: TaskAdmission | None = None


@dataclass(frozen=True, slots=True)
class ParkingBatch:
    """The tasks of one request."""

    items: tuple[Parking, ...]
    all_or_none: bool = False


@dataclass(frozen=True, slots=True)
class ParkedTask:
    """A task that is held, or was: what a replay answers too."""

    task_id: str
    obligation_id: str
    accepted_receipt_id: str
    accepted_at: datetime
    available_at: datetime | None
    """None while it has open needs, and when it has ended."""
    waits_for: tuple[str, ...]
    """The obligations it waits for."""


@dataclass(frozen=True, slots=True)
class LeaseView:
    holder: str
    number: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class EndView:
    how: str
    """`returned`, `escalated` or `revoked`: never with which outcome (INV-075)."""
    at: datetime
    receipt_id: str


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as anybody of its tenant sees it."""

    task_id: str
    obligation_id: str
    principal_ai: str
    capability: str
    state: str
    """`waiting`, `held_back`, `leased` or `ended`."""
    document: str | None
    """None: the task has ended, and only its ids are kept."""
    accepted_receipt_id: str
    accepted_at: datetime
    available_at: datetime | None
    waits_for: tuple[str, ...]
    lease: LeaseView | None
    ended: EndView | None


@dataclass(frozen=True, slots=True)
class TaskPage:
    """`next_after`: the task_id after which the next page begins; None: there is none."""

    items: tuple[TaskView, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """How much lies in one mailbox. Each number counts up to 10,000."""

    capability: str
    waiting: int
    held_back: int
    leased: int
    oldest_available_at: datetime | None
    capped: bool


@dataclass(frozen=True, slots=True)
class TaskRow:
    """What a right is judged by before a verb: who a task belongs to."""

    task_id: str
    obligation_id: str
    principal_ai: str
    minter: str | None
    parked: bool
    """False: it was minted for AsyncGate and never parked (AG-10)."""
    ended: str | None
    """How it ended; None: it has not."""
