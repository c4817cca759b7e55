"""Tools of MCP servers under names of the gateway: what agents see of them, and their calls (GW-09 to GW-15).

A listing is made of what was declared and of nothing else: no MCP server is asked, and no row is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Final
from uuid import UUID

import structlog
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR
from ulid import ULID

from interrogate import metrics
from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import RecordedAdmission
from interrogate.admission_service import AdmissionService, evaluation_request, recorded_admission
from interrogate.call_recorder import OutcomeUnrecorded
from interrogate.calls import CallRow
from interrogate.decide import NEEDS_LEASE
from interrogate.decision import AdmissionOutcome
from interrogate.evaluation_handlers import require_key
from interrogate.evaluator import Evaluation, EvaluationRequest
from interrogate.mcp_gateway.caller import McpRequest
from interrogate.mcp_gateway.gateway_tool import (
    CAUSALITY_META,
    IDEMPOTENCY_KEY_META,
    Result,
    ToolRequest,
    invalid_params,
    protocol_error,
)
from interrogate.mcp_gateway.input_schemas import InputSchemas
from interrogate.mcp_gateway.result_forms import failure_result, receipt_meta, refusal_result
from interrogate.mcp_gateway.upstream import UpstreamOutcome, Upstreams, UpstreamTarget
from interrogate.observation import ObservationRequest
from interrogate.policies import PoliciesUnknown
from interrogate.problemata import Problemata, ServedCapability, ToolPin
from interrogate.ruleset import GlobSet, Ruleset, SurfaceRules, TargetRule
from interrogate.tool_call import ToolCall
from legivellum.identity.caller import Caller

_PINNED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
_UNANSWERABLE: Final = frozenset({-32700, -32600, -32601, *range(-32029, -32019)})
"""Codes by which a client would take an error of the MCP server for one of this gateway, and act upon it."""

NativeTool = tuple[Problemata, ServedCapability]

_log = structlog.get_logger("interrogate.mcp")


class NativeTools:
    """One per process. A call that was sent runs to its end and is recorded, whoever listens (GW-14)."""

    def __init__(self, gate: AdmissionGate, upstreams: Upstreams, schemas: InputSchemas) -> None:
        self._gate = gate
        self._upstreams = upstreams
        self._schemas = schemas
        self._service = AdmissionService(gate)
        self._running: set[asyncio.Task[Any]] = set()

    # --- what is listed

    async def definitions(self, request: McpRequest) -> list[dict[str, Any]]:
        """Those that lists, principal and lease admit. Raises Unavailable."""
        exposed = await self._exposed_by_lease(request)
        return [
            {**{member: pin.definition[member] for member in _PINNED if member in pin.definition}, "name": name}
            for name, (problemata, capability) in self._all(request.caller.tenant)
            if (pin := capability.tool) is not None
            and (exposed is None or exposed.matches(pin.lease_name))
            and self._is_admitted(problemata, capability, pin, request)
        ]

    def find(self, request: McpRequest, name: str) -> NativeTool | None:
        """The declared tool of that name, also where its policy will deny the call: that is a decision."""
        return next((tool for exposed, tool in self._all(request.caller.tenant) if exposed == name), None)

    def _all(self, tenant: UUID) -> Iterator[tuple[str, NativeTool]]:
        for problemata in self._gate.problematas.of(tenant).values():
            if problemata.expose_tools and self._gate.surfaces.matches(problemata.surface_id):
                for name, capability in problemata.tools.items():
                    yield name, (problemata, capability)

    async def _exposed_by_lease(self, request: McpRequest) -> GlobSet | None:
        """What the lease that is shown exposes; None without a lease."""
        lease_id = request.exchange.header(b"legivellum-lease")
        if lease_id is None:
            return None
        caller = request.caller
        question = ObservationRequest(
            tenant=caller.tenant,
            principal_key=caller.principal_key,
            receipt_id=str(ULID()),
            digest=b"",
            idempotency_key=None,
            profile="",
            root_task_id=None,
            task_id=None,
            parent_task_id=None,
            capability_id=None,
            caused_by_receipt_id=None,
            rate_keys=(),
            lease_id=lease_id.decode("latin-1"),
        )
        [answer] = await self._gate.process.database.observe([question])
        lease = answer.observed.lease
        exposed = None if lease is None else lease.authority.get("exposeTools")
        return (
            GlobSet.of(glob for glob in exposed if isinstance(glob, str))
            if isinstance(exposed, list)
            else GlobSet.of(())
        )

    def _is_admitted(
        self, problemata: Problemata, capability: ServedCapability, pin: ToolPin, request: McpRequest
    ) -> bool:
        rules = rules_of(self._gate, problemata)
        if rules is None:
            return False
        ruleset, surface = rules
        needs_lease = ruleset.lease_required and request.caller.type in NEEDS_LEASE and not request.shows_lease
        return not needs_lease and pin.target in surface.open_targets and may_ask(surface, capability, request.caller)

    # --- what is called

    async def call(self, call: ToolRequest, problemata: Problemata, capability: ServedCapability) -> Result:
        """Under the tool's own name: idempotency key and causality stand in `_meta`."""
        key = next((call.meta[name] for name in IDEMPOTENCY_KEY_META if name in call.meta), None)
        causality = call.meta.get(CAUSALITY_META)
        if key is not None and not isinstance(key, str):
            raise invalid_params(f"_meta[{IDEMPOTENCY_KEY_META[0]!r}] must be text.")
        if causality is not None and not isinstance(causality, dict):
            raise invalid_params(f"_meta[{CAUSALITY_META!r}] must be an object.")
        return await self.call_tool(call, problemata, capability, call.arguments, causality=causality, key=key)

    async def call_tool(
        self,
        call: ToolRequest,
        problemata: Problemata,
        capability: ServedCapability,
        arguments: Mapping[str, Any],
        *,
        causality: Mapping[str, Any] | None,
        key: str | None,
    ) -> Result:
        """Check, decide, call, record, answer: the answer goes out only when the outcome is stored."""
        pin = capability.tool
        assert pin is not None
        schema_key = (problemata.tenant, problemata.name, capability.id)
        if (problem := self._schemas.problem(schema_key, pin.input_schema, arguments)) is not None:
            raise invalid_params(f"arguments: {problem}")
        caller = call.request.caller
        tool_call = ToolCall(problemata, capability, call.client_name)
        envelope = tool_call.envelope(arguments, tenant=str(caller.tenant), causality=causality)
        request = evaluation_request(
            envelope,
            call.request.exchange,
            caller,
            idempotency_key=None if key is None else require_key(key),
            tool_call=tool_call,
        )
        return await asyncio.shield(self._own(self._decide_and_call(call, request, tool_call, arguments)))

    async def _decide_and_call(
        self, call: ToolRequest, request: EvaluationRequest, tool_call: ToolCall, arguments: Mapping[str, Any]
    ) -> Result:
        deadline = asyncio.get_running_loop().time() + self._gate.process.settings.deadline_seconds
        evaluation = await self._service.decide(request, deadline)
        recorded = recorded_admission(evaluation)
        if recorded.decision.outcome is AdmissionOutcome.DENY:
            return refusal_result(recorded)
        if evaluation.replayed:
            return await self._repeated(request.tenant, recorded)
        target = await self._target(evaluation, recorded, tool_call)
        return await self._run(call, recorded, target, tool_call.pin, arguments)

    async def close(self) -> None:
        """Let what was sent end; the process is given some seconds for it."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """From the decision on nothing depends on whether the caller still waits."""
        task = asyncio.create_task(work, name="call a tool")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        # A caller that left takes no exception, and asyncio would log it as forgotten.
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception) and not isinstance(error, MCPError) and protocol_error(error) is None:
            _log.error("tool_call_failed", error=type(error).__qualname__, exc_info=error)

    async def _target(self, evaluation: Evaluation, recorded: RecordedAdmission, tool_call: ToolCall) -> TargetRule:
        """By the rules under which it was admitted."""
        ruleset = await self._service.ruleset_of(evaluation, recorded)
        assert ruleset is not None
        return ruleset.surfaces[tool_call.problemata.surface_id].targets[tool_call.pin.target]

    async def _run(
        self,
        call: ToolRequest,
        recorded: RecordedAdmission,
        target: TargetRule,
        pin: ToolPin,
        arguments: Mapping[str, Any],
    ) -> Result:
        caller = call.request.caller
        outcome = await self._upstreams.call(
            UpstreamTarget(caller.tenant, caller.namespace, target),
            pin,
            arguments,
            bearer=self._bearer(caller, recorded, target),
            seconds=target.tool_timeout_ms / 1_000,
            progress=call.context.session.report_progress,
        )
        metrics.TOOL_CALLS.labels(outcome.reason or outcome.kind).inc()
        try:
            row = await self._gate.calls.record(caller.tenant, recorded, outcome.recorded)
        except OutcomeUnrecorded:
            return failure_result(
                recorded, "OUTCOME_UNRECORDED", "The tool answered; do not repeat it.", outcome_receipt=None
            )
        if row.outcome_receipt_id is not None and row.outcome not in {outcome.kind, outcome.reason}:
            # The sweep took the call for lost: what is on record is what is answered.
            return _unkept_result(recorded, row)
        return _outcome_result(recorded, outcome, row)

    def _bearer(self, caller: Caller, recorded: RecordedAdmission, target: TargetRule) -> str | None:
        """The gate's own token (IG-10); never what the caller sent."""
        if self._gate.tokens is None or target.audience is None:
            return None
        return self._gate.tokens.token(
            namespace=caller.namespace,
            audience=target.audience,
            admission=recorded.receipt_id,
            task=recorded.task_id,
            payload_sha256=recorded.envelope.payload_sha256,
        )

    async def _repeated(self, tenant: UUID, recorded: RecordedAdmission) -> Result:
        """The same key again: the outcome, and no second call. The result was never kept (INV-093)."""
        row = await self._gate.calls.outcome_of(tenant, recorded.receipt_id)
        if row is None:
            return failure_result(
                recorded,
                "RESULT_NOT_KEPT",
                "This call was made before; its outcome is not known.",
                outcome_receipt=None,
            )
        return _unkept_result(recorded, row)


def rules_of(gate: AdmissionGate, problemata: Problemata) -> tuple[Ruleset, SurfaceRules] | None:
    """The profile of a Problemata and its surface; None where this release cannot judge by it."""
    try:
        ruleset = gate.policies.find(problemata.tenant, problemata.policy_profile)
    except PoliciesUnknown:
        return None
    surface = None if ruleset is None else ruleset.surfaces.get(problemata.surface_id)
    return None if ruleset is None or surface is None else (ruleset, surface)


def may_ask(surface: SurfaceRules, capability: ServedCapability, caller: Caller) -> bool:
    """Whether lists and principal admit a capability; what only a decision can say is left to it."""
    return (
        caller.type != "observer"
        and surface.principals.matches(caller.principal_key)
        and surface.allowed_capabilities.matches(capability.id)
        and not surface.denied_capabilities.matches(capability.id)
    )


def _outcome_result(recorded: RecordedAdmission, outcome: UpstreamOutcome, row: CallRow) -> Result:
    """The tool's own result with the receipts of the call. Raises MCPError for an error of JSON-RPC."""
    meta = receipt_meta(recorded.receipt_id, row.outcome_receipt_id)
    value = dict(outcome.result or {})
    if outcome.kind == "protocol_error":
        code = outcome.code if outcome.code is not None and outcome.code not in _UNANSWERABLE else INTERNAL_ERROR
        # Whatever the server says of its own state belongs to its client, which is this gate.
        data = {"code": outcome.code, "_meta": meta}
        raise MCPError(code, str(value.get("message", "")), data)
    if outcome.kind == "escalated":
        detail = outcome.detail + (" The tool may have run." if outcome.sent else "")
        return failure_result(recorded, str(outcome.reason), detail, outcome_receipt=row.outcome_receipt_id)
    return {**value, "_meta": {**(value.get("_meta") or {}), **meta}}


def _unkept_result(recorded: RecordedAdmission, row: CallRow) -> Result:
    detail = f"This call was made before and ended as {row.outcome}; results are not kept."
    return failure_result(
        recorded, "RESULT_NOT_KEPT", detail, outcome_receipt=row.outcome_receipt_id, call_outcome=row.outcome
    )
