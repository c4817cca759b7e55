"""`problemata.status`, `.artifacts`, `.capabilities`: what agents may read (GW-05).

A reading of a task is a request of kind `query` in the domain of that task: where it is denied there is a receipt, and
where it passes nothing is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from interrogate.admission_gate import AdmissionGate
from interrogate.admission_receipt import read_admission
from interrogate.admission_service import evaluation_request
from interrogate.asked_task import AskedTask, TaskReceipt, artifact_of, task_state
from interrogate.decision import AdmissionOutcome
from interrogate.envelope_parser import read_envelope
from interrogate.mcp_gateway.gateway_tool import GatewayTool, Result, ToolRequest, invalid_params
from interrogate.mcp_gateway.native_tools import may_ask, rules_of
from interrogate.mcp_gateway.result_forms import refusal_result, structured_result
from interrogate.mcp_gateway.task_handles import RECEIPTS, visible_task
from interrogate.mcp_gateway.upstream import Upstreams, UpstreamTarget
from interrogate.problemata import Problemata
from legivellum.base.bounded_schema import BoundedSchema
from legivellum.base.timestamps import rfc3339
from legivellum.identity.caller import may_read_others

_TASK_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "task_id": {"type": "string", "minLength": 1, "maxLength": 200, "description": "The task, as it was answered."}
    },
    "required": ["task_id"],
    "additionalProperties": False,
}
_EMPTY_SCHEMA: Final = {"type": "object", "properties": {}, "additionalProperties": False}
_READ_ONLY: Final = {"readOnlyHint": True, "openWorldHint": False}

Read = Callable[[ToolRequest], Awaitable[Result]]


class ReadingTools:
    """One per process."""

    def __init__(self, gate: AdmissionGate, upstreams: Upstreams) -> None:
        self._gate = gate
        self._upstreams = upstreams
        self.tools: Mapping[str, GatewayTool] = {
            name: GatewayTool(
                {"name": name, "title": title, "description": text, "inputSchema": schema, "annotations": _READ_ONLY},
                _checked(schema, read),
            )
            for name, title, text, schema, read in (
                (
                    "problemata.status",
                    "Status of a task",
                    "How a task stands: its state, who has custody of it, what was said at its end, and its receipts.",
                    _TASK_SCHEMA,
                    self._status,
                ),
                (
                    "problemata.artifacts",
                    "Artifacts of a task",
                    "What a task produced: pointers with their media types, checksums and sizes.",
                    _TASK_SCHEMA,
                    self._artifacts,
                ),
                (
                    "problemata.capabilities",
                    "What may be asked",
                    "The problematas of this tenant that this principal may ask, with their capabilities.",
                    _EMPTY_SCHEMA,
                    self._capabilities,
                ),
            )
        }

    async def _status(self, call: ToolRequest) -> Result:
        task, receipts, refusal = await self._read(call)
        if refusal is not None:
            return refusal
        changed = max([task.admitted_at, *(receipt.stored_at for receipt in receipts)])
        return structured_result(
            {
                "task_id": task.task_id,
                "state": task_state(task, receipts),
                "custodian": task.custodian,
                "outcome_text": None if task.closing is None else task.closing.get("outcome_text"),
                "updated_at": rfc3339(changed),
                "receipts": [receipt.summary for receipt in receipts],
            }
        )

    async def _artifacts(self, call: ToolRequest) -> Result:
        task, receipts, refusal = await self._read(call)
        if refusal is not None:
            return refusal
        found = [artifact_of(receipt.fields) for receipt in receipts] + [artifact_of(task.closing)]
        by_pointer = {artifact["pointer"]: artifact for artifact in found if artifact is not None}
        # DepotGate says what it keeps: pointers that it never stored lead elsewhere.
        kept = {
            receipt.fields.get("artifact_pointer")
            for receipt in receipts
            if (receipt.fields["kind"], receipt.fields["phase"]) == ("artifact", "stored")
        }
        return structured_result(
            {
                "task_id": task.task_id,
                "artifacts": list(by_pointer.values()),
                "retrievable": bool(by_pointer) and by_pointer.keys() <= kept,
            }
        )

    async def _capabilities(self, call: ToolRequest) -> Result:
        caller = call.request.caller
        listed = []
        for problemata in self._gate.problematas.of(caller.tenant).values():
            rules = rules_of(self._gate, problemata)
            if rules is None or not self._gate.surfaces.matches(problemata.surface_id):
                continue
            names = [item.id for item in problemata.capabilities.values() if may_ask(rules[1], item, caller)]
            if names:
                listed.append(
                    {
                        "problemata_id": problemata.name,
                        "version": problemata.version,
                        "available": not self.is_degraded(problemata),
                        "capabilities": names,
                    }
                )
        return structured_result({"problematas": sorted(listed, key=lambda item: str(item["problemata_id"]))})

    def is_degraded(self, problemata: Problemata) -> bool:
        """Whether a tool of it is known to have changed at its MCP server: it is not called any more (GW-08)."""
        rules = rules_of(self._gate, problemata)
        if rules is None:
            return True
        return any(
            (target := rules[1].targets.get(pin.target)) is not None
            and self._upstreams.is_changed(UpstreamTarget(problemata.tenant, problemata.namespace, target), pin)
            for capability in problemata.capabilities.values()
            if (pin := capability.tool) is not None
        )

    async def _read(self, call: ToolRequest) -> tuple[AskedTask, list[TaskReceipt], Result | None]:
        """The task, and why it may not be read. Raises -32602 where there is no such task for this caller."""
        caller = call.request.caller
        task = await visible_task(self._gate, caller, task_id=call.arguments["task_id"])
        refusal = await self._query(call, task)
        if refusal is not None:
            return task, [], refusal
        receipts = await self._gate.process.database.task_receipts(caller.tenant, task.task_id, RECEIPTS)
        return task, receipts, None

    async def _query(self, call: ToolRequest, task: AskedTask) -> Result | None:
        """A `check` in the domain of the task: no row where it passes, a refusal and its receipt where it does not.

        Admins and observers read the tenant by their type; policies are about those who ask for work.
        """
        if may_read_others(call.request.caller.type):
            return None
        domain = task.admission["body"]
        members = {
            "tenant_id": str(call.request.caller.tenant),
            "surface_id": domain["surface_id"],
            "policy_profile_id": domain["policy_profile_id"],
            "payload_kind": "query",
            "payload": {"task_id": task.task_id},
        }
        envelope = read_envelope(members, b"")
        request = evaluation_request(envelope, call.request.exchange, call.request.caller)
        deadline = asyncio.get_running_loop().time() + self._gate.process.settings.deadline_seconds
        evaluation = await self._gate.evaluator.check(request, deadline)
        if evaluation is None:
            return None
        recorded = evaluation.admission or read_admission(evaluation.stored.body)
        return refusal_result(recorded) if recorded.decision.outcome is AdmissionOutcome.DENY else None


def _checked(schema: Mapping[str, Any], read: Read) -> Read:
    own_schema = BoundedSchema(schema)

    async def call(request: ToolRequest) -> Result:
        if (problem := own_schema.problem(request.arguments)) is not None:
            raise invalid_params(problem)
        return await read(request)

    return call
