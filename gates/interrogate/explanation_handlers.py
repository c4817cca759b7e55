"""POST /v1/explain: every rule for an envelope, or for a decision in the ledger, decided again by the same function."""

from __future__ import annotations

from typing import Any, Final

from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import RecordedAdmission, differences, read_admission
from interrogate.admission_service import evaluation_request
from interrogate.decide import decide, explain
from interrogate.envelope_parser import parse_envelope
from interrogate.evaluation_handlers import authenticated, require_served
from interrogate.problem_codes import Code
from interrogate.rendering import decision_summary, explanation_response, rules_rendered
from interrogate.ruleset import Ruleset
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller, may_read_others
from legivellum.identity.request_authenticator import require_caller
from legivellum.receipts.rights import role_of

_QUESTION: Final = "receipt_id"


class ExplanationHandlers:
    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate

    async def explain(self, exchange: Exchange) -> Response:
        caller = await authenticated(self._gate, exchange)
        exchange.require_json()
        raw = await exchange.body()
        members = strict_json.parse_object(raw)
        if _QUESTION in members:
            receipt_id = _receipt_id(members)
            return await self._stored(receipt_id, require_caller(caller))
        envelope = parse_envelope(raw)
        require_served(self._gate, envelope)
        request = evaluation_request(envelope, exchange, require_caller(caller))
        ruleset, observed = await self._gate.evaluator.observe(request)
        results = explain(envelope, request.requester, ruleset, observed)
        return explanation_response({"rules": rules_rendered(results)})

    async def _stored(self, receipt_id: str, caller: Caller) -> Response:
        """Admins, observers and whoever asked then; for everybody else it is not there."""
        stored = await self._gate.process.database.decision(caller.tenant, receipt_id)
        recorded = None if stored is None else read_admission(stored.body)
        if recorded is None or not _may_read(caller, recorded):
            raise refuse(Code.NOT_FOUND, "There is no such decision.")
        ruleset = await self._ruleset(recorded)
        case = (recorded.envelope, recorded.requester, ruleset, recorded.observed)
        redecided = decide(*case, rule_results=recorded.rule_results)
        results = explain(*case, rule_results=recorded.rule_results)
        return explanation_response(
            {
                "recorded": decision_summary(recorded.decision),
                "redecided": decision_summary(redecided),
                "same": not differences(recorded.decision, redecided),
                "rules": rules_rendered(results),
            }
        )

    async def _ruleset(self, recorded: RecordedAdmission) -> Ruleset | None:
        """The rules under which it was decided, whatever they are now."""
        if recorded.policy_hash is None:
            return None
        return await self._gate.stored_ruleset(recorded)


def _receipt_id(members: dict[str, Any]) -> str:
    receipt_id = members[_QUESTION]
    if set(members) != {_QUESTION} or not isinstance(receipt_id, str) or not receipt_id.isprintable():
        raise refuse(Code.INVALID_REQUEST, "The body must be an envelope, or an object with one member, receipt_id.")
    return receipt_id


def _may_read(caller: Caller, recorded: RecordedAdmission) -> bool:
    return may_read_others(role_of(caller.type, caller.rights)) or (
        recorded.requester.principal_key == caller.principal_key
    )
