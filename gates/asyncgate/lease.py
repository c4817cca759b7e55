"""Leases: who works on a task, until when, and what its holder may ask of AsyncGate. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A worker asks for tasks of some mailboxes."""

    tenant: UUID
    holder: str
    capabilities: tuple[str, ...]
    most: int = 1
    ttl_seconds: int | None = None
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """A task in somebody's hands until `expires_at`."""

    lease_id: str
    number: int
    """Counts the leases of this task: a fence for stores that the worker writes to."""
    issued_at: datetime
    expires_at: datetime
    expires_in_ms: int
    """As the database's clock saw it: a worker whose clock is wrong counts down from here."""
    latest_expiry: datetime
    renewals_left: int
    evidence: tuple[str, ...]
    """The receipts that met the needs of the task."""
    root_task_id: str
    depth: int
    task_id: str
    obligation_id: str
    principal_ai: str
    task: str
    """`Task.document`."""
    took_over: bool = False
    """The lease before this was over its time, and issuing this one wrote its expiry down (AG-12)."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A live lease, as its holder may see it before a verb."""

    task_id: str
    obligation_id: str
    principal_ai: str
    number: int
    expires_at: datetime
    escalation_to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RenewRequest:
    tenant: UUID
    holder: str
    lease_id: str
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    expires_at: datetime
    expires_in_ms: int
    renewals_left: int


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    tenant: UUID
    holder: str
    lease_id: str
    reason: str | None = None
    again_after_seconds: float = 0


@dataclass(frozen=True, slots=True)
class ReleasedTask:
    task_id: str
    available_at: datetime | None
    """None: it was the last lease that the task may have, so it is escalated (AG-11)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker says when it returns a task. AsyncGate relays it and believes nothing (D-26)."""

    tenant: UUID
    holder: str
    lease_id: str
    fields: Mapping[str, Any]
    """`status`, `outcome_kind` and what else a `complete` receipt takes; `body` and `metadata` are the worker's."""
    digest: bytes
    """SHA-256 of the claim as sent, in canonical form: the same claim again is a replay."""
    form: str | None = None
    """`receipt_forms.claim_form` of it, where the claim was judged already."""


@dataclass(frozen=True, slots=True)
class EscalationRequest:
    tenant: UUID
    holder: str
    lease_id: str
    escalation_class: str
    reason: str
    to: str
    """One of the task's `escalation_to`."""
    digest: bytes


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that is over, and the receipt that says so."""

    task_id: str
    obligation_id: str
    receipt_id: str
    stored_at: datetime


@dataclass(frozen=True, slots=True)
class RevokeRequest:
    """Whether the caller may has been judged (AG-01)."""

    tenant: UUID
    task_id: str
    by: str
    whole_task: bool = True
    """False: only its lease."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Revocation:
    task_id: str
    lease_ended: bool
