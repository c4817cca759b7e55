"""The database of AsyncGate: one statement for each verb, over a whole batch of requests.

Role `asyncgate_broker`, which executes the functions of `migrations/` and touches no table. Every method takes a
sequence and answers as many results, in the same order, so that it fits a `Batcher`; `lease` is meant for one statement
in flight (AG-17).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from asyncgate.lease import (
    Claim,
    EndedTask,
    EscalationRequest,
    HeldLease,
    Lease,
    LeaseRequest,
    Release,
    ReleaseRequest,
    Renewal,
    RenewRequest,
    Revocation,
    RevokeRequest,
)
from asyncgate.outcomes import EndOutcome, Outcome, ParkOutcome, ReleaseOutcome, RenewOutcome, RevokeOutcome
from asyncgate.task import ParkedTask, ParkingBatch, QueueDepth, TaskPage, TaskRow, TaskView
from legivellum.postgres.pool import PooledDatabase


@dataclass(frozen=True, slots=True)
class InvalidClaim(Exception):  # noqa: N818 - what the claim is
    """A claim or escalation that makes no valid receipt: `findings` say why (422 INVALID_RECEIPT)."""

    findings: tuple[str, ...]


class BookkeepingCounts(NamedTuple):
    """What one round of the pass did."""

    expired: int
    escalated: int
    needs_met: int
    purged: int


class QueueTotals(NamedTuple):
    """Over all tenants; numbers up to 10,000."""

    waiting: int
    oldest_available_at: datetime | None
    leased: int
    as_of: datetime


class AsyncGateDatabase(PooledDatabase):
    application_name = "asyncgate"

    async def schema_version(self) -> int:
        raise NotImplementedError

    async def enqueue(self, batches: Sequence[ParkingBatch]) -> list[list[Outcome[ParkOutcome, ParkedTask]]]:
        """Park the tasks of each batch, or say why not. One list for each batch, one outcome for each of its tasks."""
        raise NotImplementedError

    async def lease(self, requests: Sequence[LeaseRequest]) -> list[tuple[Lease, ...]]:
        """To each as many leases as it asks for and there are tasks, the oldest first; perhaps none."""
        raise NotImplementedError

    async def renew(self, requests: Sequence[RenewRequest]) -> list[Outcome[RenewOutcome, Renewal]]:
        raise NotImplementedError

    async def release(self, requests: Sequence[ReleaseRequest]) -> list[Outcome[ReleaseOutcome, Release]]:
        raise NotImplementedError

    async def complete(self, claims: Sequence[Claim]) -> list[Outcome[EndOutcome, EndedTask]]:
        """End the task of each lease with a `complete` receipt. Judge claims with `receipt_forms.claim_form` first."""
        raise NotImplementedError

    async def escalate(self, requests: Sequence[EscalationRequest]) -> list[Outcome[EndOutcome, EndedTask]]:
        """End the task of each lease with an `escalate` receipt."""
        raise NotImplementedError

    async def revoke(self, requests: Sequence[RevokeRequest]) -> list[Outcome[RevokeOutcome, Revocation]]:
        """End tasks (also those that were minted and never parked) or only their leases."""
        raise NotImplementedError

    async def held_lease(self, tenant: UUID, holder: str, lease_id: str) -> HeldLease | None:
        """The lease if it is live and this holder's: to judge an escalation's target before the verb."""
        raise NotImplementedError

    async def owner_of(self, tenant: UUID, task_id: str) -> TaskRow | None:
        """To judge who may revoke. None: AsyncGate neither holds nor held it, and has no custody of it."""
        raise NotImplementedError

    async def task(self, tenant: UUID, task_id: str) -> TaskView | None:
        raise NotImplementedError

    async def tasks(
        self, tenant: UUID, *, capability: str | None, state: str | None, after: str | None, limit: int
    ) -> TaskPage:
        """By task_id. Without a state: all that are not over; `ended`: the archive."""
        raise NotImplementedError

    async def depth(self, tenant: UUID, capability: str | None = None) -> tuple[tuple[QueueDepth, ...], datetime]:
        """The mailboxes that are not empty, and the database's time."""
        raise NotImplementedError

    async def totals(self) -> QueueTotals:
        """For metrics."""
        raise NotImplementedError

    async def keep_books(
        self, *, archive_days: int, overdue: int = 500, needs: int = 10_000
    ) -> BookkeepingCounts | None:
        """One round of the pass (AG-13). None: another process is at it."""
        raise NotImplementedError
