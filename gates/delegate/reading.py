"""GET /plans and GET /plans/{plan_id}: what the ledger has of plans, read with the tenant's own credential.

Nothing is kept here and nothing is changed: what a plan is now follows from its receipts (DG-01).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from delegate.delegate_gate import DeleGate
from delegate.gate_clients import ObligationState
from delegate.plan_handlers import named, unusable
from delegate.plan_receipts import RUN, approval_of, planning_of
from delegate.plan_record import PlanRecord, rendered
from delegate.plan_requests import require_plan_id
from delegate.planning import PlanFlow
from delegate.problem_codes import Code
from legivellum.gate.cursors import invalid_cursor
from legivellum.gate.gate_caller import GateRefused
from legivellum.gate.query import limit_parameter, page_body, query_parameters, tenant_parameter
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import refuse
from legivellum.identity.tenant_credentials import ServedTenant
from metagate_crds.plans.plan import Plan, UnreadablePlan

_MOST_PLANS: Final = 100
"""On one page: each costs two names in a look-up of at most 256."""


class PlanReadHandlers:
    def __init__(self, gate: DeleGate, flow: PlanFlow) -> None:
        self._gate = gate
        self._flow = flow

    async def plan(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "body", "tenant")
        if parameters.get("body") not in {None, "true", "false"}:
            raise refuse(Code.INVALID_REQUEST, "body: must be true or false.")
        served = await self._gate.served(caller, tenant_parameter(parameters, caller))
        record = await named(self._flow.record(served, require_plan_id(exchange.path_parameters["plan_id"])))
        if record.accepted is None:
            raise refuse(Code.PLAN_NOT_FOUND, "This gate opened no such plan in this tenant.")
        answer = rendered(record)
        if parameters.get("body") == "true":
            answer["plan"] = await named(self._document(served, record))
        return json_response(200, strict_json.encode(answer))

    async def plans(self, exchange: Exchange) -> Response:
        """The caller's own open ones, as they lie in the inbox of the tenant's delegate."""
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "limit", "cursor")
        limit = min(limit_parameter(parameters), _MOST_PLANS)
        served = await self._gate.served(caller, caller.tenant)
        try:
            obligations, cursor = await self._gate.clients.inbox_page(
                served, limit=limit, cursor=parameters.get("cursor"), principal_ai=caller.principal_key
            )
        except GateRefused as refused:
            # The cursor is the ledger's own, handed on unchanged: it says whether it gave it out.
            if refused.code == Code.INVALID_CURSOR.name:
                raise invalid_cursor() from None
            raise unusable(refused) from refused
        runs = [item for item in obligations if item["receipt"].get("task_type") == RUN]
        names = [name for item in runs for name in (planning_of(item["task_id"]), approval_of(item["task_id"]))]
        looked_up = await named(self._gate.clients.obligations(served, names))
        states = {state.obligation_id: state for state in looked_up}
        items = [strict_json.encode(_open_plan(item, states)) for item in runs]
        return json_response(200, page_body(items, cursor))

    async def _document(self, served: ServedTenant, record: PlanRecord) -> Mapping[str, Any] | None:
        """The plan as DepotGate keeps it; None before it does, and after it was retired."""
        artifact = record.artifact
        body = None if artifact is None else await self._gate.clients.plan_body(served, artifact.pointer)
        try:
            return None if body is None else Plan.read(body).document
        except UnreadablePlan:
            return None


def _open_plan(obligation: Mapping[str, Any], states: Mapping[str, ObligationState]) -> dict[str, Any]:
    plan_id = obligation["task_id"]
    planning, approval = states[planning_of(plan_id)], states[approval_of(plan_id)]
    undecided = planning.is_open or planning.state is None
    return {
        "plan_id": plan_id,
        "principal_ai": obligation["principal_ai"],
        "phase": "planning" if undecided else "held" if approval.is_open else "running",
        "task_summary": obligation["receipt"].get("task_summary"),
        "opened_at": obligation["opened_at"],
        "accepted": obligation["opened_by"],
    }
