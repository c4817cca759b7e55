"""Handles of the Tasks extension (`io.modelcontextprotocol/tasks`): views of admitted tasks, read from their receipts.

The id of a handle is that of the admission's receipt, which was durable before anybody heard of it; so any process of
the gate answers. Canceling ends the handle and never the work, which others may depend on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from datetime import datetime
from typing import Any, Final, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp_types import HEADER_MISMATCH, INTERNAL_ERROR, MISSING_REQUIRED_CLIENT_CAPABILITY, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from interrogate.admission_gate import AdmissionGate
from interrogate.asked_task import AskedTask, TaskReceipt, answered_result, escalation_of, ledger_result, task_state
from interrogate.envelope import BEGINS_NOTHING
from interrogate.mcp_gateway.caller import current_request
from interrogate.mcp_gateway.gateway_tool import (
    TASKS_EXTENSION,
    Result,
    declares_tasks,
    invalid_params,
    protocol_error,
)
from interrogate.mcp_gateway.result_forms import receipt_meta, structured_result
from legivellum.base.timestamps import rfc3339
from legivellum.identity.caller import Caller, may_read_others

T = TypeVar("T")

RECEIPTS: Final = 100
"""Most receipts of a task that are looked at."""
TTL_MS: Final = 72 * 3_600 * 1_000
"""As long as what a target answered is kept."""
POLL_MS: Final = 1_000
_WORKING: Final = frozenset({"admitted", "open", "escalated"})


class TaskParams(RequestParams):
    task_id: str


class TaskHandles:
    """`tasks/get`, `tasks/update`, `tasks/cancel`."""

    def __init__(self, gate: AdmissionGate) -> None:
        self._gate = gate

    def register(self, server: Server[Any]) -> None:
        for method, handler in (
            ("tasks/get", self._get),
            ("tasks/update", self._update),
            ("tasks/cancel", self._cancel),
        ):
            server.add_request_handler(method, TaskParams, handler)

    async def _get(self, context: ServerRequestContext[Any, Any], params: TaskParams) -> Result:
        task = await self._task(context, params)
        receipts = await _asked(
            self._gate.process.database.task_receipts(current_request().caller.tenant, task.task_id, RECEIPTS)
        )
        return detailed_task(task, receipts)

    async def _update(self, context: ServerRequestContext[Any, Any], params: TaskParams) -> Result:
        """Nothing is ever asked of the client, so no answer of it is outstanding: it is ignored."""
        await self._task(context, params)
        return {}

    async def _cancel(self, context: ServerRequestContext[Any, Any], params: TaskParams) -> Result:
        task = await self._task(context, params)
        await _asked(self._gate.process.database.cancel_handle(current_request().caller.tenant, task.receipt_id))
        return {}

    async def _task(self, context: ServerRequestContext[Any, Any], params: TaskParams) -> AskedTask:
        """The task of a handle. Raises MCPError: unknown and foreign are the same."""
        _require_extension(context)
        request = current_request()
        sent = request.exchange.header(MCP_NAME_HEADER.encode())
        # The SDK compares this header for its own methods only; a proxy may have routed by it.
        if context.protocol_version in MODERN_PROTOCOL_VERSIONS and (
            sent is None or decode_header_value(sent.decode("latin-1")) != params.task_id
        ):
            raise MCPError(HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} is not the task's id.")
        return await visible_task(self._gate, request.caller, receipt_id=params.task_id)


async def visible_task(
    gate: AdmissionGate, caller: Caller, *, task_id: str | None = None, receipt_id: str | None = None
) -> AskedTask:
    """A task as it is shown to who asked for it, to admins and observers. Raises -32602 for any other."""
    task = await _asked(gate.process.database.asked_task(caller.tenant, task_id=task_id, receipt_id=receipt_id))
    if task is None or task.admission.get("task_type") in BEGINS_NOTHING:
        raise invalid_params("task_id: there is no such task.")
    if task.asked_by != caller.principal_key and not may_read_others(caller.type):
        raise invalid_params("task_id: there is no such task.")
    return task


async def _asked(work: Awaitable[T]) -> T:
    try:
        return await work
    except Exception as error:
        known = protocol_error(error)
        if known is None:
            raise
        raise known from error


def _require_extension(context: ServerRequestContext[Any, Any]) -> None:
    if not declares_tasks(context):
        raise MCPError(
            MISSING_REQUIRED_CLIENT_CAPABILITY,
            "Missing required client capability",
            {"requiredCapabilities": {"extensions": {TASKS_EXTENSION: {}}}},
        )


def created_task(receipt_id: str, admitted_at: datetime) -> Result:
    """What is answered instead of a result."""
    return {"resultType": "task", **_task(receipt_id, "working", admitted_at, admitted_at)}


def detailed_task(task: AskedTask, receipts: list[TaskReceipt]) -> Result:
    """The task with its result, where there is one."""
    state = task_state(task, receipts)
    changed = max([task.admitted_at, *(receipt.stored_at for receipt in receipts)])
    if task.canceled_at is not None and (task.closed_at is None or task.canceled_at < task.closed_at):
        return _task(task.receipt_id, "cancelled", task.admitted_at, task.canceled_at)
    if state in _WORKING:
        return _task(task.receipt_id, "working", task.admitted_at, changed)
    if state == "canceled":
        return _task(task.receipt_id, "cancelled", task.admitted_at, changed)
    if state == "undelivered":
        escalation = escalation_of(task, receipts)
        error = {
            "code": INTERNAL_ERROR,
            "message": "The request was admitted and not delivered.",
            "data": {
                "reason_code": "UNDELIVERED",
                **receipt_meta(task.receipt_id, None if escalation is None else escalation.receipt_id),
            },
        }
        return {**_task(task.receipt_id, "failed", task.admitted_at, changed), "error": error}
    return {**_task(task.receipt_id, "completed", task.admitted_at, changed), "result": finished_result(task)}


def finished_result(task: AskedTask) -> Result:
    """What `tools/call` would have answered, had it waited."""
    result: Any = answered_result(task.forwards) if task.closing is None else ledger_result(task.closing)
    content: Mapping[str, Any] = {
        "mode": "sync",
        "receipt_id": task.receipt_id,
        "task_id": task.task_id,
        "result": result,
    }
    failed = task.closing is not None and task.closing["status"] != "success"
    return structured_result(content, is_error=failed, meta=receipt_meta(task.receipt_id, None))


def _task(receipt_id: str, status: str, created: datetime, updated: datetime) -> Result:
    return {
        "taskId": receipt_id,
        "status": status,
        "createdAt": rfc3339(created),
        "lastUpdatedAt": rfc3339(updated),
        "ttlMs": TTL_MS,
        "pollIntervalMs": POLL_MS,
    }
