"""POST /v1/evaluate and POST /v1/check: may this request pass?

The order of refusals is D-42's: credential, body, permission. A refusal here decides nothing and leaves no receipt
(IG-03); whatever is decided is one receipt.
"""

from __future__ import annotations

import json
import re
from typing import Final

from ulid import ULID

from interrogate import metrics
from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import RecordedAdmission, read_admission
from interrogate.decide import decide
from interrogate.decision import AdmissionOutcome
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope
from interrogate.escalation import ForwardedAdmission
from interrogate.evaluator import Evaluation, EvaluationRequest, called_targets
from interrogate.forwarder import AdmittedRequest
from interrogate.forwards import SettledForwards
from interrogate.observation import Requester
from interrogate.policies import PoliciesUnknown
from interrogate.problem_codes import Code
from interrogate.rendering import NOTHING_FORWARDED, check_response, decision_response
from interrogate.ruleset import Ruleset
from legivellum.http.deadline import Deadline, DeadlineExceeded, Overloaded
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller
from legivellum.postgres.errors import DatabaseError

_UNSTORED: Final = (DeadlineExceeded, Overloaded, DatabaseError, OSError, TimeoutError)
"""How it ends where the database does not take what it is given."""
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")


class EvaluationHandlers:
    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate
        self._decision_deadline = Deadline(gate.process.settings.deadline_seconds)

    async def evaluate(self, exchange: Exchange) -> Response:
        """Decide and store within the deadline; then call targets, for as long as they may take."""
        caller, envelope = await read_request(self._gate, exchange)
        request = evaluation_request(envelope, exchange, caller, idempotency_key=_idempotency_key(exchange))
        evaluation = await self._decided(request, exchange)
        admission = evaluation.admission or read_admission(evaluation.stored.body)
        settled = NOTHING_FORWARDED
        if admission.decision.outcome is AdmissionOutcome.ALLOW:
            settled = await self._settled(evaluation, admission, request, caller)
        return decision_response(evaluation.stored, admission, settled, replayed=evaluation.replayed)

    async def check(self, exchange: Exchange) -> Response:
        """What would be decided. Nothing is stored, spent or forwarded, and no target is named."""
        caller, envelope = await read_request(self._gate, exchange)
        request = evaluation_request(envelope, exchange, caller)
        ruleset, observed = await self._gate.evaluator.observe(request)
        return check_response(decide(envelope, request.requester, ruleset, observed), ruleset)

    async def _decided(self, request: EvaluationRequest, exchange: Exchange) -> Evaluation:
        work = self._gate.evaluator.evaluate(request, exchange.deadline)
        try:
            return await self._decision_deadline.run(work, name="evaluate")
        except _UNSTORED as error:
            metrics.FAIL_CLOSED.labels(_cause(error)).inc()
            if isinstance(error, PoliciesUnknown):
                # The database may be well: without this the answer would send people to look at it.
                exchange.reason = error.why
                raise refuse(Code.UNAVAILABLE, error.why) from error
            raise

    async def _settled(
        self, evaluation: Evaluation, recorded: RecordedAdmission, request: EvaluationRequest, caller: Caller
    ) -> SettledForwards:
        """What became of its targets.

        Raises DEADLINE_EXCEEDED where that is not stored: the decision is, so UNAVAILABLE would be wrong. A retry with
        the same key asks the pending targets again, under their key; without one the sweep fails them.
        """
        try:
            return await self._forwarded(evaluation, recorded, request, caller)
        except _UNSTORED as error:
            detail = (
                "The decision is stored, and what its targets answered is not. Retry with the same Idempotency-Key."
            )
            raise refuse(Code.DEADLINE_EXCEEDED, detail) from error

    async def _forwarded(
        self, evaluation: Evaluation, recorded: RecordedAdmission, request: EvaluationRequest, caller: Caller
    ) -> SettledForwards:
        """A replay calls only what is still pending, and shows what became of the others."""
        settled: tuple[SettledForwards, ...] = ()
        names = recorded.decision.targets
        if evaluation.replayed:
            rows = await self._gate.process.database.forwards(request.tenant, recorded.receipt_id)
            names = tuple(row.target for row in rows if row.state == "pending")
            others = tuple(row for row in rows if row.state != "pending")
            escalation = next((row.escalation_receipt_id for row in others if row.escalation_receipt_id), None)
            settled = (SettledForwards(others, escalation),)
        ruleset = await self._ruleset_of(evaluation, recorded) if names else None
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

    async def _ruleset_of(self, evaluation: Evaluation, recorded: RecordedAdmission) -> Ruleset | None:
        """The rules under which it was admitted, also when they are others by now."""
        if evaluation.ruleset is not None or recorded.policy_hash is None:
            return evaluation.ruleset
        return await self._gate.stored_ruleset(recorded)


async def read_request(gate: AdmissionGate, exchange: Exchange) -> tuple[Caller, Envelope]:
    """Who asks, and for what. Raises the refusals of D-42, NOT_FOUND for a surface of another instance."""
    caller = await authenticated(gate, exchange)
    exchange.require_json()
    envelope = parse_envelope(await exchange.body())
    require_served(gate, envelope)
    return require_caller(caller), envelope


def require_served(gate: AdmissionGate, envelope: Envelope) -> None:
    """Raises NOT_FOUND for a surface of another instance."""
    if not gate.surfaces.matches(envelope.surface_id):
        raise refuse(Code.NOT_FOUND, "surface_id: this instance does not serve it.")


async def authenticated(gate: AdmissionGate, exchange: Exchange) -> Caller | RequestRefused:
    """As every gate authenticates; that identity is too old is counted, because it closes this gate (INV-116)."""
    try:
        return await gate.process.authenticator.authenticate(exchange)
    except DatabaseError:
        metrics.FAIL_CLOSED.labels("identity").inc()
        raise


def evaluation_request(
    envelope: Envelope, exchange: Exchange, caller: Caller, *, idempotency_key: str | None = None
) -> EvaluationRequest:
    lease = exchange.header(b"legivellum-lease")
    requester = Requester(
        principal_key=caller.principal_key,
        type=caller.type,
        is_tenants=envelope.tenant_id in {str(caller.tenant), caller.namespace},
        lease_id=None if lease is None else lease.decode("latin-1"),
    )
    return EvaluationRequest(envelope, requester, caller.tenant, str(ULID()), idempotency_key)


def _idempotency_key(exchange: Exchange) -> str | None:
    key = exchange.header(b"idempotency-key")
    text = None if key is None else key.decode("latin-1")
    if text is not None and not _KEY.match(text):
        raise refuse(Code.INVALID_REQUEST, "Idempotency-Key: 1 to 255 visible ASCII characters.")
    return text


def _escalate_to(recorded: RecordedAdmission, ruleset: Ruleset | None) -> str:
    """The surface's choice, else the caller (IG-09)."""
    surface = None if ruleset is None else ruleset.surfaces.get(recorded.envelope.surface_id)
    chosen = None if surface is None else surface.escalate_to
    return chosen or recorded.requester.principal_key


def _joined(settled: tuple[SettledForwards, ...]) -> SettledForwards:
    forwards = tuple(forward for part in settled for forward in part.forwards)
    escalation = next((part.escalation_receipt_id for part in settled if part.escalation_receipt_id), None)
    return SettledForwards(forwards, escalation)


def _cause(error: Exception) -> str:
    """The label of a request about which nothing was decided."""
    if isinstance(error, DeadlineExceeded):
        return "deadline"
    if isinstance(error, Overloaded):
        return "overload"
    return "policy" if isinstance(error, PoliciesUnknown) else "database"
