"""Workers that ask for more than there may be: exactly the cap is minted, and each refusal leaves its receipt.

The caps are those of the lease (`spawn.max`) and of the policy (`maxSpawnDepth`); DeleGate counts nothing itself.
"""

import asyncio
from pathlib import Path

import pytest
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant, plans_policy
from tests.integration.delegate.test_with_workers import end_of, submitted, working

from legivellum_worker import Work
from legivellum_worker.spawning import SpawnDeniedError

pytestmark = pytest.mark.slow

LEAF = {"capability": "leaf", "escalation": [], "steps": [{"id": "only", "capability": "leaf.step", "job": {}}]}
MOST = 3


@pytest.mark.invariant("INV-087", "INV-124")
async def test_no_more_plans_than_the_lease_permits(gates: GateGroup, tmp_path: Path) -> None:
    """Six are asked for, three may be: three plans, three refusals on record, and the step ends by its own word."""
    tenant = await plan_tenant(gates, templates={"leaf": LEAF})

    def begin(work: Work) -> str:
        spawned, denied = [], 0
        for _ in range(2 * MOST):
            try:
                spawned.append(work.spawn("leaf", {}).task_id)
            except SpawnDeniedError:
                denied += 1
        return f"{len(spawned)} {denied}"

    authority = {"spawn": {"max": MOST}, "maxDepth": 8}
    draft = {
        "escalation": [],
        "steps": [{"id": "begin", "capability": "begin", "job": {}, "authority": authority}],
    }
    async with working(tenant, tmp_path, {"begin": begin, "leaf.step": lambda _: "done"}, delegate="admitting"):
        plan_id = await submitted(tenant, draft)
        begun = await end_of(tenant, f"{plan_id}.begin")
        assert (await end_of(tenant, plan_id))["status"] == "success"
    assert begun["outcome_text"] == f"{MOST} {MOST}"
    assert len(await tenant.receipts(kind="admission", phase="rejected")) == MOST
    opened = await tenant.receipts(kind="obligation", phase="accepted", emitter="delegate")
    plans = {receipt["task_id"] for receipt in opened if receipt.get("task_type") == "plan.run"}
    assert len(plans - {plan_id}) == MOST


@pytest.mark.invariant("INV-127")
async def test_a_worker_that_spawns_itself_ends_at_the_policys_depth(gates: GateGroup, tmp_path: Path) -> None:
    """A plan, its step, the plan that this one asks for, and so on: until InterroGate says that it is too deep."""
    depth = 5
    again = {
        "capability": "again",
        "escalation": [],
        "steps": [{"id": "more", "capability": "more", "job": {}, "authority": {"spawn": {"max": 1}, "maxDepth": 8}}],
    }
    tenant = PlanTenant(gates)
    policy = plans_policy(f"{gates.url('admitting')}/intents/{tenant.namespace}")
    policy["limits"]["maxSpawnDepth"] = depth
    await tenant.publish(templates={"again": again}, policies={"front": policy})
    tenant.serve()
    await tenant.until_known()

    def more(work: Work) -> str:
        try:
            return work.spawn("again", {}).task_id
        except SpawnDeniedError:
            return "the end"

    draft = {"escalation": [], "steps": again["steps"]}
    async with working(tenant, tmp_path, {"more": more}, delegate="admitting"):
        plan_id = await submitted(tenant, draft)
        assert (await end_of(tenant, plan_id))["status"] == "success"
        async with asyncio.timeout(60):
            while not (rejected := await tenant.receipts(kind="admission", phase="rejected")):
                await asyncio.sleep(0.05)
        opened = await tenant.receipts(kind="obligation", phase="accepted", emitter="delegate")
        plans = {receipt["task_id"] for receipt in opened if receipt.get("task_type") == "plan.run"}
        for task_id in plans:
            await end_of(tenant, task_id)
    # Plans stand at the even depths 0, 2, 4, their steps one below.
    assert len(plans) == depth // 2 + 1
    assert len(rejected) == 1
