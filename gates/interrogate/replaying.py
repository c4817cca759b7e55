"""Decide again what the ledger says was decided, and name what is not the same (`interrogate replay`).

The receipts and the policies that were kept with them are enough: no MetaGate, no process of this gate. With another
policy it answers what would have been decided under it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime

import asyncpg

from interrogate.admission_history import DerivedCounters, LedgerDecision, LedgerOutcome, ledger_decisions
from interrogate.admission_receipt import RecordedAdmission, differences
from interrogate.decide import decide, decide_under, unjudged_rules
from interrogate.decision import Decision
from interrogate.observation import Observed
from interrogate.ruleset import Ruleset
from legivellum.base.canonical_json import hex_digest
from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated

MOST_MISMATCHES = 100
"""How many are named. All are counted."""


@dataclass(frozen=True, slots=True)
class ReplayMismatch:
    """A decision that is not what follows from the ledger, and in which members."""

    tenant: str
    receipt_id: str
    members: tuple[str, ...]

    def __str__(self) -> str:
        return f"receipt {self.receipt_id} of tenant {self.tenant}: {', '.join(self.members)}"


@dataclass(slots=True)
class ReplayReport:
    decisions: int = 0
    mismatch_count: int = 0
    mismatches: list[ReplayMismatch] = field(default_factory=list)
    """The first of them."""
    changes: Counter[str] = field(default_factory=Counter)
    """With another policy: how many decisions would change, by `ALLOW -> DENY CAPABILITY_DENIED`."""
    changed: list[ReplayMismatch] = field(default_factory=list)
    """With another policy: the first of the decisions that would change."""
    unjudged_rules: set[str] = field(default_factory=set)
    """With another policy: its rules that nobody can judge without the payloads. They are taken to hold."""

    def note(self, mismatch: ReplayMismatch) -> None:
        self.mismatch_count += 1
        if len(self.mismatches) < MOST_MISMATCHES:
            self.mismatches.append(mismatch)


@translated
async def replay(
    dsn: str, *, since: datetime | None = None, root: str | None = None, other: Ruleset | None = None
) -> ReplayReport:
    """Role `memorygate_auditor`. Decisions before `since` are counted and not decided again, as are those of another
    root than `root`. `other`: what would that policy have said, about the same requests in the same state?
    Raises Unavailable, SchemaMismatch.
    """
    connection = await connect(dsn, server_settings={"application_name": "interrogate replay"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _Replay(connection, since, root, other).run()
    finally:
        await connection.close(timeout=5)


class _Replay:
    def __init__(
        self, connection: asyncpg.Connection, since: datetime | None, root: str | None, other: Ruleset | None
    ) -> None:
        self._connection = connection
        self._since = since
        self._root = root
        self._other = other
        self._report = ReplayReport()
        self._rulesets: dict[tuple[str, str, int], Ruleset | None] = {}

    async def run(self) -> ReplayReport:
        tenant, counters = "", DerivedCounters()
        async for decision in ledger_decisions(self._connection):
            if isinstance(decision, LedgerOutcome):
                continue  # nothing was decided by it
            if decision.tenant != tenant:
                tenant, counters = decision.tenant, DerivedCounters()
            admission = decision.admission
            if admission is None:
                self._report.note(ReplayMismatch(tenant, decision.receipt_id, ("body",)))
                continue
            if self._is_asked_for(decision, admission):
                await self._compare(decision, admission, counters.observed(admission))
            counters.add(admission)
        return self._report

    def _is_asked_for(self, decision: LedgerDecision, admission: RecordedAdmission) -> bool:
        if self._since is not None and decision.stored_at < self._since:
            return False
        roots = (admission.decision.root_task_id, admission.envelope.causality.root_task_id)
        return self._root is None or self._root in roots

    async def _compare(self, decision: LedgerDecision, admission: RecordedAdmission, observed: Observed) -> None:
        self._report.decisions += 1
        envelope, requester, rule_results = admission.envelope, admission.requester, admission.rule_results
        ruleset = None if admission.policy_hash is None else await self._ruleset(admission, admission.policy_hash)
        members = [f"observed.{name}" for name in _observed_differences(admission.observed, observed)]
        if ruleset is None and admission.policy_hash is not None:
            members.append("policy_hash")
        else:
            decided = decide(envelope, requester, ruleset, observed, rule_results=rule_results)
            members += differences(admission.decision, decided)
        if members:
            self._report.note(ReplayMismatch(decision.tenant, decision.receipt_id, tuple(members)))
        if self._other is not None and envelope.policy_profile_id == self._other.profile:
            now = decide_under(self._other, envelope, requester, ruleset, observed, rule_results=rule_results)
            self._report.unjudged_rules |= unjudged_rules(self._other, ruleset)
            self._note_change(decision, admission.decision, now)

    async def _ruleset(self, admission: RecordedAdmission, policy_hash: str) -> Ruleset | None:
        """The policy as it was kept, read once. None: it was not kept, or is not what its hash says."""
        key = (admission.envelope.policy_profile_id, policy_hash, admission.policy_revision)
        if key not in self._rulesets:
            query = "SELECT body FROM interrogate.ruleset WHERE policy_hash = $1"
            body: str | None = await self._connection.fetchval(query, policy_hash)
            self._rulesets[key] = None if body is None else _read_ruleset(body, *key)
        return self._rulesets[key]

    def _note_change(self, decision: LedgerDecision, recorded: Decision, now: Decision) -> None:
        if _outcome(recorded) == _outcome(now):
            return
        change = f"{_outcome(recorded)} -> {_outcome(now)}"
        self._report.changes[change] += 1
        if len(self._report.changed) < MOST_MISMATCHES:
            self._report.changed.append(ReplayMismatch(decision.tenant, decision.receipt_id, (change,)))


def _read_ruleset(body: str, profile: str, policy_hash: str, revision: int) -> Ruleset | None:
    if hex_digest(body.encode()) != policy_hash:
        return None
    return Ruleset.from_policy(json.loads(body), profile=profile, policy_hash=policy_hash, revision=revision)


def _observed_differences(recorded: Observed, derived: Observed) -> Iterator[str]:
    for member in fields(Observed):
        before, now = getattr(recorded, member.name), getattr(derived, member.name)
        if before == now:
            continue
        if member.name != "parent" or before is None or now is None:
            yield member.name
        else:
            yield from (
                f"parent.{part.name}"
                for part in fields(before)
                if getattr(before, part.name) != getattr(now, part.name)
            )


def _outcome(decision: Decision) -> str:
    return " ".join(filter(None, (decision.outcome, decision.reason_code)))
