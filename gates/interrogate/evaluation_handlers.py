"""POST /v1/evaluate and POST /v1/check: may this request pass?

The order of refusals is D-42's: credential, body, permission. A refusal here decides nothing and leaves no receipt
(IG-03); whatever is decided is one receipt.
"""

from __future__ import annotations

import re
from typing import Final

from interrogate import metrics
from interrogate.admission_gate import AdmissionGate
from interrogate.admission_service import AdmissionService, evaluation_request, recorded_admission
from interrogate.decide import decide
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope
from interrogate.evaluator import Evaluation, EvaluationRequest
from interrogate.policies import PoliciesUnknown
from interrogate.problem_codes import Code
from interrogate.rendering import check_response, decision_response
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller
from legivellum.postgres.errors import DatabaseError

_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}\Z")


class EvaluationHandlers:
    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate
        self._service = AdmissionService(gate)

    async def evaluate(self, exchange: Exchange) -> Response:
        """Decide and store within the deadline; then call targets, for as long as they may take."""
        caller, envelope = await read_request(self._gate, exchange)
        key = exchange.header(b"idempotency-key")
        request = evaluation_request(
            envelope, exchange, caller, idempotency_key=None if key is None else require_key(key.decode("latin-1"))
        )
        evaluation = await self._decided(request, exchange)
        settled = await self._service.settle(evaluation, request, caller)
        return decision_response(
            evaluation.stored, recorded_admission(evaluation), settled, replayed=evaluation.replayed
        )

    async def check(self, exchange: Exchange) -> Response:
        """What would be decided. Nothing is stored, spent or forwarded, and no target is named."""
        caller, envelope = await read_request(self._gate, exchange)
        request = evaluation_request(envelope, exchange, caller)
        ruleset, observed = await self._gate.evaluator.observe(request)
        return check_response(decide(envelope, request.requester, ruleset, observed), ruleset)

    async def _decided(self, request: EvaluationRequest, exchange: Exchange) -> Evaluation:
        try:
            return await self._service.decide(request, exchange.deadline)
        except PoliciesUnknown as error:
            # The database may be well: without this the answer would send people to look at it.
            exchange.reason = error.why
            raise refuse(Code.UNAVAILABLE, error.why) from error


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


def require_key(text: str) -> str:
    """The idempotency key, if it can be one. Raises INVALID_REQUEST."""
    if not _KEY.match(text):
        raise refuse(Code.INVALID_REQUEST, "Idempotency-Key: 1 to 255 visible ASCII characters.")
    return text
