"""Plans to their end: DeleGate mints, workers of the library do the steps and see to it that the plan is closed.

Nobody here acts for a gate: five processes, a worker, and a person who uses the ledger.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import new_id

from legivellum_worker import Failed, Output, Work, Worker, WorkerSettings
from metagate_cli.inbox import completion

pytestmark = pytest.mark.slow

SINK = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
Handler = Callable[[Work], object]


@asynccontextmanager
async def working(
    tenant: PlanTenant, folder: Path, handlers: Mapping[str, Handler], delegate: str = "delegate", **options: Any
) -> AsyncIterator[Worker]:
    """A worker of the tenant, which also closes plans."""
    gates = tenant.gates
    key = folder / "worker.key"
    key.write_text(tenant.principals["worker"].key)
    environ = {
        f"METAGATE_{name.upper()}_URL": gates.url(name)
        for name in ("asyncgate", "memorygate", "depotgate", "interrogate")
    }
    environ |= {
        "METAGATE_DELEGATE_URL": gates.url(delegate),
        "METAGATE_API_KEY_FILE": str(key),
        "METAGATE_SPAWN_PROFILE": "front",
    }
    worker = Worker(WorkerSettings(environ=environ), wait_seconds=1, stop_seconds=1, **options)
    for capability, handler in handlers.items():
        worker.on(capability)(handler)
    running = asyncio.create_task(asyncio.to_thread(worker.run, 4))
    try:
        yield worker
    finally:
        worker.stop()
        await running


async def planned(tenant: PlanTenant, intent: Mapping[str, Any], gate: str = "delegate") -> dict[str, Any]:
    answer = await tenant.ask("principal", "POST", gate, "/plans", {"intent": intent})
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def end_of(
    tenant: PlanTenant, task_id: str, *phases: str, kind: str = "obligation", seconds: float = 60
) -> dict[str, Any]:
    """The receipt that ended the obligation of this task, or one of other phases."""
    async with asyncio.timeout(seconds):
        while True:
            for receipt in await tenant.receipts(obligation_id=task_id):
                if receipt["phase"] in (phases or ("complete",)) and receipt["kind"] == kind:
                    return receipt
            await asyncio.sleep(0.05)


def joined(work: Work) -> Output:
    inputs = work.inputs()
    return Output(" + ".join(inputs[name].decode() for name in sorted(inputs)), "text/markdown")


TEMPLATE: dict[str, Any] = {
    "capability": "document.review",
    "parameters": {
        "type": "object",
        "required": ["documents"],
        "properties": {"documents": {"type": "array", "items": {"type": "string"}}},
    },
    "escalation": [],
    "result": "merge",
    "steps": [
        {
            "id": "read", "forEach": "documents", "capability": "document.summarise", "authority": SINK,
            "job": {"inputs": [{"name": "document", "pointer": "${item}"}], "output": {"mime": "text/markdown"}},
        },
        {
            "id": "merge", "capability": "document.merge", "authority": SINK,
            "job": {"inputs": [{"name": "parts", "step": "read"}]},
        },
    ],
}  # fmt: skip


async def deposited(tenant: PlanTenant, content: bytes) -> str:
    answer = await tenant.ask(
        "principal", "POST", "depotgate", "/artifacts?role=input", content, content_type="text/plain"
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["pointer"])


async def read_artifact(tenant: PlanTenant, pointer: str) -> bytes:
    answer = await tenant.ask("observer", "GET", "depotgate", f"/artifacts/{pointer}")
    assert answer.status_code == 200, answer.text
    return answer.content


@pytest.mark.invariant("INV-076", "INV-082")
async def test_a_plan_from_a_template_runs_to_its_end(gates: GateGroup, tmp_path: Path) -> None:
    """Every obligation is closed once; the plan's completion names the artifact of its result."""
    tenant = await plan_tenant(gates, templates={"review": TEMPLATE})
    documents = [await deposited(tenant, text) for text in (b"one", b"two", b"three")]
    async with working(tenant, tmp_path, {"document.summarise": joined, "document.merge": joined}):
        plan = await planned(tenant, {"template": "review", "parameters": {"documents": documents}})
        end = await end_of(tenant, plan["root_task_id"])
        await end_of(tenant, f"{plan['plan_id']}.close")
    assert (end["emitter"], end["status"]) == ("delegate", "success")
    merged = await end_of(tenant, f"{plan['plan_id']}.merge")
    assert end["artifact_pointer"] == merged["artifact_pointer"]
    assert await read_artifact(tenant, end["artifact_pointer"]) == b"one + two + three"
    receipts = await tenant.receipts(phase="complete")
    closed = [receipt["obligation_id"] for receipt in receipts]
    assert sorted(closed) == sorted(set(closed))
    assert len(closed) == 2 + 3 + 1 + 1  # planning and plan, reading thrice, merging, closing
    again = await tenant.ask("stranger", "POST", "delegate", f"/plans/{plan['plan_id']}/close", {})
    assert (again.status_code, again.json()["receipt_id"]) == (200, end["receipt_id"])
    assert (await tenant.ask("delegate", "GET", "memorygate", "/inbox")).json()["items"] == []


async def test_a_failure_ten_needs_deep_ends_every_step(tenant: PlanTenant, tmp_path: Path) -> None:
    """The first step fails: each of the ten behind it ends without having run, and the plan as a failure."""
    ran = []

    def handler(work: Work) -> None:
        ran.append(work.task_id.rpartition(".")[2])
        raise Failed("BROKEN")

    steps = [{"id": "s0", "capability": "chain", "job": {}}]
    steps += [
        {"id": f"s{number}", "capability": "chain", "job": {}, "dependsOn": [f"s{number - 1}"]}
        for number in range(1, 11)
    ]
    async with working(tenant, tmp_path, {"chain": handler}):
        plan = await planned(tenant, {"draft": {"escalation": [], "steps": steps}})
        end = await end_of(tenant, plan["root_task_id"], seconds=90)
        await end_of(tenant, f"{plan['plan_id']}.close")
    assert (end["status"], ran) == ("failure", ["s0"])
    reasons = [(await end_of(tenant, f"{plan['plan_id']}.s{number}"))["metadata"]["reason"] for number in range(11)]
    assert reasons == ["BROKEN"] + ["DEPENDENCY_NOT_MET"] * 10


async def test_what_waited_goes_on_when_a_person_completes_a_step(tenant: PlanTenant, tmp_path: Path) -> None:
    """The step fails and is escalated by its rule; the person's text is the next step's input."""

    def second(work: Work) -> Output:
        return Output(f"{work.inputs()['first'].decode()} and so on")

    def fails(_: Work) -> None:
        raise Failed("NO_IDEA")

    draft = {
        "escalation": [],
        "steps": [
            {"id": "first", "capability": "hard", "job": {}, "escalation": [{"on": ["failure"], "class": "trust", "to": "approver"}]},
            {"id": "second", "capability": "easy", "job": {"inputs": [{"name": "first", "step": "first"}]}},
        ],
    }  # fmt: skip
    async with working(tenant, tmp_path, {"hard": fails, "easy": second}):
        plan = await planned(tenant, {"draft": draft})
        first = f"{plan['plan_id']}.first"
        escalated = await end_of(tenant, first, "escalate")
        assert (escalated["recipient_ai"], escalated["escalation_reason"]) == ("approver", "NO_IDEA")
        refused = await tenant.ask("principal", "POST", "delegate", f"/plans/{plan['plan_id']}/close", {})
        assert (refused.status_code, refused.json()["code"]) == (409, "PLAN_NOT_FINISHED")
        [obligation] = (await tenant.ask("approver", "GET", "memorygate", "/inbox")).json()["items"]
        receipt = completion(obligation, "By hand", status="success", metadata={})
        assert (await tenant.ask("approver", "POST", "memorygate", "/receipts", receipt)).status_code == 201
        end = await end_of(tenant, plan["root_task_id"])
    assert end["status"] == "success"
    assert (await end_of(tenant, f"{plan['plan_id']}.second"))["outcome_text"] == "By hand and so on"


def spawning_draft(authority: Mapping[str, Any]) -> dict[str, Any]:
    granted = {"spawn": {"max": 1}, "maxDepth": 4, **authority}
    return {"escalation": [], "steps": [{"id": "begin", "capability": "begin", "job": {}, "authority": granted}]}


async def submitted(tenant: PlanTenant, draft: Mapping[str, Any]) -> str:
    """The id of a plan whose request InterroGate admitted and DeleGate took."""
    plan_id = new_id()
    answer = await tenant.ask(
        "principal", "POST", "interrogate", "/v1/evaluate",
        {
            "tenant_id": str(tenant.uid), "surface_id": "public", "policy_profile_id": "front",
            "payload_kind": "task", "payload": {"intent": {"draft": draft}},
            "causality": {
                "root_task_id": plan_id, "parent_task_id": None, "caused_by_receipt_id": None,
                "spawn_depth": 0, "capability_id": "plan.submit",
            },
        },
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return plan_id


@pytest.mark.invariant("INV-087")
async def test_a_worker_asks_for_plans_through_interrogate_alone(gates: GateGroup, tmp_path: Path) -> None:
    """At DeleGate it is refused; spawned under its lease, a declared template becomes a plan of the task's principal."""
    tenant = await plan_tenant(gates, templates={"review": TEMPLATE})
    document = await deposited(tenant, b"one")
    tasks = []

    def begin(work: Work) -> str:
        tasks.append(work.spawn("document.review", {"documents": [document]}))
        return tasks[0].task_id

    draft = spawning_draft(SINK)
    refused = await tenant.ask("worker", "POST", "delegate", "/plans", {"intent": {"draft": draft}})
    assert refused.status_code == 403
    handlers = {"begin": begin, "document.summarise": joined, "document.merge": joined}
    async with working(tenant, tmp_path, handlers, delegate="admitting"):
        plan_id = await submitted(tenant, draft)
        end = await end_of(tenant, plan_id)
        [task] = tasks
        inner = await end_of(tenant, task.task_id)
        await end_of(tenant, f"{task.task_id}.close")
    assert (end["status"], inner["status"]) == ("success", "success")
    assert inner["principal_ai"] == "principal"
    assert await read_artifact(tenant, inner["artifact_pointer"]) == b"one"
    assert task.answer["plan_id"] == task.task_id
    # The request and its two steps, what the worker asked for and its three steps: all were admitted, none beside.
    admitted = await tenant.receipts(kind="admission", phase="accepted")
    assert len(admitted) == 1 + 2 + 1 + 3


@pytest.mark.invariant("INV-124")
async def test_a_spawned_plan_may_no_more_than_the_lease(gates: GateGroup, tmp_path: Path) -> None:
    """The template's steps store outputs, the worker's step may not: InterroGate admits, DeleGate refuses, nothing is minted."""
    tenant = await plan_tenant(gates, templates={"review": TEMPLATE})
    handlers = {"begin": lambda work: work.spawn("document.review", {"documents": ["s3://a"]}).task_id}
    async with working(tenant, tmp_path, handlers, delegate="admitting"):
        plan_id = await submitted(tenant, spawning_draft({}))
        begin = await end_of(tenant, f"{plan_id}.begin")
        end = await end_of(tenant, plan_id)
    assert begin["metadata"] == {"reason": "SPAWN_UNDELIVERED"}
    assert end["status"] == "failure"
    opened = await tenant.receipts(kind="obligation", phase="accepted", emitter="delegate")
    assert {receipt["task_id"].partition(".")[0] for receipt in opened} == {plan_id}


async def test_delegate_may_be_away_while_plans_end(tenant: PlanTenant, tmp_path: Path) -> None:
    """Every dispatched step goes on; the end comes when DeleGate is there again, and comes once."""
    draft = {"escalation": [], "steps": [{"id": "only", "capability": "easy", "job": {}}]}
    plan = await planned(tenant, {"draft": draft})
    async with AsyncExitStack() as stack:
        # The worker comes when DeleGate is gone: a quick one would have the plan closed before DeleGate had stopped.
        async with tenant.gates.without("delegate"):
            await stack.enter_async_context(working(tenant, tmp_path, {"easy": lambda _: "done"}))
            await end_of(tenant, f"{plan['plan_id']}.only")
            # Given back, for longer and longer: it was queued when it was parked, and after each lease.
            async with asyncio.timeout(60):
                while len(await tenant.receipts(task_id=f"{plan['plan_id']}.close", phase="queued")) < 2:
                    await asyncio.sleep(0.05)
        end = await end_of(tenant, plan["root_task_id"])
        await end_of(tenant, f"{plan['plan_id']}.close")
    assert end["status"] == "success"
    assert len(await tenant.receipts(obligation_id=plan["root_task_id"], phase="complete")) == 1
