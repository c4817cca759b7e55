"""The database of AsyncGate: one statement for each verb, over a whole batch of requests.

Role `asyncgate_broker`, which executes the functions of `migrations/` and touches no table. Every method takes a
sequence and answers as many results, in the same order, so that it fits a `Batcher`; `lease` is meant for one statement
in flight (AG-17).
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from ulid import ULID

from asyncgate import receipt_forms as forms
from asyncgate.lease import (
    Claim,
    EndedTask,
    EscalationRequest,
    HeldLease,
    Lease,
    LeaseRequest,
    ReleasedTask,
    ReleaseRequest,
    Renewal,
    RenewRequest,
    Revocation,
    RevokeRequest,
)
from asyncgate.outcomes import EndOutcome, ParkOutcome, ReleaseOutcome, RenewOutcome, RevokeOutcome, VerbOutcome
from asyncgate.task import (
    EndView,
    LeaseView,
    ParkedTask,
    Parking,
    ParkingBatch,
    QueueDepth,
    Task,
    TaskPage,
    TaskRow,
    TaskView,
)
from legivellum.postgres.pool import Pool, PooledDatabase
from legivellum.receipts.phase_rules import ReceiptFinding

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class InvalidClaim(Exception):  # noqa: N818 - what the claim is
    """A claim or escalation that makes no valid receipt, which `receipt_forms` was not asked about before."""

    findings: tuple[ReceiptFinding, ...]


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


class _EndedLease(NamedTuple):
    """A row of `end_leases`. Receipt and time: of the end, or of the expiry that was found."""

    ordinal: int
    outcome: Any
    detail: str | None
    task_id: Any
    obligation_id: Any
    receipt_id: Any
    stored_at: Any
    available_at: datetime | None
    """None: the task is over."""


def _call(function: str, *types: str) -> str:
    """A call of a function of ours, its arguments by place."""
    arguments = ", ".join(f"${place}::{name}" for place, name in enumerate(types, 1))
    return f"SELECT * FROM asyncgate.{function}({arguments})"  # noqa: S608 - names and types of ours


# The driver encodes text faster than uuids; the server casts them.
_UUIDS = "text[]::uuid[]"
_TEXTS, _NUMBERS, _FLAGS, _TIMES, _DIGESTS = "text[]", "integer[]", "boolean[]", "timestamptz[]", "bytea[]"

_ENQUEUE = _call(
    "enqueue",
    *("text", _UUIDS, *[_TEXTS] * 9, _DIGESTS, _TIMES, *[_NUMBERS] * 5, _TEXTS, _NUMBERS, _NUMBERS, _TEXTS, _TEXTS),
    *(_NUMBERS, _TEXTS),
)
_LEASE = _call(
    "lease_tasks", "text", _UUIDS, _TEXTS, _NUMBERS, _NUMBERS, _TEXTS, _NUMBERS, _TEXTS, "text", "text", "text"
)
_RENEW = _call("renew", "text", _UUIDS, _TEXTS, _TEXTS, _NUMBERS, "text")
_END = _call(
    "end_leases",
    *("text", _UUIDS, _TEXTS, _TEXTS, "text", _TEXTS, _DIGESTS, _TEXTS, "interval[]", _TEXTS, "text", "text"),
)
_REVOKE = _call("revoke", "text", _UUIDS, _TEXTS, _FLAGS, _TEXTS, _TEXTS, *["text"] * 5)
_ADMISSIONS = _call("admission_receipts", _UUIDS, _TEXTS)
_REVOKE_MINTED = _call("revoke_minted", "text", "uuid", *["text"] * 5)

_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

LOOKED_AT = 10_000
"""Tasks that are looked at for a page of one state: a queue of a million must not cost its reader a million rows."""

_START: tuple[UUID, str] = (UUID(int=0), "")
"""Before every need."""


def _prefix() -> str:
    """The first 22 characters of the ids of one statement, which counts the last four (AG-17).

    The randomness is ours: within a millisecond the library counts up, so two of its ids differ only behind these.
    """
    return str(ULID())[:10] + "".join(secrets.choice(_BASE32) for _ in range(12))


def _columns(items: Sequence[Item], *columns: Callable[[Item], Any]) -> list[list[Any]]:
    return [[column(item) for item in items] for column in columns]


def _pairs(lists: Iterable[Iterable[str]]) -> tuple[list[int], list[str]]:
    """Values that belong to the items of a batch: the item's number, from 1, and the value."""
    pairs = [(place, value) for place, values in enumerate(lists, 1) for value in values]
    return [place for place, _ in pairs], [value for _, value in pairs]


def _valid(form: str | tuple[ReceiptFinding, ...]) -> str:
    if isinstance(form, str):
        return form
    raise InvalidClaim(form)


class AsyncGateDatabase(PooledDatabase):
    application_name = "asyncgate"

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._needs_mark = _START

    async def schema_version(self) -> int:
        return int(await self._pool.fetchval("SELECT schema_version FROM asyncgate.state()") or 0)

    async def enqueue(self, batches: Sequence[ParkingBatch]) -> list[list[VerbOutcome[ParkOutcome, ParkedTask]]]:
        """Park the tasks of each batch, or say why not. One list for each batch, one outcome for each of its tasks."""
        items = [(item, group) for group, batch in enumerate(batches, 1) for item in batch.items]
        all_or_none = [batch.all_or_none for batch in batches]
        rows = await self._pool.fetch(
            _ENQUEUE,
            _prefix(),
            *_parking_columns([item for item, _ in items]),
            [group if all_or_none[group - 1] else None for _, group in items],
            *_columns(items, lambda pair: forms.accepted_form(pair[0].task), lambda pair: forms.queued_form(pair[0])),
            *_pairs(item.task.needs for item, _ in items),
        )
        outcomes = iter(
            _park_outcome(row, item.task)
            for row, (item, _) in zip(sorted(rows, key=lambda row: row["ordinal"]), items, strict=True)
        )
        return [[next(outcomes) for _ in batch.items] for batch in batches]

    async def lease(self, requests: Sequence[LeaseRequest]) -> list[tuple[Lease, ...]]:
        """To each as many leases as it asks for and there are tasks, the oldest first; perhaps none."""
        rows = await self._pool.fetch(
            _LEASE,
            _prefix(),
            *_columns(
                requests,
                lambda request: str(request.tenant),
                lambda request: request.holder,
                lambda request: request.most,
                lambda request: request.ttl_seconds,
                lambda request: request.idempotency_key,
            ),
            *_pairs(request.capabilities for request in requests),
            forms.lease_issued(),
            forms.reassigned(),
            forms.expired(),
        )
        leases: list[list[Lease]] = [[] for _ in requests]
        for ordinal, *values in rows:
            leases[ordinal - 1].append(Lease(*_with_tuples(values)))
        return [tuple(issued) for issued in leases]

    async def renew(self, requests: Sequence[RenewRequest]) -> list[VerbOutcome[RenewOutcome, Renewal]]:
        columns = _columns(
            requests,
            lambda request: str(request.tenant),
            lambda request: request.lease_id,
            lambda request: request.holder,
            lambda request: request.ttl_seconds,
        )
        rows = await self._pool.fetch(_RENEW, _prefix(), *columns, forms.expired())
        return [
            VerbOutcome(outcome, Renewal(*values) if outcome == "RENEWED" else None, detail or "")
            for _, outcome, detail, *values in _in_order(rows)
        ]

    async def release(self, requests: Sequence[ReleaseRequest]) -> list[VerbOutcome[ReleaseOutcome, ReleasedTask]]:
        rows = await self._end("release", requests, lambda _: forms.released())
        return [
            VerbOutcome("RELEASED", ReleasedTask(row.task_id, row.available_at))
            if row.outcome == "ENDED"
            else VerbOutcome(row.outcome, detail=row.detail or "")
            for row in rows
        ]

    async def complete(self, claims: Sequence[Claim]) -> list[VerbOutcome[EndOutcome, EndedTask]]:
        """End the task of each lease with a `complete` receipt. Judge claims with `receipt_forms.claim_form` first."""
        return [_end_outcome(row) for row in await self._end("complete", claims, forms.claim_form)]

    async def escalate(self, requests: Sequence[EscalationRequest]) -> list[VerbOutcome[EndOutcome, EndedTask]]:
        """End the task of each lease with an `escalate` receipt."""
        return [_end_outcome(row) for row in await self._end("escalate", requests, forms.escalation_form)]

    async def _end(
        self, verb: str, items: Sequence[Any], form_of: Callable[[Any], str | tuple[ReceiptFinding, ...]]
    ) -> list[_EndedLease]:
        """Raises InvalidClaim for an item that makes no receipt."""
        columns = _columns(
            items,
            lambda item: str(item.tenant),
            lambda item: item.lease_id,
            lambda item: item.holder,
            lambda item: _valid(form_of(item)),
            lambda item: getattr(item, "digest", None),
            lambda item: getattr(item, "to", None),
            lambda item: timedelta(seconds=getattr(item, "again_after_seconds", 0)),
            lambda item: getattr(item, "reason", None),
        )
        prefix = _prefix()
        rows = await self._pool.fetch(_END, prefix, *columns[:3], verb, *columns[3:], forms.expired(), forms.poisoned())
        return _with_expiries([_EndedLease(*row) for row in _in_order(rows)], prefix)

    async def revoke(self, requests: Sequence[RevokeRequest]) -> list[VerbOutcome[RevokeOutcome, Revocation]]:
        """End tasks (also those that were minted and never parked) or only their leases."""
        columns = _columns(
            requests,
            lambda request: str(request.tenant),
            lambda request: request.task_id,
            lambda request: request.whole_task,
            lambda request: request.by,
            lambda request: request.reason,
        )
        rows = await self._pool.fetch(
            _REVOKE,
            _prefix(),
            *columns,
            forms.revoked("task"),
            forms.revoked("lease"),
            forms.canceled(),
            forms.expired(),
            forms.poisoned(),
        )
        return [
            await self._revoke_minted(request)
            if row["outcome"] == "NOT_PARKED"
            else _revoke_outcome(row["outcome"], row["detail"], request, lease_ended=row["lease_ended"])
            for row, request in zip(_in_order(rows), requests, strict=True)
        ]

    async def _revoke_minted(self, request: RevokeRequest) -> VerbOutcome[RevokeOutcome, Revocation]:
        if not request.whole_task:
            return VerbOutcome("TASK_NOT_FOUND")
        [(outcome, detail)] = await self._pool.fetch(
            _REVOKE_MINTED,
            _prefix(),
            request.tenant,
            request.task_id,
            request.by,
            request.reason,
            forms.revoked("task"),
            forms.canceled(),
        )
        return _revoke_outcome(outcome, detail, request, lease_ended=False)

    async def held_lease(self, tenant: UUID, holder: str, lease_id: str) -> HeldLease | None:
        """The lease if it is live and this holder's: to judge an escalation's target before the verb."""
        row = await self._pool.fetchrow("SELECT * FROM asyncgate.held_lease($1, $2, $3)", tenant, holder, lease_id)
        if row is None:
            return None
        return HeldLease(*_with_tuples(row))

    async def owner_of(self, tenant: UUID, task_id: str) -> TaskRow | None:
        """To judge who may revoke. None: AsyncGate neither holds nor held it, and has no custody of it."""
        row = await self._pool.fetchrow("SELECT * FROM asyncgate.owner_of($1, $2)", tenant, task_id)
        return None if row is None else TaskRow(*row)

    async def admissions(self, tenant: UUID, receipt_ids: Sequence[str]) -> list[str | None]:
        """The admissions that were stored in the last ten minutes; None where there is none of this id (AG-09)."""
        rows = await self._pool.fetch(_ADMISSIONS, [str(tenant)] * len(receipt_ids), list(receipt_ids))
        bodies = dict(rows)
        return [bodies.get(ordinal) for ordinal in range(1, len(receipt_ids) + 1)]

    async def task(self, tenant: UUID, task_id: str) -> TaskView | None:
        row = await self._pool.fetchrow("SELECT * FROM asyncgate.task_view($1, $2)", tenant, task_id)
        return None if row is None else _task_view(row)

    async def tasks(
        self, tenant: UUID, *, capability: str | None, state: str | None, after: str | None, limit: int
    ) -> TaskPage:
        """By task_id. Without a state: all that are not over; `ended`: the archive.

        Of another state a page may hold fewer than there are, or none, and go on: so many tasks are looked at for it.
        """
        looked_to: str | None = None
        if state in {None, "ended"}:
            query = "SELECT * FROM asyncgate.tasks($1, $2, $3, $4, $5)"
            rows = await self._pool.fetch(query, tenant, capability, state, after, limit + 1)
        else:
            query = "SELECT * FROM asyncgate.tasks_in_state($1, $2, $3, $4, $5, $6)"
            answer = await self._pool.fetch(query, tenant, capability, state, after, limit + 1, LOOKED_AT)
            looked_to = answer[0]["looked_to"] if answer else None
            rows = [row for row in answer if row["task_id"] is not None]
        items = tuple(map(_task_view, rows[:limit]))
        return TaskPage(items, items[-1].task_id if len(rows) > limit else looked_to)

    async def depth(self, tenant: UUID, capability: str | None = None) -> tuple[tuple[QueueDepth, ...], datetime]:
        """The mailboxes that are not empty, and the database's time."""
        query = (
            "SELECT now.at, d.* FROM (SELECT clock_timestamp() AS at) AS now "
            "LEFT JOIN asyncgate.depth($1, $2) AS d ON true"
        )
        rows = await self._pool.fetch(query, tenant, capability)
        return tuple(QueueDepth(*row[1:7]) for row in rows if row["capability"] is not None), rows[0]["at"]

    async def totals(self) -> QueueTotals:
        """For metrics."""
        [row] = await self._pool.fetch("SELECT * FROM asyncgate.totals()")
        return QueueTotals(*row)

    async def keep_books(
        self, *, archive_days: int, overdue: int = 500, needs: int = 10_000
    ) -> BookkeepingCounts | None:
        """One round of the pass (AG-13). None: another process is at it."""
        query = "SELECT * FROM asyncgate.expire_overdue($1, $2, $3, $4)"
        row = await self._pool.fetchrow(query, _prefix(), overdue, forms.expired(), forms.poisoned())
        if row is None:
            return None
        expired, escalated = row
        met = await self._meet_needs(needs)
        purged = await self._pool.fetchval("SELECT asyncgate.purge($1, $2)", archive_days, overdue)
        return BookkeepingCounts(expired, escalated, met, purged)

    async def _meet_needs(self, most: int) -> int:
        """The needs that follow the mark, which lies in memory: another process begins at the first."""
        row = await self._pool.fetchrow("SELECT * FROM asyncgate.meet_needs($1, $2, $3)", *self._needs_mark, most)
        if row is None:
            return 0
        met, *mark = row
        self._needs_mark = _START if mark[0] is None else (mark[0], mark[1])
        return int(met)


def _with_tuples(values: Iterable[Any]) -> list[Any]:
    return [tuple(value) if isinstance(value, list) else value for value in values]


def _in_order(rows: Sequence[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: row["ordinal"])


def _parking_columns(items: Sequence[Parking]) -> list[list[Any]]:
    return _columns(
        items,
        lambda item: str(item.task.tenant),
        lambda item: item.task.task_id,
        lambda item: item.task.obligation_id,
        lambda item: item.task.principal_ai,
        lambda item: item.task.capability,
        lambda item: item.minter,
        lambda item: item.task.parent_task_id,
        lambda item: item.task.authority,
        lambda item: json.dumps(item.task.escalation_to, ensure_ascii=False),
        lambda item: item.task.document,
        lambda item: item.task.digest,
        lambda item: item.task.not_before,
        lambda item: item.task.terms.ttl_seconds,
        lambda item: item.task.terms.max_ttl_seconds,
        lambda item: item.task.terms.max_renewals,
        lambda item: item.task.terms.max_lifetime_seconds,
        lambda item: item.task.max_leases,
        lambda item: item.admission and item.admission.receipt_id,
        lambda item: item.admission and item.admission.depth,
    )


def _park_outcome(row: Any, task: Task) -> VerbOutcome[ParkOutcome, ParkedTask]:
    if row["outcome"] not in {"PARKED", "REPLAYED"}:
        return VerbOutcome(row["outcome"], detail=row["detail"] or "")
    *_, accepted_by, accepted_at, available_at, waits_for = row
    parked = ParkedTask(task.task_id, task.obligation_id, accepted_by, accepted_at, available_at, tuple(waits_for))
    return VerbOutcome(row["outcome"], parked)


def _with_expiries(rows: list[_EndedLease], prefix: str) -> list[_EndedLease]:
    """`detail` of what came too late says whether this very statement wrote the expiry down: its ids are of its own."""
    ended = {row.receipt_id for row in rows if row.outcome == "ENDED"}
    return [
        row._replace(detail="ESCALATED" if row.available_at is None else "EXPIRED")
        if row.outcome == "LEASE_LOST"
        and row.stored_at is not None
        and (row.receipt_id or "").startswith(prefix)
        and row.receipt_id not in ended
        else row
        for row in rows
    ]


def _end_outcome(row: _EndedLease) -> VerbOutcome[EndOutcome, EndedTask]:
    _, outcome, detail, *ended, _ = row
    return VerbOutcome(outcome, EndedTask(*ended) if outcome in {"ENDED", "REPLAYED"} else None, detail or "")


def _revoke_outcome(
    outcome: RevokeOutcome, detail: str | None, request: RevokeRequest, *, lease_ended: bool
) -> VerbOutcome[RevokeOutcome, Revocation]:
    done = outcome in {"REVOKED", "REPLAYED"}
    return VerbOutcome(outcome, Revocation(request.task_id, lease_ended) if done else None, detail or "")


def _task_view(row: Any) -> TaskView:
    lease = None if row["holder"] is None else LeaseView(row["holder"], row["number"], row["expires_at"])
    ended = None if row["how"] is None else EndView(row["how"], row["ended_at"], row["ended_by"])
    return TaskView(*_with_tuples([*row[:10], lease, ended]))
