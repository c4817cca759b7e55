"""Tool calls without their door: Problematas and policies as a gate follows them, decisions and outcomes as it stores them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import PublishedWorld
from tests.integration.memorygate.conftest import new_id, rows
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from interrogate.admission_receipt import RecordedAdmission, read_admission
from interrogate.call_recorder import CallRecorder
from interrogate.calls import CallRow
from interrogate.database import InterrogateDatabase
from interrogate.envelope_parser import read_envelope
from interrogate.evaluator import Evaluation, EvaluationRequest, Evaluator
from interrogate.observation import Requester
from interrogate.policies import PolicyDatabase, PolicyReplica
from interrogate.problemata import Problemata
from interrogate.problematas import ProblemataDatabase, ProblemataReplica
from interrogate.tool_call import CallOutcome, ToolCall

ALICE = Requester("alice", "principal")
ANSWERED = CallOutcome(
    duration_us=1_500, attempts=1, state="success", result_sha256="a" * 64, result_bytes=12, protocol="2026-07-28"
)
SEND_EMAIL: dict[str, Any] = {
    "name": "send_email",
    "description": "Sends an email.",
    "inputSchema": {"type": "object", "properties": {"to": {"type": "string"}}},
}


def mail_policy(**changes: Any) -> dict[str, Any]:
    surface = {
        "surfaceId": "mail",
        "kind": "McpGateway",
        "principals": ["*"],
        "capabilities": {"allow": ["mail.*"]},
        "parentage": "Tenant",
        "targets": [{"name": "mailserver", "kind": "Mcp", "url": "http://mail-mcp:8000/mcp", "timeoutMs": 2_000}],
        **changes.pop("surface", {}),
    }
    return {"limits": {"maxSpawnDepth": 3}, **changes, "surfaces": [surface]}


def mail_problemata(**changes: Any) -> dict[str, Any]:
    tools = [
        {"id": "mail.send", "tool": {"target": "mailserver", "definition": SEND_EMAIL}},
        {"id": "mail.read", "tool": {"target": "mailserver", "as": "read", "definition": SEND_EMAIL | {"name": "read mail"}}},
    ]  # fmt: skip
    return {
        "version": "3",
        "gateway": {
            "policyProfileRef": {"name": "front-desk"}, "surfaceId": "mail", "principals": ["mail-gateway"],
        },
        "payloadKind": "plan_request",
        "exposeTools": True,
        "capabilities": tools,
        **changes,
    }  # fmt: skip


@dataclass(slots=True)
class CallingGate:
    """What a process of the gateway has of the database side."""

    world: PublishedWorld
    database: InterrogateDatabase
    policies: PolicyReplica
    problematas: ProblemataReplica
    evaluator: Evaluator
    recorder: CallRecorder

    def problemata(self, name: str = "mail", tenant: UUID | None = None) -> Problemata:
        return self.problematas.of(tenant or self.world.tenant)[name]

    async def publish(
        self, *, tenant: UUID | None = None, principals: tuple[LedgerPrincipal, ...] = (), **what: Any
    ) -> None:
        """And read it."""
        await self.world.publish(*principals, tenant=tenant, **what)
        await self.policies.look()
        await self.problematas.look()

    def request(
        self,
        capability: str = "mail.send",
        *,
        arguments: Mapping[str, Any] | None = None,
        causality: Mapping[str, Any] | None = None,
        requester: Requester = ALICE,
        problemata: str = "mail",
        tenant: UUID | None = None,
        key: str | None = None,
    ) -> EvaluationRequest:
        of_tenant = tenant or self.world.tenant
        served = self.problemata(problemata, of_tenant)
        call = ToolCall(served, served.capabilities[capability], client="agent 1.0")
        envelope = call.envelope(arguments or {"to": "bob"}, tenant=str(of_tenant), causality=causality)
        return EvaluationRequest(envelope, requester, of_tenant, new_id(), key, call)

    async def decide(self, *args: Any, **more: Any) -> tuple[RecordedAdmission, Evaluation]:
        evaluation = await self.evaluator.evaluate(self.request(*args, **more), _soon())
        return evaluation.admission or read_admission(evaluation.stored.body), evaluation

    async def settle(
        self, admission: RecordedAdmission, outcome: CallOutcome = ANSWERED, tenant: UUID | None = None
    ) -> CallRow:
        return await self.recorder.record(tenant or self.world.tenant, admission, outcome)

    async def begin_root(self, root: str, principal: Requester = ALICE, capability: str = "mail.plan") -> None:
        """An admitted task of another kind, below which calls are made."""
        members = {
            "tenant_id": str(self.world.tenant), "surface_id": "mail", "policy_profile_id": "front-desk",
            "payload_kind": "plan_request", "payload": {},
            "causality": {
                "root_task_id": root, "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0,
                "capability_id": capability,
            },
        }  # fmt: skip
        request = EvaluationRequest(read_envelope(members, b"{}"), principal, self.world.tenant, new_id())
        evaluation = await self.evaluator.evaluate(request, _soon())
        assert evaluation.admission is not None
        assert evaluation.admission.decision.outcome == "ALLOW", evaluation.admission.decision

    async def receipts(self, receipt_id: str) -> list[tuple[str, str]]:
        """Phase and body of everything that the admission caused, and of itself."""
        return await rows(  # type: ignore[return-value]
            self.world.database.superuser,
            """SELECT phase, body FROM memorygate.receipt WHERE tenant = $1 AND kind = 'admission'
               AND (receipt_id = $2 OR body::json ->> 'caused_by_receipt_id' = $2) ORDER BY stored_at""",
            self.world.tenant, receipt_id,
        )  # fmt: skip


def _soon() -> float:
    return asyncio.get_running_loop().time() + 10


@asynccontextmanager
async def calling(database: AdmissionDatabase, *, outcome_seconds: float = 5) -> AsyncIterator[CallingGate]:
    """A gate with a tenant of its own, which serves the Problemata `mail`."""
    world = PublishedWorld(database)
    async with contextlib.AsyncExitStack() as stack:
        connected = await InterrogateDatabase.connect(database.writer, size=4, query_timeout=5)
        stack.push_async_callback(connected.close)

        async def policy_database() -> PolicyDatabase:
            return await PolicyDatabase.connect(database.database.identity, size=1, query_timeout=5)

        async def problemata_database() -> ProblemataDatabase:
            return await ProblemataDatabase.connect(database.database.identity, size=1, query_timeout=5)

        policies = PolicyReplica(policy_database, stale_seconds=600)
        problematas = ProblemataReplica(problemata_database, stale_seconds=600)
        stack.push_async_callback(policies.close)
        stack.push_async_callback(problematas.close)
        gate = CallingGate(
            world, connected, policies, problematas, Evaluator(lambda: connected, policies),
            CallRecorder(lambda: connected, policies, outcome_seconds=outcome_seconds),
        )  # fmt: skip
        await gate.publish(policies={"front-desk": mail_policy()}, problematas={"mail": mail_problemata()})
        yield gate
