"""The database of InterroGate: observe and record, each one statement for a whole batch (IG-01).

Role `interrogate_writer`, which executes the functions of `migrations/` and touches no table. Every expected outcome is
a value (`RecordOutcome`), never an exception: many requests share one statement and one commit, and one of them must
never spoil the others.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar
from uuid import UUID

from interrogate.asked_task import AskedTask, TaskReceipt
from interrogate.call_table import CallTable
from interrogate.calls import DecidedCall
from interrogate.decision import AdmittedTask
from interrogate.forwards import (
    ForwardRow,
    ForwardSettlement,
    PendingForwards,
    SettledForwards,
    StaleForward,
    forward_row,
    settled_forwards,
)
from interrogate.observation import ObservationRequest, Observed, ObservedLease, ParentTask
from legivellum.postgres.pool import Pool, PooledDatabase, Transaction

Item = TypeVar("Item")

RecordOutcome = Literal["STORED", "REPLAYED", "MOVED", "POLICY_BEHIND", "KEY_CONFLICT", "REFUSED"]
"""STORED: now. REPLAYED: it was decided before, see `stored`. MOVED: a mark changed, nothing is stored: ask
again. POLICY_BEHIND: a newer revision was used already (IG-06). KEY_CONFLICT: the key belongs to another envelope.
REFUSED: the ledger refused the receipt, which is a bug of this gate."""


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision that is in the ledger: what a replay answers."""

    receipt_id: str
    stored_at: datetime
    body: str
    """The canonical receipt."""


@dataclass(frozen=True, slots=True)
class ObservedRequest:
    """The answer to a question. `replay`: this request was decided before; `conflict`: its key is another request's."""

    observed: Observed
    replay: StoredDecision | None = None
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """A decision to store, with the marks under which it was made."""

    request: ObservationRequest
    observed: Observed
    body: str
    """The canonical admission receipt (`legivellum.receipts.receipt.examine`)."""
    policy_hash: str | None
    policy_revision: int
    """Of the policy. Without a policy: of the listing in which it is missing, so that its removal counts as newer."""
    ruleset: str | None
    """The canonical ruleset; stored with the first decision under its hash, so that replay needs no MetaGate."""
    admitted: AdmittedTask | None
    """None: DENY, or a request outside of every tree (a lease, query or tool call without causality)."""
    rate_tats: tuple[int, ...] | None
    spawns_under_lease: bool
    forwards: tuple[str, ...]
    """Targets to be called after the commit: `pending` rows."""
    escalate_to: str | None = None
    """Who is told of a forward that failed; None: the caller."""
    call: DecidedCall | None = None
    """Of a tool call: its row."""


@dataclass(frozen=True, slots=True)
class Recorded:
    outcome: RecordOutcome
    stored: StoredDecision | None
    """Of STORED and REPLAYED."""
    detail: str = ""


class PurgeCounts(NamedTuple):
    requests: int
    forwards: int
    rates: int


def recent_column(recent: tuple[str, ...]) -> str:
    """How `admitted.recent` is written: one spelling, so that rows can be compared."""
    return json.dumps(recent, ensure_ascii=False, separators=(",", ":"))


def _columns(items: Sequence[Item], *columns: Callable[[Item], Any]) -> list[list[Any]]:
    return [[column(item) for item in items] for column in columns]


def _flattened(rows: Iterable[tuple[Any, ...]], width: int) -> list[list[Any]]:
    """Columns of the rows that belong to the items of a batch; the first column is the item's number, from 1."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(width)]


def _placeholders(types: Sequence[str]) -> str:
    return ", ".join(f"${place}::{name}" for place, name in enumerate(types, 1))


# The driver encodes text faster than uuids; the server casts them.
_UUIDS = "text[]::uuid[]"
_TEXTS, _NUMBERS, _BIG_NUMBERS, _FLAGS = "text[]", "integer[]", "bigint[]", "boolean[]"

_OBSERVE = (
    "SELECT * FROM interrogate.observe("  # noqa: S608 - types of ours
    + _placeholders([_UUIDS, _TEXTS, _TEXTS, "bytea[]", *[_TEXTS] * 8, _NUMBERS, _TEXTS])
    + ")"
)
_OBSERVE_LOCKED = (
    "SELECT * FROM interrogate.observe_locked("  # noqa: S608 - types of ours
    + _placeholders([_UUIDS, _TEXTS, _TEXTS, "bytea[]", *[_TEXTS] * 8, _NUMBERS, _TEXTS, _BIG_NUMBERS])
    + ")"
)
_RECORD_TYPES = (
    *(_UUIDS, _TEXTS, _TEXTS, "bytea[]", _TEXTS, _TEXTS, _TEXTS, _TEXTS, _TEXTS),
    *(_BIG_NUMBERS, _TEXTS, _FLAGS, _NUMBERS, _BIG_NUMBERS, _BIG_NUMBERS, _TEXTS, _TEXTS, _TEXTS),
    *(_FLAGS, _FLAGS, _TEXTS, _TEXTS, _NUMBERS, _BIG_NUMBERS, _TEXTS, _TEXTS, _FLAGS),
    *(_NUMBERS, _TEXTS, _BIG_NUMBERS, _BIG_NUMBERS, _NUMBERS, _TEXTS, _TEXTS),
)
_CALL_TYPES = (_NUMBERS, *[_TEXTS] * 5, _NUMBERS, _TEXTS, _NUMBERS)
_RECORD = f"SELECT * FROM interrogate.record({_placeholders(_RECORD_TYPES)})"  # noqa: S608 - types of ours
_RECORD_CALLS = f"SELECT * FROM interrogate.record_calls({_placeholders((*_RECORD_TYPES, *_CALL_TYPES))})"  # noqa: S608 - types of ours
_SETTLE = (
    "SELECT * FROM interrogate.settle_forwards("  # noqa: S608 - types of ours
    + _placeholders([_UUIDS, *[_TEXTS] * 3, _NUMBERS, *[_TEXTS] * 4])
    + ") ORDER BY ordinal"
)
_REQUEST_COLUMNS: tuple[Callable[[ObservationRequest], Any], ...] = (
    lambda request: str(request.tenant),
    lambda request: request.principal_key,
    lambda request: request.receipt_id,
    lambda request: request.digest,
    lambda request: request.idempotency_key,
    lambda request: request.profile,
)


def _observation_columns(requests: Sequence[ObservationRequest]) -> list[list[Any]]:
    columns = _columns(
        requests,
        *_REQUEST_COLUMNS,
        lambda request: request.root_task_id,
        lambda request: request.task_id,
        lambda request: request.parent_task_id,
        lambda request: request.capability_id,
        lambda request: request.caused_by_receipt_id,
        lambda request: request.lease_id,
    )
    rates = [(place, key) for place, request in enumerate(requests, 1) for key in request.rate_keys]
    return [*columns, *_flattened(rates, 2)]


def _observed_requests(rows: Iterable[Any], requests: Sequence[ObservationRequest]) -> list[ObservedRequest]:
    answers: list[ObservedRequest | None] = [None] * len(requests)
    for row in rows:
        place = row["ordinal"] - 1
        answers[place] = _observed_request(row, requests[place].lease_id)
    return [answer for answer in answers if answer is not None]


def _record_statement(records: Sequence[Record], stored_rulesets: AbstractSet[str]) -> tuple[str, list[list[Any]]]:
    """The statement that stores a batch, with its columns. Rows of tool calls cost only a batch that has one."""
    columns = _record_columns(records, stored_rulesets)
    calls = [(place, *record.call) for place, record in enumerate(records, 1) if record.call is not None]
    if not calls:
        return _RECORD, columns
    return _RECORD_CALLS, [*columns, *_flattened(calls, len(_CALL_TYPES))]


def _record_columns(records: Sequence[Record], stored_rulesets: AbstractSet[str]) -> list[list[Any]]:
    requests, admitted = [record.request for record in records], [record.admitted for record in records]
    rates = [
        (place, key, mark, None if record.rate_tats is None else record.rate_tats[number])
        for place, record in enumerate(records, 1)
        for number, (key, mark) in enumerate(zip(record.request.rate_keys, record.observed.rate_tats, strict=True))
    ]
    forwards = [
        (place, target, record.escalate_to or record.request.principal_key)
        for place, record in enumerate(records, 1)
        for target in record.forwards
    ]
    return [
        *_columns(requests, *_REQUEST_COLUMNS),
        *_marks(records, stored_rulesets),
        *_columns(
            admitted,
            lambda task: task is not None,
            lambda task: task is not None and task.begins,
            lambda task: task and task.root_task_id,
            lambda task: task and task.parent_task_id,
            lambda task: task and task.depth,
            lambda task: task and task.budget,
            lambda task: task and task.capability_id,
            lambda task: task and recent_column(task.recent),
        ),
        [record.spawns_under_lease for record in records],
        *_flattened(rates, 4),
        *_flattened(forwards, 3),
    ]


def _marks(records: Sequence[Record], stored_rulesets: AbstractSet[str]) -> list[list[Any]]:
    return _columns(
        records,
        _root_of,
        lambda record: record.request.task_id,
        lambda record: record.request.lease_id,
        lambda record: record.observed.version,
        lambda record: record.observed.task_root_id,
        lambda record: record.observed.task_admitted,
        lambda record: record.observed.lease and record.observed.lease.spawned,
        lambda record: record.policy_revision,
        lambda record: record.observed.policy_revision,
        lambda record: record.policy_hash,
        # A policy is sent until it is stored: with thousands of decisions under it, it is not sent with each.
        lambda record: None if record.policy_hash in stored_rulesets else record.ruleset,
        lambda record: record.body,
    )


def _recorded(rows: Iterable[Any], records: Sequence[Record]) -> list[Recorded]:
    answers: list[Recorded | None] = [None] * len(records)
    for ordinal, outcome, receipt_id, stored_at, body, detail in rows:
        stored = None
        if outcome in {"STORED", "REPLAYED"}:
            stored = StoredDecision(receipt_id, stored_at, records[ordinal - 1].body if body is None else body)
        answers[ordinal - 1] = Recorded(outcome, stored, detail or "")
    return [answer for answer in answers if answer is not None]


def _rulesets_of(records: Sequence[Record], recorded: Sequence[Recorded]) -> set[str]:
    """The policies that are stored now."""
    return {
        record.policy_hash
        for record, answer in zip(records, recorded, strict=True)
        if answer.outcome == "STORED" and record.policy_hash is not None
    }


class LockedAdmissions:
    """Observe, then record, once each: what is observed stays true until the transaction ends."""

    def __init__(self, transaction: Transaction, stored_rulesets: AbstractSet[str]) -> None:
        self._transaction = transaction
        self._stored_rulesets = stored_rulesets
        self.rulesets: set[str] = set()
        """Stored by this transaction."""

    async def observe(self, requests: Sequence[ObservationRequest], revisions: Sequence[int]) -> list[ObservedRequest]:
        """As the database's; empty where others keep the locks. `revisions`: of the policies that will decide.

        A request that names a parent names its root too: the lock of a root that the parent is looked up for would be
        taken too late.
        """
        rows = await self._transaction.fetch(_OBSERVE_LOCKED, *_observation_columns(requests), list(revisions))
        return _observed_requests(rows, requests)

    async def record(self, records: Sequence[Record]) -> list[Recorded]:
        statement, columns = _record_statement(records, self._stored_rulesets)
        rows = await self._transaction.fetch(statement, *columns)
        recorded = _recorded(rows, records)
        self.rulesets |= _rulesets_of(records, recorded)
        return recorded


class InterrogateDatabase(PooledDatabase):
    application_name = "interrogate"

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.calls = CallTable(pool)
        self._stored_rulesets: set[str] = set()

    async def schema_version(self) -> int:
        return int(await self._pool.fetchval("SELECT schema_version FROM interrogate.state()") or 0)

    async def observe(self, requests: Sequence[ObservationRequest]) -> list[ObservedRequest]:
        """What the decision on each may look at, all at one moment, in their order."""
        return _observed_requests(await self._pool.fetch(_OBSERVE, *_observation_columns(requests)), requests)

    async def record(self, records: Sequence[Record]) -> list[Recorded]:
        """Store each with its receipt and its counters in one commit, or say why not. One answer for each, in order."""
        statement, columns = _record_statement(records, self._stored_rulesets)
        recorded = _recorded(await self._pool.fetch(statement, *columns), records)
        self._stored_rulesets |= _rulesets_of(records, recorded)
        return recorded

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[LockedAdmissions]:
        """Observe and record in one transaction that holds the locks in between, committed where the block ends."""
        async with self._pool.transaction() as transaction:
            admissions = LockedAdmissions(transaction, self._stored_rulesets)
            yield admissions
        # Only now they are stored: after a rollback they must be sent again.
        self._stored_rulesets |= admissions.rulesets

    async def forwards(self, tenant: UUID, receipt_id: str) -> list[ForwardRow]:
        """The targets of a decision, by name. None: nothing was to be forwarded, or it was purged."""
        rows = await self._pool.fetch("SELECT * FROM interrogate.forwards($1, $2)", [tenant], [receipt_id])
        return [forward_row(row) for row in rows]

    async def settle_forwards(self, settlements: Sequence[ForwardSettlement]) -> list[SettledForwards]:
        """Keep what became of targets, with one escalate receipt for each decision of which a target failed.

        Harmless when it is repeated: what was settled before stays, and is answered.
        """
        results = [(settlement, result) for settlement in settlements for result in settlement.results]
        columns = _columns(
            results,
            lambda pair: str(pair[0].tenant),
            lambda pair: pair[0].receipt_id,
            lambda pair: pair[1].target,
            lambda pair: pair[1].state,
            lambda pair: pair[1].status,
            lambda pair: pair[1].reason,
            lambda pair: None if pair[1].answer is None else json.dumps(pair[1].answer, ensure_ascii=False),
            lambda pair: pair[0].escalation and json.loads(pair[0].escalation)["receipt_id"],
            lambda pair: pair[0].escalation,
        )
        rows = iter(await self._pool.fetch(_SETTLE, *columns))
        return [settled_forwards([next(rows) for _ in settlement.results], settlement) for settlement in settlements]

    async def stale_forwards(self, seconds: float, limit: int = 100) -> list[StaleForward]:
        """Decisions with targets that have been pending for so long: their process died."""
        query = "SELECT * FROM interrogate.stale_forwards(make_interval(secs => $1), $2)"
        return [StaleForward(*row) for row in await self._pool.fetch(query, float(seconds), limit)]

    async def pending_forwards(self, tenant: UUID | None = None) -> PendingForwards:
        """Of one tenant, or of all."""
        (row,) = await self._pool.fetch("SELECT * FROM interrogate.pending_forwards($1)", tenant)
        return PendingForwards(*row)

    async def interview(self, tenant: UUID) -> tuple[datetime, PendingForwards]:
        """What waits in a tenant, and the database's time."""
        (row,) = await self._pool.fetch(
            "SELECT clock_timestamp(), p.pending, p.oldest FROM interrogate.pending_forwards($1) AS p", tenant
        )
        as_of, *pending = row
        return as_of, PendingForwards(*pending)

    async def purge(self, limit: int = 1_000) -> PurgeCounts:
        """Forget idempotency keys after 24 hours, settled forwards after 72, rates that are full again."""
        (row,) = await self._pool.fetch("SELECT * FROM interrogate.purge($1)", limit)
        return PurgeCounts(*row)

    async def decision(self, tenant: UUID, receipt_id: str) -> StoredDecision | None:
        """The decision of that receipt; None where it is another receipt, or none of this tenant."""
        row = await self._pool.fetchrow("SELECT * FROM interrogate.decision($1, $2)", tenant, receipt_id)
        return None if row is None else StoredDecision(*row)

    async def asked_task(
        self, tenant: UUID, *, task_id: str | None = None, receipt_id: str | None = None
    ) -> AskedTask | None:
        """By its task, or by the receipt of its admission; None where this gate admitted no such task here."""
        row = await self._pool.fetchrow("SELECT * FROM interrogate.asked_task($1, $2, $3)", tenant, task_id, receipt_id)
        return None if row is None else AskedTask.from_row(row)

    async def task_receipts(self, tenant: UUID, task_id: str, limit: int) -> list[TaskReceipt]:
        """Oldest first."""
        rows = await self._pool.fetch("SELECT * FROM interrogate.task_receipts($1, $2, $3)", tenant, task_id, limit)
        return [TaskReceipt(row["receipt_id"], row["stored_at"], json.loads(row["body"])) for row in rows]

    async def closed_tasks(self, tasks: Sequence[tuple[UUID, str]]) -> list[tuple[UUID, str]]:
        """Those of the tasks that are over."""
        query = "SELECT ordinal FROM interrogate.closed_tasks($1, $2)"
        rows = await self._pool.fetch(query, [tenant for tenant, _ in tasks], [task_id for _, task_id in tasks])
        return [tasks[row["ordinal"] - 1] for row in rows]

    async def cancel_handle(self, tenant: UUID, receipt_id: str) -> None:
        """End the handle of a task. Harmless when it is repeated."""
        await self._pool.fetch("SELECT interrogate.cancel_handle($1, $2)", tenant, receipt_id)

    async def purge_handles(self, limit: int = 1_000) -> None:
        """Forget canceled handles after 72 hours."""
        await self._pool.fetch("SELECT interrogate.purge_handles($1)", limit)

    async def ruleset(self, policy_hash: str) -> str | None:
        """The policy under which something was decided, as it was then."""
        body: str | None = await self._pool.fetchval("SELECT interrogate.ruleset($1)", policy_hash)
        return body


def _root_of(record: Record) -> str | None:
    """The root whose version was observed: the claimed one, else that of the parent."""
    if record.request.root_task_id is not None:
        return record.request.root_task_id
    return None if record.observed.parent is None else record.observed.parent.root_task_id


def _observed_request(row: Any, lease_id: str | None) -> ObservedRequest:
    replay = None
    if row["replay_id"] is not None:
        replay = StoredDecision(row["replay_id"], row["replay_at"], row["replay_body"])
    observed = Observed(
        at=row["at"],
        version=row["version"],
        descendants=row["descendants"],
        repeats=row["repeats"],
        parent=_parent(row),
        cause_task_id=row["cause_task"],
        task_root_id=row["task_root"],
        task_admitted=row["task_admitted"],
        rate_tats=tuple(row["rate_tats"]),
        lease=_lease(row, lease_id),
        policy_revision=row["policy_revision"],
    )
    return ObservedRequest(observed, replay, row["conflict"])


def _parent(row: Any) -> ParentTask | None:
    if row["parent_root"] is None:
        return None
    return ParentTask(
        root_task_id=row["parent_root"],
        depth=row["parent_depth"],
        budget=row["parent_budget"],
        recent=tuple(json.loads(row["parent_recent"])),
        admitted_by=row["parent_receipt"],
        custodian=row["parent_custodian"],
        open=row["parent_open"],
    )


def _lease(row: Any, lease_id: str | None) -> ObservedLease | None:
    if row["lease_task"] is None or lease_id is None:
        return None
    return ObservedLease(
        lease_id=lease_id,
        task_id=row["lease_task"],
        principal_ai=row["lease_principal"],
        number=row["lease_number"],
        authority=json.loads(row["lease_authority"] or "{}"),
        spawned=row["lease_spawned"],
    )
