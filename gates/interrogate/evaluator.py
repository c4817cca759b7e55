"""From parsed requests to stored decisions: observe, decide, record if nothing changed (IG-01).

Requests that arrive together share both statements. In between they are decided in the order of their arrival, each on
what it observed and on what those before it change. No lock is held while Python decides; a decision whose marks moved
meanwhile is not stored, and its request is observed again, until its deadline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

import structlog

from interrogate import metrics
from interrogate.admission_receipt import (
    ReceiptInvalid,
    RecordedAdmission,
    admission_receipt,
    made_admission,
)
from interrogate.calls import decided_call
from interrogate.contention import Contention
from interrogate.database import InterrogateDatabase, ObservedRequest, Record, Recorded, StoredDecision
from interrogate.decide import decide, decide_shadow
from interrogate.decision import AdmissionOutcome, Decision
from interrogate.envelope import Envelope
from interrogate.fold import DecidedBatch
from interrogate.observation import LeasePlacement, ObservationRequest, Observed, Requester, observation_request
from interrogate.policies import PoliciesUnknown, PolicyReplica
from interrogate.problem_codes import Code
from interrogate.ruleset import Ruleset, TargetRule
from interrogate.tool_call import ToolCall
from legivellum.http.batching import Batcher, BatchLimits
from legivellum.http.problems import refuse
from legivellum.postgres.errors import Unavailable

_BEHIND_PAUSE_SECONDS: Final = 0.02
_COLLECT_SECONDS: Final = 0.004
"""In this time the callers of the last batch can ask again (30 of them, measured)."""

_log = structlog.get_logger("interrogate.evaluator")


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """One request for admission, parsed and authenticated."""

    envelope: Envelope
    requester: Requester
    tenant: UUID
    """The requester's own, whatever the envelope names."""
    receipt_id: str
    """Minted once per request, so that a batch that is repeated finds its own row."""
    idempotency_key: str | None = None
    tool_call: ToolCall | None = None
    """Of an envelope of kind `tool_call`: the tool that its receipt names."""
    leased: LeasePlacement | None = None
    """Of a call that its lease places in a tree; found by the evaluator."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A decision that is in the ledger. A replay has neither admission nor ruleset: its receipt has to be read."""

    stored: StoredDecision
    replayed: bool
    admission: RecordedAdmission | None = None
    ruleset: Ruleset | None = None


class _Again:
    """Nothing was stored. `behind`: a newer policy was used already, so this process has to read policies again."""

    def __init__(self, *, behind: bool) -> None:
        self.behind = behind


_MOVED: Final = _Again(behind=False)
_POLICY_BEHIND: Final = _Again(behind=True)

_Answer = Evaluation | _Again | Exception


@dataclass(frozen=True, slots=True)
class _Case:
    """A request of a batch with the rules by which it is decided."""

    request: EvaluationRequest
    ruleset: Ruleset | None
    question: ObservationRequest


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What is about to be recorded."""

    case: _Case
    admission: RecordedAdmission
    shadow: Decision | None
    record: Record


class Evaluator:
    """One per process."""

    def __init__(
        self, database: Callable[[], InterrogateDatabase], policies: PolicyReplica, *, limits: BatchLimits | None = None
    ) -> None:
        self._database = database
        self._policies = policies
        self._contention = Contention()
        self._batcher: Batcher[EvaluationRequest, _Answer] = Batcher(self._decide_free, name="evaluate", limits=limits)
        # One at a time, and only after the callers of the last one had the time to ask again: a second batch would wait
        # for the locks of the first, with requests that could share one commit.
        contended = replace(limits or BatchLimits(), in_flight=1, collect_seconds=_COLLECT_SECONDS)
        self._contended: Batcher[EvaluationRequest, _Answer] = Batcher(
            self._decide_locked, name="evaluate contended", limits=contended
        )

    async def evaluate(self, request: EvaluationRequest, deadline: float) -> Evaluation:
        """The stored decision, by `deadline` (the loop's clock).

        Raises DeadlineExceeded, Overloaded, PoliciesUnknown, Unavailable; IDEMPOTENCY_CONFLICT (409).
        """
        started = time.perf_counter()
        request = await self._placed(request)
        while True:
            answer = await self._batcher_of(request).submit(request, deadline)
            if isinstance(answer, Evaluation):
                if answer.admission is not None:
                    metrics.count_decision(answer.admission.decision, time.perf_counter() - started)
                return answer
            if isinstance(answer, Exception):
                raise answer
            metrics.MOVED.inc()
            if answer.behind:
                await self._policies.look()
                await self._pause_while_behind(deadline)

    async def _placed(self, request: EvaluationRequest) -> EvaluationRequest:
        """A tool call under a lease that names no parent counts where the leased task stands (GW-10).

        Only its root is looked up here, because locks have one order; whether the lease is live is observed later.
        """
        lease_id = request.requester.lease_id
        if lease_id is None or not request.envelope.placed_by_lease:
            return request
        holder = request.requester.principal_key
        return replace(request, leased=await self._database().calls.leased_task(request.tenant, lease_id, holder))

    async def _pause_while_behind(self, deadline: float) -> None:
        """After a restore of MetaGate's database nothing newer may come: then no busy loop, and an answer that says so.

        Raises PoliciesUnknown while there is still time to answer: nothing was stored.
        """
        if deadline - asyncio.get_running_loop().time() < 5 * _BEHIND_PAUSE_SECONDS:
            raise PoliciesUnknown("MetaGate publishes an older policy than one that was used already.")
        await asyncio.sleep(_BEHIND_PAUSE_SECONDS)

    def _batcher_of(self, request: EvaluationRequest) -> Batcher[EvaluationRequest, _Answer]:
        contended = self._contention.expected(request.tenant, request.envelope, request.requester, request.leased)
        return self._contended if contended else self._batcher

    async def observe(self, request: EvaluationRequest) -> tuple[Ruleset | None, Observed]:
        """By which rules it would be decided now, and on what. Nothing is stored. Raises Unavailable."""
        case = self._case(request)
        [answer] = await self._database().observe([case.question])
        return case.ruleset, answer.observed

    async def check(self, request: EvaluationRequest, deadline: float) -> Evaluation | None:
        """Whether it would pass now: None, and nothing is stored or spent. A refusal is stored, as of `evaluate`.

        For requests that only read: who is refused something leaves a trace, who reads much fills no ledger. Where it
        would pass by the time that the refusal is stored, the stored decision says so. Raises as `evaluate`.
        """
        ruleset, observed = await self.observe(request)
        if decide(request.envelope, request.requester, ruleset, observed).outcome is AdmissionOutcome.ALLOW:
            return None
        return await self.evaluate(request, deadline)

    def _case(self, request: EvaluationRequest) -> _Case:
        """Raises Unavailable."""
        envelope, requester = request.envelope, request.requester
        ruleset = self._policies.find(request.tenant, envelope.policy_profile_id)
        question = observation_request(
            envelope,
            requester,
            tenant=request.tenant,
            receipt_id=request.receipt_id,
            idempotency_key=request.idempotency_key,
            rate_keys=() if ruleset is None else ruleset.rate_keys_of(envelope, requester.principal_key),
            leased=request.leased,
        )
        return _Case(request, ruleset, question)

    async def _decide_free(self, requests: Sequence[EvaluationRequest]) -> list[_Answer]:
        """No lock is held while Python decides: for requests whose marks rarely move."""
        cases, answers = self._cases(requests)
        # Before the first await: rules and revision belong to one listing.
        database, listed_at = self._database(), self._policies.revision
        if cases:
            observations = await database.observe([case.question for case in cases])
            answers |= await self._decide_all(cases, observations, listed_at, database.record)
        return [answers[request.receipt_id] for request in requests]

    async def _decide_locked(self, requests: Sequence[EvaluationRequest]) -> list[_Answer]:
        """The locks are held while Python decides: what was observed is still true when it is recorded."""
        cases, answers = self._cases(requests)
        listed_at = self._policies.revision
        if cases:
            async with self._database().locked() as admissions:
                revisions = [listed_at if case.ruleset is None else case.ruleset.revision for case in cases]
                observations = await admissions.observe([case.question for case in cases], revisions)
                if observations:
                    answers |= await self._decide_all(cases, observations, listed_at, admissions.record)
        return [answers.get(request.receipt_id, _MOVED) for request in requests]

    def _cases(self, requests: Sequence[EvaluationRequest]) -> tuple[list[_Case], dict[str, _Answer]]:
        """What can be decided; and the answers to what cannot."""
        cases, answers = list[_Case](), dict[str, _Answer]()
        for request in requests:
            try:
                cases.append(self._case(request))
            except Unavailable as error:
                answers[request.receipt_id] = error
        return cases, answers

    async def _decide_all(
        self,
        cases: Sequence[_Case],
        observations: Sequence[ObservedRequest],
        listed_at: int,
        record: Callable[[Sequence[Record]], Awaitable[list[Recorded]]],
    ) -> dict[str, _Answer]:
        """Decided in their order, each on what those before it change, and recorded together."""
        batch, verdicts, answers = DecidedBatch(), list[_Verdict](), dict[str, _Answer]()
        for case, observation in zip(cases, observations, strict=True):
            outcome = _decide(case, observation, batch, listed_at)
            if isinstance(outcome, _Verdict):
                verdicts.append(outcome)
            else:
                answers[case.request.receipt_id] = outcome
        recorded = await record([verdict.record for verdict in verdicts]) if verdicts else []
        for verdict, stored in zip(verdicts, recorded, strict=True):
            if stored.outcome == "MOVED":
                self._contention.note(verdict.case.question)
            answers[verdict.case.request.receipt_id] = _answer(verdict, stored)
        return answers


def _decide(case: _Case, observation: ObservedRequest, batch: DecidedBatch, listed_at: int) -> _Verdict | _Answer:
    if observation.replay is not None:
        return Evaluation(observation.replay, replayed=True)
    if observation.conflict:
        return _key_conflict()
    observed = batch.adjusted(case.question, observation.observed)
    if observed is None:
        return _MOVED
    request, ruleset = case.request, case.ruleset
    decision = decide(request.envelope, request.requester, ruleset, observed)
    shadow = None if ruleset is None else decide_shadow(request.envelope, request.requester, ruleset, observed)
    called = called_targets(decision.targets, request.envelope.surface_id, ruleset)
    revision = listed_at if ruleset is None else ruleset.revision
    try:
        body = admission_receipt(
            request.envelope,
            request.requester,
            decision,
            observed,
            ruleset,
            tenant=request.tenant,
            receipt_id=request.receipt_id,
            policy_revision=revision,
            shadow=shadow,
            tool_call=request.tool_call,
        )
    except ReceiptInvalid as error:
        # A principal may be declared under a name that no receipt can hold: nobody else's decision depends on it.
        _log.error("decision_unwritable", receipt_id=request.receipt_id, reason=str(error))
        return refuse(Code.INVALID_REQUEST, "A name of the caller or the lease cannot stand in a receipt.")
    batch.add(case.question, observed, decision, begins=request.envelope.begins)
    admission = made_admission(
        request.envelope,
        request.requester,
        decision,
        observed,
        ruleset,
        receipt_id=request.receipt_id,
        policy_revision=revision,
        tool_call=request.tool_call,
    )
    record = Record(
        request=case.question,
        observed=observed,
        body=body,
        policy_hash=None if ruleset is None else ruleset.policy_hash,
        policy_revision=revision,
        ruleset=None if ruleset is None else ruleset.canonical_body,
        admitted=admission.admitted,
        rate_tats=decision.rate_tats,
        spawns_under_lease=decision.spawns_under_lease,
        forwards=tuple(target.name for target in called),
        escalate_to=_escalate_to(request.envelope.surface_id, ruleset),
        call=decided_call(admission),
    )
    return _Verdict(case, admission, shadow, record)


def _answer(verdict: _Verdict, recorded: Recorded) -> _Answer:
    match recorded.outcome:
        case "STORED":
            assert recorded.stored is not None
            _count_judgements(verdict)
            return Evaluation(
                recorded.stored, replayed=False, admission=verdict.admission, ruleset=verdict.case.ruleset
            )
        case "REPLAYED":
            assert recorded.stored is not None
            return Evaluation(recorded.stored, replayed=True)
        case "MOVED":
            return _MOVED
        case "POLICY_BEHIND":
            return _POLICY_BEHIND
        case "KEY_CONFLICT":
            return _key_conflict()
        case "REFUSED":
            # The ledger judges what this gate writes: that it refuses is a defect here, and nothing was decided.
            _log.error("decision_refused", receipt_id=verdict.case.request.receipt_id, refusal=recorded.detail)
            return Unavailable("The ledger refused the decision.")


def _count_judgements(verdict: _Verdict) -> None:
    decision, shadow = verdict.admission.decision, verdict.shadow
    if shadow is not None and (shadow.outcome, shadow.reason_code) != (decision.outcome, decision.reason_code):
        metrics.SHADOW_DISAGREEMENTS.inc()
    if decision.failed_rules:
        metrics.RULE_FAILURES.inc()


def called_targets(names: Iterable[str], surface_id: str, ruleset: Ruleset | None) -> list[TargetRule]:
    """The targets among `names` that are called after the commit; the others are only named in the receipt."""
    surface = None if ruleset is None else ruleset.surfaces.get(surface_id)
    if surface is None:
        return []
    targets = [surface.targets[name] for name in names if name in surface.targets]
    return [target for target in targets if target.is_called]


def _escalate_to(surface_id: str, ruleset: Ruleset | None) -> str | None:
    surface = None if ruleset is None else ruleset.surfaces.get(surface_id)
    return None if surface is None else surface.escalate_to


def _key_conflict() -> Exception:
    return refuse(Code.IDEMPOTENCY_CONFLICT, "This Idempotency-Key was used for another envelope.")
