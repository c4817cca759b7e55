"""AsyncGate as the kit serves it: its definition, and each endpoint's handler."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from asyncgate.broker_gate import AsyncGateProcess, BrokerGate
from asyncgate.database import AsyncGateDatabase
from asyncgate.endpoints import ENDPOINTS, SCHEMAS
from asyncgate.lease_handlers import LeaseHandlers
from asyncgate.metrics import METRICS
from asyncgate.problem_codes import Code
from asyncgate.read_handlers import TaskReadHandlers
from asyncgate.schema import ASYNCGATE, BROKER
from asyncgate.settings import Settings
from asyncgate.task_handlers import TaskHandlers
from legivellum.gate.definition import GateDefinition
from legivellum.gate.interview import Interview
from legivellum.http.router import Handler
from legivellum.identity.caller import TYPES_BUT_WITNESS


async def interview(process: AsyncGateProcess, tenant: UUID) -> Interview:
    """Raises Unavailable."""
    depths, as_of = await process.database.depth(tenant)
    counts = {
        "tasks_waiting": sum(depth.waiting for depth in depths),
        "tasks_held_back": sum(depth.held_back for depth in depths),
        "tasks_leased": sum(depth.leased for depth in depths),
    }
    oldest = min((depth.oldest_available_at for depth in depths if depth.oldest_available_at is not None), default=None)
    notes = ["A mailbox holds more tasks than are counted."] if any(depth.capped for depth in depths) else []
    return Interview(as_of, counts, {"tasks_waiting": oldest}, notes)


def handlers(process: AsyncGateProcess) -> Mapping[str, Handler]:
    """Raises CeilingsUnreadable."""
    gate = BrokerGate.of(process)
    tasks, leases, reading = TaskHandlers(gate), LeaseHandlers(gate), TaskReadHandlers(gate)
    return {
        "POST /tasks": tasks.enqueue,
        "POST /tasks/batch": tasks.enqueue_batch,
        "POST /tasks/{task_id}/revoke": tasks.revoke,
        "POST /lease": leases.lease,
        "POST /lease/renew": leases.renew,
        "POST /lease/release": leases.release,
        "POST /complete": leases.complete,
        "POST /complete/batch": leases.complete_batch,
        "POST /escalate": leases.escalate,
        "GET /tasks": reading.tasks,
        "GET /tasks/{task_id}": reading.task,
        "GET /queue/depth": reading.depth,
    }


GATE = GateDefinition(
    module=__name__,
    name="asyncgate",
    title="AsyncGate",
    doctrine="AsyncGate moves responsibility. It does not judge outcomes.",
    description="Tasks, and leases on them: who works on what now, and for how long.",
    schema=ASYNCGATE,
    requires=("memorygate.schema:LEDGER",),
    role=BROKER,
    settings=Settings,
    endpoints=ENDPOINTS,
    schemas=SCHEMAS,
    codes=Code,
    connect=AsyncGateDatabase.served,
    handlers=handlers,
    interview=interview,
    callers=TYPES_BUT_WITNESS,
    metrics=METRICS,
)
