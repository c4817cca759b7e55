"""POST /plans/validate: what would become of a request (INV-092).

It writes nothing and asks nobody: neither another gate nor a database. Drafts of models come here, before anybody lets
them become work.
"""

from __future__ import annotations

import time

import ulid

from delegate.delegate_gate import DeleGate
from delegate.plan_requests import parse_plan_request, rendered_findings
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.identity.request_authenticator import require_caller
from metagate_crds.plans.plan import Plan, PlanOrigin


class ValidationHandler:
    def __init__(self, gate: DeleGate) -> None:
        self._gate = gate

    async def __call__(self, exchange: Exchange) -> Response:
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        request = parse_plan_request(await exchange.body())
        caller = require_caller(speaker)
        plan_id = request.plan_id or str(ulid.ULID.from_timestamp(time.time()))
        origin = PlanOrigin(
            plan_id=plan_id,
            tenant_id=str(caller.tenant),
            principal_ai=caller.principal_key,
            caused_by_receipt_id=request.caused_by_receipt_id,
            root_task_id=plan_id,
        )
        result = request.expand(origin, self._gate.templates.of(caller.tenant), self._gate.principals(caller.tenant))
        plan = result if isinstance(result, Plan) else None
        answer = {
            "valid": plan is not None,
            "findings": [] if isinstance(result, Plan) else rendered_findings(result),
            "tasks": None if plan is None else len(plan.tasks),
            "depth": None if plan is None else plan.depth,
            "plan_digest": None if plan is None else plan.plan_digest,
            "plan": None if plan is None else plan.document,
        }
        return json_response(200, strict_json.encode(answer))
