"""POST /plans, /intents/{namespace}, /plans/{id}/dispatch and /close: what makes plans, brings them on and ends them.

Two ways in, and one switch (DG-09): where admission is required, requests come from InterroGate, and their authority
is the receipt by which it admitted them; where it is off, principals and delegates ask for themselves.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final, TypeVar

from ulid import ULID

from delegate import metrics
from delegate.closing import PlanCloser
from delegate.delegate_gate import DeleGate
from delegate.plan_receipts import PlanSubject
from delegate.plan_record import INTERROGATE, PlanRecord, Receipt, rendered
from delegate.plan_requests import parse_plan_request, require_plan_id
from delegate.planning import PlanFlow, PlanOrder, lease_authority, order_ids
from delegate.problem_codes import Code
from legivellum.gate.gate_caller import GateAway, GateRefused
from legivellum.http import strict_json
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import RequestRefused, refuse
from legivellum.identity.caller import Caller
from legivellum.identity.request_authenticator import require_caller
from legivellum.identity.tenant_credentials import ServedTenant

SUBMIT: Final = "plan.submit"
"""The capability under which a body of `/plans` is admitted."""
_TARGET: Final = "delegate"
_ASKING: Final = frozenset({"principal", "delegate"})
_REPLAYED: Final = (b"idempotency-replayed", b"true")

Answer = TypeVar("Answer")


async def named(asking: Awaitable[Answer]) -> Answer:
    """What a gate refuses that means nothing to whoever asks is a 503 that names the gate."""
    try:
        return await asking
    except GateRefused as refused:
        raise unusable(refused) from refused


def unusable(refused: GateRefused) -> GateAway:
    return GateAway(refused.gate, f"refuses this gate: {refused.code}")


class PlanHandlers:
    def __init__(self, gate: DeleGate, flow: PlanFlow) -> None:
        self._gate = gate
        self._flow = flow
        self._closer = PlanCloser(gate)

    async def create(self, exchange: Exchange) -> Response:
        """POST /plans: a principal's own (DG-03)."""
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        exchange.require_json()
        request = parse_plan_request(await exchange.body())
        caller = require_caller(speaker)
        if caller.type not in _ASKING:
            raise refuse(Code.ROLE_REQUIRED, "Principals and delegates ask for plans; a worker asks InterroGate.")
        if self._gate.settings.admission == "required":
            raise refuse(Code.ADMISSION_REQUIRED, "Ask InterroGate, which forwards what it admits.")
        tenant = await self._gate.credentials.of(caller.namespace)
        plan_id = request.plan_id or str(ULID.from_timestamp(time.time()))
        subject = PlanSubject(
            order_ids(tenant, plan_id), caller.principal_key, request.caused_by_receipt_id, parent_task_id=None
        )
        return await self._taken(PlanOrder(tenant, subject, plan_id, request.intent))

    async def intent(self, exchange: Exchange) -> Response:
        """POST /intents/{namespace}: what InterroGate admitted, byte for byte."""
        exchange.require_json()
        body = await exchange.body()
        admission_id = exchange.header(b"legivellum-admission")
        if admission_id is None:
            raise refuse(Code.ADMISSION_REQUIRED, "Legivellum-Admission: names the receipt that admits the request.")
        tenant = await self._gate.credentials.of(exchange.path_parameters["namespace"])
        if self._gate.settings.admission == "off":
            raise _refused("nothing is admitted here; ask at /plans")
        admission = await named(self._gate.clients.receipt(tenant, admission_id.decode("latin-1")))
        _require_admits(admission, tenant, body)
        assert admission is not None
        return await self._taken(_admitted_order(tenant, admission, body))

    async def dispatch(self, exchange: Exchange) -> Response:
        caller = require_caller(await self._gate.process.authenticator.authenticate(exchange))
        tenant, record = await self._plan_named(exchange, caller)
        record = await named(self._flow.resume(tenant, record))
        if record.phase == "held":
            raise refuse(Code.NOT_APPROVED, "The approver has not decided.")
        return _plan_response(record)

    async def close(self, exchange: Exchange) -> Response:
        # The order of refusals: the credential, then the body, then the plan (D-42).
        speaker = await self._gate.process.authenticator.authenticate(exchange)
        abandons, reason = _closing(strict_json.parse_object(await exchange.body() or b"{}"))
        caller = require_caller(speaker)
        tenant, record = await self._plan_named(exchange, caller)
        if abandons:
            assert record.accepted is not None
            if caller.principal_key != record.accepted["principal_ai"]:
                raise refuse(Code.ROLE_REQUIRED, "Only the principal whose plan it is abandons it.")
            end = await named(self._closer.abandon(tenant, record, reason))
        else:
            end = await named(self._closer.close(tenant, record))
        answer = {"receipt_id": end.receipt_id, "status": end.status, "counts": dict(end.counts)}
        return json_response(200, strict_json.encode(answer))

    async def _taken(self, order: PlanOrder) -> Response:
        try:
            record, taken_before = await named(self._flow.take(order))
        except RequestRefused as refused:
            metrics.PLANS.labels(refused.problem.code.name).inc()
            raise
        metrics.PLANS.labels("replayed" if taken_before else record.phase).inc()
        return _plan_response(record, *([_REPLAYED] if taken_before else []))

    async def _plan_named(self, exchange: Exchange, caller: Caller) -> tuple[ServedTenant, PlanRecord]:
        """The plan that anybody of its tenant names, but who only reads."""
        if caller.type == "observer":
            raise refuse(Code.ROLE_REQUIRED, "Observers only read.")
        tenant = await self._gate.credentials.of(caller.namespace)
        plan_id = require_plan_id(exchange.path_parameters["plan_id"])
        record = await named(self._flow.record(tenant, plan_id))
        if record.accepted is None:
            raise refuse(Code.PLAN_NOT_FOUND, "This gate opened no such plan in this tenant.")
        return tenant, record


def _plan_response(record: PlanRecord, *headers: tuple[bytes, bytes]) -> Response:
    location = (b"location", f"/plans/{record.ids.plan_id}".encode())
    return json_response(202, strict_json.encode(rendered(record)), location, *headers)


def _closing(body: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Raises INVALID_REQUEST."""
    abandon, reason = body.get("abandon", False), body.get("reason")
    if not body.keys() <= {"abandon", "reason"} or not isinstance(abandon, bool):
        raise refuse(Code.INVALID_REQUEST, "The body knows abandon, true or false, and reason, a text.")
    if reason is not None and not (isinstance(reason, str) and 0 < len(reason) <= 500 and reason.isprintable()):
        raise refuse(Code.INVALID_REQUEST, "reason: must be one line of at most 500 characters.")
    return abandon, reason


# --- what was admitted


def _require_admits(admission: Receipt | None, tenant: ServedTenant, body: bytes) -> None:
    """Whether InterroGate admitted exactly these bytes, for this gate. Raises ADMISSION_REFUSED."""
    if admission is None:
        raise _refused("there is no such receipt in this tenant")
    facts = (admission["emitter"], admission["kind"], admission["phase"], admission["tenant_id"])
    if facts != (INTERROGATE, "admission", "accepted", str(tenant.uid)):
        raise _refused("it admits nothing")
    decision = admission["body"]
    if _TARGET not in decision.get("targets", ()):
        raise _refused("it was not made for this gate")
    if decision.get("payload_sha256") != hashlib.sha256(body).hexdigest():
        raise _refused("it admits another body")


def _admitted_order(tenant: ServedTenant, admission: Receipt, body: bytes) -> PlanOrder:
    """The plan is the admitted task (DG-04). Raises ADMISSION_REFUSED, INVALID_REQUEST."""
    decision = admission["body"]
    try:
        plan_id = require_plan_id(admission["task_id"])
    except RequestRefused:
        raise _refused("the id of the admitted task is no ULID, so it cannot be a plan's") from None
    if decision["capability_id"] == SUBMIT:
        intent = _submitted(plan_id, admission, body)
    else:
        intent = {"capability": decision["capability_id"], "parameters": strict_json.parse_object(body)}
    subject = PlanSubject(
        order_ids(tenant, plan_id), admission["principal_ai"], admission["receipt_id"], admission.get("parent_task_id")
    )
    root_task_id = decision["derived"]["root_task_id"] or plan_id
    return PlanOrder(tenant, subject, root_task_id, intent, lease_authority(admission))


def _submitted(plan_id: str, admission: Receipt, body: bytes) -> Mapping[str, Any]:
    request = parse_plan_request(body)
    if request.plan_id not in {None, plan_id}:
        raise refuse(Code.INVALID_REQUEST, "plan_id: the plan is the admitted task; leave it out, or name that one.")
    # A worker may ask for what was declared, never for a plan of its own making (DG-10).
    decision = admission["body"]
    if "draft" in request.intent and (decision["lease"] is not None or decision["caller"]["type"] not in _ASKING):
        raise _refused("a worker asks for declared templates, not with a draft of its own")
    return request.intent


def _refused(why: str) -> RequestRefused:
    return refuse(Code.ADMISSION_REFUSED, f"Legivellum-Admission: {why}.")
