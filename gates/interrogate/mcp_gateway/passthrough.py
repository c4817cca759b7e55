"""`problemata.passthrough`: a request of an agent, decided as `POST /v1/evaluate` decides it and handed to the
surface's targets (GW-05, GW-06).

Whether the answer is the result or a handle depends on the policy, on what was asked, and on how soon the target is
done. A target that answers 200 has the result; one that answers 202 completes the task in the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from ulid import ULID

from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import RecordedAdmission
from interrogate.admission_service import AdmissionService, evaluation_request, recorded_admission
from interrogate.asked_task import LONGER_THAN_A_CALL, answered_result, ledger_result
from interrogate.decision import AdmissionOutcome
from interrogate.envelope import Envelope
from interrogate.envelope_parser import read_envelope
from interrogate.evaluation_handlers import require_key
from interrogate.evaluator import EvaluationRequest
from interrogate.forwards import SettledForwards
from interrogate.mcp_gateway.completion_watch import CompletionWatch
from interrogate.mcp_gateway.gateway_tool import GatewayTool, Result, ToolRequest, invalid_params
from interrogate.mcp_gateway.input_schemas import InputSchemas
from interrogate.mcp_gateway.native_tools import NativeTools
from interrogate.mcp_gateway.resource_metadata import ProtectedResource
from interrogate.mcp_gateway.result_forms import failure_result, receipt_meta, refusal_result, structured_result
from interrogate.mcp_gateway.task_handles import created_task
from interrogate.problemata import Problemata, ServedCapability
from interrogate.ruleset import SurfaceRules
from legivellum.base.bounded_schema import BoundedSchema
from legivellum.http import strict_json
from legivellum.http.problems import RequestRefused

NAME: Final = "problemata.passthrough"
_NAME_SCHEMA: Final = {"type": "string", "minLength": 1, "maxLength": 253}
_INPUT_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "problemata_id": {
            **_NAME_SCHEMA,
            "description": "Which problemata to ask; problemata.capabilities lists them.",
        },
        "input": {"description": "What is asked, as the capability declares it."},
        "mode": {
            "enum": ["sync", "async"],
            "description": "async: answer with a handle at once. Default: wait as long as the policy allows.",
        },
        "capability": {**_NAME_SCHEMA, "description": "Which capability; needed where the problemata has several."},
        "causality": {
            "type": "object",
            "description": "The place in a tree of tasks. Absent: the request begins a tree of its own.",
        },
        "idempotency_key": {
            "type": "string",
            "minLength": 1,
            "maxLength": 255,
            "description": "The same request with the same key is made once within 24 hours.",
        },
    },
    "required": ["problemata_id", "input"],
    "additionalProperties": False,
}
_DEFINITION: Final = {
    "name": NAME,
    "title": "Ask a problemata",
    "description": "Hand a request to a problemata. The answer is its result, or a handle with which problemata.status "
    "and problemata.artifacts show what became of it.",
    "inputSchema": _INPUT_SCHEMA,
    "annotations": {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True},
}


class Passthrough:
    """One per process."""

    def __init__(
        self,
        gate: AdmissionGate,
        resource: ProtectedResource,
        native: NativeTools,
        schemas: InputSchemas,
        watch: CompletionWatch,
    ) -> None:
        self._gate = gate
        self._resource = resource
        self._native = native
        self._schemas = schemas
        self._watch = watch
        self._service = AdmissionService(gate)
        self._own_schema = BoundedSchema(_INPUT_SCHEMA)
        self._running: set[asyncio.Task[Any]] = set()
        self.tool = GatewayTool(_DEFINITION, self._call)

    async def close(self) -> None:
        """Let what was decided be forwarded; the process is given some seconds for it."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _call(self, call: ToolRequest) -> Result:
        arguments = call.arguments
        if (problem := self._own_schema.problem(arguments)) is not None:
            raise invalid_params(problem)
        problemata = find_problemata(self._gate, call, arguments["problemata_id"])
        capability = _chosen(problemata, arguments.get("capability"))
        if capability.tool is not None:
            return await self._call_tool(call, problemata, capability)
        if capability.input_schema is not None:
            named = (problemata.tenant, problemata.name, capability.id)
            if (problem := self._schemas.problem(named, capability.input_schema, arguments["input"])) is not None:
                raise invalid_params(f"input: {problem}")
        key = arguments.get("idempotency_key")
        request = evaluation_request(
            _envelope(call, problemata, capability),
            call.request.exchange,
            call.request.caller,
            idempotency_key=None if key is None else require_key(key),
        )
        # From the decision on nothing depends on whether the caller still waits.
        task = asyncio.create_task(self._admit(call, request, capability), name="pass a request through")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _call_tool(self, call: ToolRequest, problemata: Problemata, capability: ServedCapability) -> Result:
        """A tool is always called synchronously: nobody could keep its result (GW-11)."""
        arguments = call.arguments
        if arguments.get("mode") == "async":
            raise invalid_params("mode: a tool is answered synchronously only.")
        if not isinstance(arguments["input"], dict):
            raise invalid_params("input: must be an object, the arguments of the tool.")
        return await self._native.call_tool(
            call,
            problemata,
            capability,
            arguments["input"],
            causality=arguments.get("causality"),
            key=arguments.get("idempotency_key"),
        )

    async def _admit(self, call: ToolRequest, request: EvaluationRequest, capability: ServedCapability) -> Result:
        loop = asyncio.get_running_loop()
        evaluation = await self._service.decide(request, loop.time() + self._gate.process.settings.deadline_seconds)
        recorded = recorded_admission(evaluation)
        if recorded.decision.outcome is AdmissionOutcome.DENY:
            return refusal_result(recorded)
        ruleset = await self._service.ruleset_of(evaluation, recorded)
        surface = None if ruleset is None else ruleset.surfaces.get(recorded.envelope.surface_id)
        until = (
            None
            if surface is None or surface.sync_timeout_ms is None
            else loop.time() + surface.sync_timeout_ms / 1_000
        )
        forwarding = asyncio.create_task(
            self._service.settle(evaluation, request, call.request.caller), name="forward and settle"
        )
        self._running.add(forwarding)
        forwarding.add_done_callback(self._ended)
        if _is_async(call.arguments, capability, surface):
            settled = await asyncio.shield(forwarding)
            return self._undelivered(recorded, settled) or self._handle(call, recorded, evaluation.stored.stored_at)
        done, _ = await asyncio.wait({forwarding}, timeout=None if until is None else max(0.0, until - loop.time()))
        if not done:
            # It goes on in its own task; whoever asks later is answered from the ledger.
            return self._handle(call, recorded, evaluation.stored.stored_at)
        settled = forwarding.result()
        if (failed := self._undelivered(recorded, settled)) is not None:
            return failed
        if settled.forwards and all(forward.status != LONGER_THAN_A_CALL for forward in settled.forwards):
            return _sync_result(recorded, answered_result(settled.forwards), is_error=False)
        if until is not None and await self._watch.completed((request.tenant, recorded.task_id), until - loop.time()):
            result = await self._completed(request.tenant, recorded)
            if result is not None:
                return result
        return self._handle(call, recorded, evaluation.stored.stored_at)

    async def _completed(self, tenant: UUID, recorded: RecordedAdmission) -> Result | None:
        task = await self._gate.process.database.asked_task(tenant, receipt_id=recorded.receipt_id)
        if task is None or task.closing is None:
            return None
        result = ledger_result(task.closing)
        return _sync_result(recorded, result, is_error=result["status"] != "success")

    def _undelivered(self, recorded: RecordedAdmission, settled: SettledForwards) -> Result | None:
        """A target was not reached, or refused: somebody was told by a receipt, and so is the caller (INV-118)."""
        failed = [forward for forward in settled.forwards if forward.state == "failed"]
        if not failed:
            return None
        reasons = ", ".join(f"{forward.target}: {forward.reason}" for forward in failed)
        return failure_result(
            recorded,
            "UNDELIVERED",
            f"The request was admitted and not delivered ({reasons}).",
            outcome_receipt=settled.escalation_receipt_id,
            task_id=recorded.task_id,
            escalation_receipt_id=settled.escalation_receipt_id,
        )

    def _handle(self, call: ToolRequest, recorded: RecordedAdmission, admitted_at: Any) -> Result:
        """The task is durable already: its receipt is stored. Who declared the extension is given a handle of it."""
        meta = receipt_meta(recorded.receipt_id, None)
        if call.takes_tasks:
            return {**created_task(recorded.receipt_id, admitted_at), "_meta": meta}
        content = {
            "mode": "async",
            "receipt_id": recorded.receipt_id,
            "task_id": recorded.task_id,
            "status_endpoint": f"{self._resource.resource}#problemata.status",
            "artifacts_location": f"{self._resource.resource}#problemata.artifacts",
        }
        return structured_result(content, meta=meta)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # a caller that left takes no exception, and asyncio would log it as forgotten


def find_problemata(gate: AdmissionGate, call: ToolRequest, name: str) -> Problemata:
    """Raises -32602 for what this tenant does not have, or this instance does not serve."""
    problemata = gate.problematas.of(call.request.caller.tenant).get(name)
    if problemata is None or not gate.surfaces.matches(problemata.surface_id):
        raise invalid_params("problemata_id: there is no such problemata.")
    return problemata


def _chosen(problemata: Problemata, name: str | None) -> ServedCapability:
    if name is None and len(problemata.capabilities) == 1:
        return next(iter(problemata.capabilities.values()))
    if name is None:
        raise invalid_params("capability: is required, the problemata has several.")
    capability = problemata.capabilities.get(name)
    if capability is None:
        raise invalid_params("capability: the problemata has no such capability.")
    return capability


def _envelope(call: ToolRequest, problemata: Problemata, capability: ServedCapability) -> Envelope:
    """As `POST /v1/evaluate` reads it from a body. Raises RequestRefused for a causality that has no meaning."""
    causality = call.arguments.get("causality")
    if causality is None:
        causality = {
            "root_task_id": str(ULID()),
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": 0,
        }
    members = {
        "tenant_id": str(call.request.caller.tenant),
        "surface_id": problemata.surface_id,
        "policy_profile_id": problemata.policy_profile,
        "payload_kind": problemata.payload_kind,
        "payload": call.arguments["input"],
        "causality": {**causality, "capability_id": capability.id},
    }
    return read_envelope(members, _input_bytes(call))


def _input_bytes(call: ToolRequest) -> bytes:
    """The input as it stands in the request, byte for byte: targets get what was sent (INV-112)."""
    source: bytes | None = call.request.body
    try:
        for name in ("params", "arguments", "input"):
            source = None if source is None else strict_json.member_source(source, name)
    except (RequestRefused, IndexError, ValueError):
        source = None
    return strict_json.encode(call.arguments["input"]) if source is None else source


def _is_async(arguments: Mapping[str, Any], capability: ServedCapability, surface: SurfaceRules | None) -> bool:
    if arguments.get("mode") == "async":
        return True
    if surface is None:
        return False
    estimate, threshold = capability.estimated_duration_ms, surface.async_threshold_ms
    long = estimate is not None and threshold is not None and estimate >= threshold
    return surface.forced_async.matches(capability.id) or long


def _sync_result(recorded: RecordedAdmission, result: Any, *, is_error: bool) -> Result:
    content = {"mode": "sync", "receipt_id": recorded.receipt_id, "task_id": recorded.task_id, "result": result}
    return structured_result(content, is_error=is_error, meta=receipt_meta(recorded.receipt_id, None))
