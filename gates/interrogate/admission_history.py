"""The decisions in the ledger, one after the other, and what follows from those before each (INV-050).

`replay` decides each again on it, `verify` compares the counters with it. A receipt and the counters it changes are one
commit, and all decisions on a root were stored under its lock: so the order of `stored_at` within a tenant is the order
in which they saw each other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import asyncpg

from interrogate.admission_receipt import EMITTER, RecordedAdmission, read_admission
from interrogate.call_receipt import RecordedOutcome, read_outcome
from interrogate.calls import DecidedCall, EndedCall, decided_call, ended_call
from interrogate.database import recent_column
from interrogate.decision import AdmittedTask
from interrogate.observation import Observed, ParentTask, leased_parent

_OUTCOME_PHASES = frozenset({"complete", "escalate"})
_DECISIONS = """
SELECT tenant::text AS tenant, receipt_id, stored_at, body FROM memorygate.receipt
WHERE kind = 'admission' AND phase IN ('accepted', 'rejected', 'complete', 'escalate')
ORDER BY tenant::text COLLATE "C", stored_at, receipt_id
"""


@dataclass(frozen=True, slots=True)
class LedgerDecision:
    """A decision in the ledger. `admission` is None where its receipt cannot be read as one."""

    tenant: str
    receipt_id: str
    stored_at: datetime
    admission: RecordedAdmission | None


@dataclass(frozen=True, slots=True)
class LedgerOutcome:
    """How a tool call ended, which is no decision."""

    tenant: str
    outcome: RecordedOutcome


async def ledger_decisions(connection: asyncpg.Connection) -> AsyncIterator[LedgerDecision | LedgerOutcome]:
    """All decisions of this gate by tenant, in their order, and how the tool calls among them ended.

    Inside a transaction of the caller's: one snapshot.
    """
    async for row in connection.cursor(_DECISIONS, prefetch=500):
        admission: RecordedAdmission | None = None
        try:
            receipt = json.loads(row["body"])
            # Before this gate was there, the ledger took admissions from other emitters.
            if receipt["emitter"] != EMITTER:
                continue
            if receipt["phase"] in _OUTCOME_PHASES:
                if (outcome := read_outcome(receipt)) is not None:
                    yield LedgerOutcome(row["tenant"], outcome)
                continue
            admission = read_admission(row["body"])
        except (KeyError, TypeError, ValueError):
            pass  # what cannot be read is a decision without an admission
        yield LedgerDecision(row["tenant"], row["receipt_id"], row["stored_at"], admission)


@dataclass(frozen=True, slots=True)
class AdmittedRow:
    """An admitted task as it is kept for its children and for a repeated request."""

    task: AdmittedTask
    receipt_id: str
    principal_key: str
    digest: bytes

    @property
    def columns(self) -> tuple[object, ...]:
        """As in the table `admitted`, without the tenant."""
        task = self.task
        return (
            task.task_id, task.root_task_id, task.parent_task_id, task.depth, task.budget, recent_column(task.recent),
            self.receipt_id, self.principal_key, self.digest,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DerivedCall:
    """A row of the table `call`."""

    at: datetime
    principal_key: str
    decided: DecidedCall
    outcome: RecordedOutcome | None = None

    @property
    def columns(self) -> tuple[object, ...]:
        """As in the table, without the tenant and the admission."""
        decided, recorded = self.decided, self.outcome
        ended = EndedCall(decided.outcome, None, None, None) if recorded is None else ended_call(recorded.outcome)
        return (
            None if recorded is None else recorded.receipt_id, self.at, self.principal_key, decided.problemata,
            decided.tool, decided.task_id, ended.outcome, decided.reason_code, decided.timeout_ms, ended.duration_us,
            decided.arguments_sha256, decided.arguments_bytes, ended.result_sha256, ended.result_bytes,
        )  # fmt: skip


@dataclass(slots=True)
class DerivedCounters:
    """What the decisions of one tenant so far add up to: the derived tables of the schema."""

    versions: Counter[str] = field(default_factory=Counter)
    descendants: Counter[str] = field(default_factory=Counter)
    admissions: Counter[tuple[str, str]] = field(default_factory=Counter)
    spawned: Counter[str] = field(default_factory=Counter)
    tasks: dict[str, AdmittedRow] = field(default_factory=dict)
    calls: dict[str, DerivedCall] = field(default_factory=dict)
    """By admission."""

    def add_decision(self, decision: LedgerDecision) -> None:
        """Count a decision as `interrogate.record_calls` does. One that cannot be read counts nowhere."""
        if decision.admission is None:
            return
        self.add(decision.admission)
        if (call := decided_call(decision.admission)) is not None:
            principal_key = decision.admission.requester.principal_key
            self.calls[decision.receipt_id] = DerivedCall(decision.stored_at, principal_key, call)

    def add_outcome(self, outcome: RecordedOutcome) -> None:
        """End a call as `interrogate.settle_calls` does."""
        call = self.calls.get(outcome.admission_receipt_id)
        if call is not None:
            self.calls[outcome.admission_receipt_id] = replace(call, outcome=outcome)

    def add(self, admission: RecordedAdmission) -> None:
        """Count a decision as `interrogate.record` does."""
        task, lease = admission.admitted, admission.observed.lease
        if admission.decision.spawns_under_lease and lease is not None:
            self.spawned[lease.lease_id] += 1
        if task is None:
            return
        self.versions[task.root_task_id] += 1
        if task.capability_id is not None:
            self.admissions[task.root_task_id, task.capability_id] += 1
        if task.begins:
            self.descendants[task.root_task_id] += task.depth > 0
            self.tasks[task.task_id] = AdmittedRow(
                task, admission.receipt_id, admission.requester.principal_key, admission.envelope.digest
            )

    def observed(self, admission: RecordedAdmission) -> Observed:
        """What a decision must have observed, derived from those before it.

        Time, rates, custody, cause and lease are taken as recorded: the ledger of admissions does not determine them.
        """
        recorded = admission.observed
        parent = self._parent(admission)
        causality = admission.envelope.causality
        root = causality.root_task_id if isinstance(causality.root_task_id, str) else None
        if root is None and parent is not None:
            root = parent.root_task_id
        if root is None:
            return replace(recorded, parent=parent, descendants=0, repeats=0)
        capability = admission.envelope.capability_id
        return replace(
            recorded,
            parent=parent,
            descendants=self.descendants[root],
            repeats=0 if capability is None else self.admissions[root, capability],
        )

    def _parent(self, admission: RecordedAdmission) -> ParentTask | None:
        recorded = admission.observed.parent
        # Whether a lease's task was looked up as the parent is taken as recorded, like the lease itself.
        parent_id = leased_parent(admission.envelope, admission.observed) or admission.envelope.causality.parent_task_id
        row = self.tasks.get(parent_id) if isinstance(parent_id, str) else None
        if row is None:
            return None
        task = row.task
        return ParentTask(
            root_task_id=task.root_task_id,
            depth=task.depth,
            budget=task.budget,
            recent=task.recent,
            admitted_by=row.receipt_id,
            custodian=None if recorded is None else recorded.custodian,
            open=recorded is not None and recorded.open,
        )
