"""Decide a request and call its targets: what `POST /v1/evaluate` and the MCP gateway have in common, so that both
leave the same receipts.
"""

from __future__ import annotations

import json
from typing import Final

from ulid import ULID

from interrogate import metrics
from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import RecordedAdmission, read_admission
from interrogate.decision import AdmissionOutcome
from interrogate.envelope import Envelope
from interrogate.escalation import ForwardedAdmission
from interrogate.evaluator import Evaluation, EvaluationRequest, called_targets
from interrogate.forwarder import AdmittedRequest
from interrogate.forwards import SettledForwards
from interrogate.observation import Requester
from interrogate.policies import PoliciesUnknown
from interrogate.problem_codes import Code
from interrogate.rendering import NOTHING_FORWARDED
from interrogate.ruleset import Ruleset
from interrogate.tool_call import ToolCall
from legivellum.http.deadline import Deadline, DeadlineExceeded, Overloaded
from legivellum.http.exchange import Exchange
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller
from legivellum.postgres.errors import DatabaseError

UNSTORED: Final = (DeadlineExceeded, Overloaded, DatabaseError, OSError, TimeoutError)
"""How it ends where the database does not take what it is given."""


def evaluation_request(
    envelope: Envelope,
    exchange: Exchange,
    caller: Caller,
    *,
    idempotency_key: str | None = None,
    tool_call: ToolCall | None = None,
) -> EvaluationRequest:
    """The request of `caller`, under the lease that the exchange shows."""
    lease = exchange.header(b"legivellum-lease")
    requester = Requester(
        principal_key=caller.principal_key,
        type=caller.type,
        is_tenants=envelope.tenant_id in {str(caller.tenant), caller.namespace},
        lease_id=None if lease is None else lease.decode("latin-1"),
    )
    return EvaluationRequest(envelope, requester, caller.tenant, str(ULID()), idempotency_key, tool_call)


class AdmissionService:
    """One per kind of caller; the evaluator and the forwarder behind it are shared."""

    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate
        self._decision_deadline = Deadline(gate.process.settings.deadline_seconds)

    async def decide(self, request: EvaluationRequest, deadline: float) -> Evaluation:
        """The stored decision, by `deadline` (the loop's clock).

        Raises what `Evaluator.evaluate` raises; that nothing was decided is counted.
        """
        work = self._gate.evaluator.evaluate(request, deadline)
        try:
            return await self._decision_deadline.run(work, name="evaluate")
        except UNSTORED as error:
            metrics.FAIL_CLOSED.labels(fail_closed_cause(error)).inc()
            raise

    async def settle(self, evaluation: Evaluation, request: EvaluationRequest, caller: Caller) -> SettledForwards:
        """What became of its targets; nothing of a denied request. A replay calls only what is still pending.

        Raises DEADLINE_EXCEEDED where that is not stored: the decision is, so UNAVAILABLE would be wrong. A retry with
        the same key asks the pending targets again, under their key; without one the sweep fails them.
        """
        recorded = recorded_admission(evaluation)
        if recorded.decision.outcome is AdmissionOutcome.DENY:
            return NOTHING_FORWARDED
        try:
            return await self._forwarded(evaluation, recorded, request, caller)
        except UNSTORED as error:
            detail = (
                "The decision is stored, and what its targets answered is not. Retry with the same Idempotency-Key."
            )
            raise refuse(Code.DEADLINE_EXCEEDED, detail) from error

    async def _forwarded(
        self, evaluation: Evaluation, recorded: RecordedAdmission, request: EvaluationRequest, caller: Caller
    ) -> SettledForwards:
        settled: tuple[SettledForwards, ...] = ()
        names = recorded.decision.targets
        # Without targets there is no row of them: one more look-up would outlast the deadline where the way is long.
        if evaluation.replayed and names:
            rows = await self._gate.process.database.forwards(request.tenant, recorded.receipt_id)
            names = tuple(row.target for row in rows if row.state == "pending")
            others = tuple(row for row in rows if row.state != "pending")
            escalation = next((row.escalation_receipt_id for row in others if row.escalation_receipt_id), None)
            settled = (SettledForwards(others, escalation),)
        ruleset = await self.ruleset_of(evaluation, recorded) if names else None
        targets = called_targets(names, recorded.envelope.surface_id, ruleset)
        if targets:
            about = ForwardedAdmission.of(
                json.loads(evaluation.stored.body), escalate_to=_escalate_to(recorded, ruleset)
            )
            admission = AdmittedRequest(
                tenant=request.tenant,
                namespace=caller.namespace,
                principal_key=caller.principal_key,
                root_task_id=recorded.decision.root_task_id,
                depth=recorded.decision.depth,
                budget_remaining=recorded.decision.budget_remaining,
                payload=request.envelope.payload_bytes,
                payload_sha256=recorded.envelope.payload_sha256,
                about=about,
                targets=targets,
            )
            settled = (*settled, await self._gate.forwarder.forward(admission))
        return _joined(settled)

    async def ruleset_of(self, evaluation: Evaluation, recorded: RecordedAdmission) -> Ruleset | None:
        """The rules under which it was admitted, also when they are others by now. Raises Unavailable."""
        if evaluation.ruleset is not None or recorded.policy_hash is None:
            return evaluation.ruleset
        return await self._gate.stored_ruleset(recorded)


def recorded_admission(evaluation: Evaluation) -> RecordedAdmission:
    """The decision as it is recorded: a replay has to be read from its receipt."""
    return evaluation.admission or read_admission(evaluation.stored.body)


def fail_closed_cause(error: Exception) -> str:
    """The label of a request about which nothing was decided."""
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, Overloaded):
        return "overload"
    return "policy" if isinstance(error, PoliciesUnknown) else "database"


def _escalate_to(recorded: RecordedAdmission, ruleset: Ruleset | None) -> str:
    """The surface's choice, else the caller (IG-09)."""
    surface = None if ruleset is None else ruleset.surfaces.get(recorded.envelope.surface_id)
    chosen = None if surface is None else surface.escalate_to
    return chosen or recorded.requester.principal_key


def _joined(settled: tuple[SettledForwards, ...]) -> SettledForwards:
    forwards = tuple(forward for part in settled for forward in part.forwards)
    escalation = next((part.escalation_receipt_id for part in settled if part.escalation_receipt_id), None)
    return SettledForwards(forwards, escalation)
