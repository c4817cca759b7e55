"""What people, agents and workers do at each part of the system, so that a test sees which of it a stopped part hinders.

An activity is prepared while everything runs (`PreparedActivities.made`), then tried again and again with the same
request: it *goes on* when it is answered with a success, and *waits* as long as nobody answers, or a gate says 503.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from tests.integration.delegate.driving import CLAIM, completed, envelope, evaluated, lease_next, run_task
from tests.integration.memorygate.conftest import new_id
from tests.integration.whole.system import SINK, DeclaredTenant, story_body

MCP = "2026-07-28"
STEP = {"id": "last", "capability": "probe.last", "job": {"instruction": "Look."}}
OPEN = [
    {"id": "lease", "capability": "probe.lease", "job": {"instruction": "Look."}},
    {"id": "complete", "capability": "probe.complete", "job": {"instruction": "Look."}},
    {"id": "deposit", "capability": "probe.deposit", "job": {"instruction": "Look."}, "authority": {**SINK, "spawn": {"max": 9}, "maxDepth": 4}},
]  # fmt: skip
"""Steps of a plan that stays open: one that nobody leased, two under leases."""


class AnswerRefusedError(AssertionError):
    """A gate answered neither with success nor that it waits for something."""


@dataclass(frozen=True, slots=True)
class PreparedActivities:
    """What the requests of one row name: everything is there before the part is stopped."""

    tenant: DeclaredTenant
    ending: str
    """A plan whose steps have ended, and which nobody has closed."""
    open: str
    complete_lease: dict[str, Any]
    deposit_lease: dict[str, Any]
    requested: str
    """A plan that InterroGate admitted, and DeleGate has not heard of."""
    request: bytes
    admission: str
    minted: str
    """An obligation of AsyncGate's that is not parked yet."""
    cause: str
    """The receipt that opened the step under `deposit_lease`."""
    ids: Mapping[str, str]

    @classmethod
    async def made(cls, tenant: DeclaredTenant) -> "PreparedActivities":
        ending, open_plan = await planned(tenant, [STEP]), await planned(tenant, OPEN)
        await run_task(tenant, "probe.last")
        complete_lease, deposit_lease = [await lease_next(tenant, f"probe.{name}") for name in ("complete", "deposit")]
        requested, minted = new_id(), new_id()
        request = await document(tenant, b"Cats sleep.")
        answer = await evaluated(tenant, "document.review", json.loads(request), plan_id=requested)
        assert answer.status_code == 200, answer.text
        receipt = {"phase": "accepted", "task_id": minted, "principal_ai": "principal", "recipient_ai": "svc:asyncgate"}
        posted = await tenant.ask("principal", "POST", "memorygate", "/receipts", {"receipt_id": new_id(), **receipt})
        assert posted.status_code == 201, posted.text
        [cause, *_] = await tenant.receipts(obligation_id=f"{open_plan}.deposit")
        ids = {name: new_id() for name in ("admission", "receipt", "lease", "boot", "spawn", "call")}
        return cls(
            tenant, ending, open_plan, complete_lease, deposit_lease, requested, request,
            answer.json()["receipt_id"], minted, cause["receipt_id"], ids,
        )  # fmt: skip

    async def finish(self) -> None:
        """End what is still open, so that every plan of the row can have its end."""
        tenant = self.tenant
        await run_task(tenant, lease=self.deposit_lease)
        for capability in ("probe.lease", "probe.minted"):
            await run_task(tenant, capability)
        for plan_id in (self.open, self.requested, self.ending):
            body = {"abandon": True} if plan_id == self.requested else {}
            answer = await tenant.ask("principal", "POST", "admitting", f"/plans/{plan_id}/close", body)
            assert answer.status_code == 200, answer.text
        closing = await completed(tenant, "principal", self.ids["receipt"], self.ids["receipt"])
        assert closing.status_code == 201, closing.text

    @property
    def obligations(self) -> tuple[str, ...]:
        """What must have ended once when the row is over."""
        steps = [f"{self.open}.{step['id']}" for step in OPEN]
        plans = (self.ending, self.open, self.requested)
        return (
            *plans,
            *(f"{plan}:planning" for plan in plans),
            *steps,
            f"{self.ending}.last",
            self.minted,
            self.ids["receipt"],
        )

    # ── the requests ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def boot(self) -> httpx.Response:
        return await self.tenant.ask(
            "component",
            "POST",
            "metagate",
            "/v1/bootstrap",
            {"component_key": "indexer"},
            idempotency_key=self.ids["boot"],
        )

    async def call(self) -> httpx.Response:
        arguments = {
            "problemata_id": "desk", "capability": "document.any", "input": {"n": 3}, "mode": "async",
            "idempotency_key": self.ids["call"],
            "causality": {"root_task_id": self.ids["call"], "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0},
        }  # fmt: skip
        return await called(self.tenant, "problemata.passthrough", arguments)

    async def admit(self) -> httpx.Response:
        return await evaluated(self.tenant, "document.any", {"n": 1}, plan_id=self.ids["admission"])

    async def spawn(self) -> httpx.Response:
        body = envelope(
            self.tenant, "document.any", {"n": 2}, self.open, root_task_id=self.open, task_id=self.ids["spawn"],
            parent_task_id=f"{self.open}.deposit", caused_by_receipt_id=self.cause,
        )  # fmt: skip
        return await self.tenant.ask(
            "worker", "POST", "interrogate", "/v1/evaluate", body,
            legivellum_lease=self.deposit_lease["lease_id"], idempotency_key=self.ids["spawn"],
        )  # fmt: skip

    async def plan(self) -> httpx.Response:
        path = f"/intents/{self.tenant.namespace}"
        return await self.tenant.ask(None, "POST", "admitting", path, self.request, legivellum_admission=self.admission)

    async def end(self) -> httpx.Response:
        return await self.tenant.ask("stranger", "POST", "admitting", f"/plans/{self.ending}/close", {})

    async def enqueue(self) -> httpx.Response:
        task = {
            "task_id": self.minted,
            "principal_ai": "principal",
            "payload_pointer": "s3://probe",
            "capability": "probe.minted",
        }
        return await self.tenant.ask("principal", "POST", "asyncgate", "/tasks", task)

    async def lease(self) -> httpx.Response:
        body = {"capabilities": ["probe.nothing"], "most": 1, "wait_seconds": 0}
        return await self.tenant.ask("worker", "POST", "asyncgate", "/lease", body)

    async def complete(self) -> httpx.Response:
        body = {"lease_id": self.complete_lease["lease_id"], **CLAIM}
        return await self.tenant.ask("worker", "POST", "asyncgate", "/complete", body)

    async def deposit_output(self) -> httpx.Response:
        return await self.tenant.ask(
            "worker", "POST", "depotgate", "/artifacts?role=output", b"An output.", content_type="text/plain",
            legivellum_lease=self.deposit_lease["lease_id"],
        )  # fmt: skip

    async def deposit_input(self) -> httpx.Response:
        return await self.tenant.ask(
            "principal", "POST", "depotgate", "/artifacts?role=input", b"An input.", content_type="text/plain"
        )

    async def post_receipt(self) -> httpx.Response:
        name = self.ids["receipt"]
        receipt = {
            "receipt_id": name,
            "phase": "accepted",
            "task_id": name,
            "principal_ai": "principal",
            "recipient_ai": "principal",
        }
        return await self.tenant.ask("principal", "POST", "memorygate", "/receipts", receipt)

    async def read_inbox(self) -> httpx.Response:
        return await self.tenant.ask("principal", "GET", "memorygate", "/inbox")


ACTIVITIES: Mapping[str, Callable[[PreparedActivities], Awaitable[httpx.Response]]] = {
    "boots": PreparedActivities.boot,
    "MCP": PreparedActivities.call,
    "admissions": PreparedActivities.admit,
    "spawns": PreparedActivities.spawn,
    "new plans": PreparedActivities.plan,
    "enqueue": PreparedActivities.enqueue,
    "lease": PreparedActivities.lease,
    "complete": PreparedActivities.complete,
    "outputs": PreparedActivities.deposit_output,
    "inputs": PreparedActivities.deposit_input,
    "HTTP receipts": PreparedActivities.post_receipt,
    "inboxes": PreparedActivities.read_inbox,
    "ends": PreparedActivities.end,
}
"""By the names that docs/stop-one.md uses; there `steps` of running plans and `changes` of declared files are two more."""


async def goes_on(activity: str, prepared: PreparedActivities) -> bool:
    """One try. Raises AnswerRefusedError where the answer is neither a success nor a reason to wait."""
    try:
        answer = await ACTIVITIES[activity](prepared)
    except httpx.TransportError:
        return False
    if answer.status_code in {502, 503}:
        return False
    body = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else {}
    if "error" in body:  # of JSON-RPC: it says there what HTTP says with 503
        assert body["error"]["code"] == -32603, body
        return False
    assert not body.get("result", {}).get("isError"), body
    if answer.status_code >= 300:
        raise AnswerRefusedError(f"{activity}: {answer.status_code} {answer.text}")
    return True


async def until_it_goes_on(activity: str, prepared: PreparedActivities) -> None:
    async with asyncio.timeout(30):
        while not await goes_on(activity, prepared):
            await asyncio.sleep(0.05)


async def called(tenant: DeclaredTenant, tool: str, arguments: Mapping[str, Any]) -> httpx.Response:
    """A call of a tool of InterroGate's MCP gateway."""
    meta = {"io.modelcontextprotocol/protocolVersion": MCP, "io.modelcontextprotocol/clientCapabilities": {}}
    message = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    }  # fmt: skip
    return await tenant.ask(
        "principal", "POST", "interrogate", "/mcp", message, accept="application/json, text/event-stream",
        mcp_protocol_version=MCP, mcp_method="tools/call", mcp_name=tool,
    )  # fmt: skip


async def planned(tenant: DeclaredTenant, steps: list[dict[str, Any]]) -> str:
    """A plan that the tenant asked for: admitted by InterroGate, sent on to DeleGate by the test. Its id."""
    plan_id, payload = new_id(), {"intent": {"draft": {"escalation": [], "steps": steps}}}
    answer = await evaluated(tenant, "plan.submit", payload, plan_id=plan_id)
    assert answer.status_code == 200, answer.text
    taken = await tenant.ask(
        None, "POST", "admitting", f"/intents/{tenant.namespace}", json.dumps(payload).encode(),
        legivellum_admission=answer.json()["receipt_id"],
    )  # fmt: skip
    assert taken.status_code == 202, taken.text
    return plan_id


async def document(tenant: DeclaredTenant, *contents: bytes) -> bytes:
    """The request of a story about these documents, which lie in DepotGate."""
    pointers = []
    for content in contents:
        answer = await tenant.ask(
            "principal", "POST", "depotgate", "/artifacts?role=input", content, content_type="text/plain"
        )
        assert answer.status_code == 201, answer.text
        pointers.append(str(answer.json()["pointer"]))
    return story_body(pointers)
