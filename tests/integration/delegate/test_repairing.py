"""What cannot become a plan any more, what was half minted, and what a start does by itself: one look, and no other."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import asked, closed, completed, run_task, tasks_of
from tests.integration.delegate.forked_gates import DelegateForks, delegate_forks
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARAMETERS = {"documents": ["s3://in/one"]}
STEPS = ("read-0", "merge", "close")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def forks(gates: GateGroup) -> AsyncIterator[DelegateForks]:
    async with delegate_forks(gates) as forks:
        yield forks


async def killed_at(forks: DelegateForks, tenant: PlanTenant, point: str, template: str = "review") -> str:
    """The id of a plan whose process died there."""
    plan_id = new_id()
    body = {"plan_id": plan_id, "intent": {"template": template, "parameters": PARAMETERS}}
    async with forks.serving(point, admission="off") as dying:
        async with httpx.AsyncClient(base_url=dying.url, timeout=30) as client:
            with pytest.raises(httpx.HTTPError):
                await client.post("/plans", json=body, headers=tenant.principals["principal"].headers)
        await dying.ended()
    return plan_id


async def dispatched(tenant: PlanTenant, plan_id: str) -> dict[str, Any]:
    answer = await tenant.ask("stranger", "POST", "delegate", f"/plans/{plan_id}/dispatch")
    assert answer.status_code == 202, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def calls(url: str) -> float:
    """How often a process has asked other gates."""
    async with httpx.AsyncClient(base_url=url) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("delegate_gate_calls_total"))


async def inbox_read(url: str) -> float:
    """Wait until a started process that serves one tenant has read its inbox; how many calls that took."""
    async with asyncio.timeout(20):
        while (made := await calls(url)) == 0:
            await asyncio.sleep(0.02)
    return made


@pytest.mark.invariant("INV-082", "INV-083")
async def test_a_request_of_which_no_plan_can_come_any_more(forks: DelegateForks) -> None:
    """Accepted, and its template is gone: planning ends as a failure and somebody has the whole, once."""
    tenant = await plan_tenant(forks.gates, templates={"gone": REVIEW})
    plan_id = await killed_at(forks, tenant, "after accepted", "gone")
    await tenant.publish(gone=("gone",))
    await tenant.until(
        lambda answer: not answer.json()["valid"], "principal", "POST", "delegate", "/plans/validate",
        {"intent": {"template": "gone", "parameters": PARAMETERS}},
    )  # fmt: skip
    for _ in range(2):
        plan = await dispatched(tenant, plan_id)
        assert (plan["phase"], plan["escalation"]["to"]) == ("failed", "principal")
        assert "TEMPLATE_NOT_FOUND" in plan["escalation"]["reason"]
    receipts = await tenant.receipts(emitter="delegate")
    assert [receipt["phase"] for receipt in receipts] == ["accepted", "accepted", "complete", "escalate"]
    assert (receipts[2]["obligation_id"], receipts[2]["status"]) == (f"{plan_id}:planning", "failure")
    assert (receipts[3]["obligation_id"], receipts[3]["caused_by_receipt_id"]) == (plan_id, receipts[2]["receipt_id"])
    assert (await completed(tenant, "principal", plan_id, plan_id, status="canceled")).status_code == 201
    assert (await dispatched(tenant, plan_id))["phase"] == "closed"


@pytest.mark.invariant("INV-079")
async def test_what_lies_at_depotgate_is_the_plan(forks: DelegateForks) -> None:
    """Its template changed after it was kept: what was kept is handed over (DG-06)."""
    tenant = await plan_tenant(forks.gates)
    plan_id = await killed_at(forks, tenant, "after deposit")
    await tenant.publish(gone=("review",))
    plan = await dispatched(tenant, plan_id)
    assert (plan["phase"], [step["step_id"] for step in plan["steps"]]) == ("running", list(STEPS))
    assert await tasks_of(tenant, plan_id) == sorted(f"{plan_id}.{step}" for step in STEPS)


@pytest.mark.invariant("INV-083")
async def test_tasks_that_cannot_be_handed_over_are_ended(forks: DelegateForks, tmp_path: Path) -> None:
    """Minted, and one of them is revoked before AsyncGate has it: none is parked, none stays open, somebody has the plan."""
    tenant, plan_id = await plan_tenant(forks.gates), new_id()
    pause = tmp_path / "pause"
    pause.touch()
    body = {"plan_id": plan_id, "intent": {"template": "review", "parameters": PARAMETERS}}
    async with (
        forks.serving("before enqueue", admission="off", pause=pause) as delegate,
        httpx.AsyncClient(base_url=delegate.url, timeout=30) as client,
    ):
        headers = tenant.principals["principal"].headers
        asking = asyncio.create_task(client.post("/plans", json=body, headers=headers))
        async with asyncio.timeout(20):
            while not pause.with_suffix(".reached").exists():
                await asyncio.sleep(0.01)
        revoked = await tenant.ask("delegate", "POST", "asyncgate", f"/tasks/{plan_id}.merge/revoke", {})
        assert revoked.status_code == 200, revoked.text
        pause.unlink()
        answer = await asking
    assert (answer.status_code, answer.json()["phase"]) == (202, "escalated"), answer.text
    names = {"obligation_ids": [f"{plan_id}.{step}" for step in STEPS]}
    looked_up = await tenant.ask("principal", "POST", "memorygate", "/v1/obligations/lookup", names)
    assert [item["state"] for item in looked_up.json()["items"]] == ["canceled"] * 3
    assert [receipt["phase"] for receipt in await tenant.receipts(obligation_id=plan_id, emitter="delegate")] == [
        "accepted",
        "escalate",
    ]
    depth = await tenant.ask("principal", "GET", "asyncgate", "/queue/depth")
    assert depth.json()["items"] == []


@pytest.mark.invariant("INV-084")
async def test_a_start_looks_once_and_leaves_young_plans_alone(forks: DelegateForks, tmp_path: Path) -> None:
    """They are another replica's, or are asked for again. After its look nothing is asked by itself: a plan goes its
    whole way, and this process asks nobody.
    """
    tenant = await plan_tenant(forks.gates)
    begun = await killed_at(forks, tenant, "after accepted")
    (tmp_path / tenant.namespace).write_text(tenant.principals["delegate"].key, encoding="ascii")
    async with forks.serving(admission="off", credentials=str(tmp_path)) as started:
        read = await inbox_read(started.url)
        assert await tasks_of(tenant, begun) == []
        plan_id = (await asked(tenant, {"intent": {"template": "review", "parameters": PARAMETERS}}))["plan_id"]
        for capability in ("document.summarise", "document.merge", "plan.close"):
            await run_task(tenant, capability)
        await closed(tenant, plan_id)
        assert await calls(started.url) == read
    assert (await dispatched(tenant, begun))["phase"] == "running"
