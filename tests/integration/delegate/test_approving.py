"""A plan that is held: what its approver approves is a digest, and nothing is minted before (DELEGATE.md, Held)."""

from typing import Any

import pytest
import pytest_asyncio
from tests.integration.delegate.driving import asked, completed, tasks_of
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

INTENT = {"intent": {"template": "held", "parameters": {"documents": ["s3://in/one"]}}}
HELD = {**REVIEW, "dispatch": "Held", "approver": "approver"}


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(gates: GateGroup) -> PlanTenant:
    return await plan_tenant(gates, templates={"held": HELD})


async def held_plan(tenant: PlanTenant) -> dict[str, Any]:
    plan = await asked(tenant, INTENT)
    assert plan["phase"] == "held"
    assert await tasks_of(tenant, plan["plan_id"]) == []
    return plan


async def decide(tenant: PlanTenant, plan: dict[str, Any], who: str = "approver", **fields: Any) -> Any:
    plan_id = plan["plan_id"]
    metadata = fields.pop("metadata", {"plan_digest": plan["plan_digest"]})
    return await completed(tenant, who, plan_id, f"{plan_id}:approval", metadata=metadata, **fields)


async def dispatch(tenant: PlanTenant, plan: dict[str, Any], who: str = "stranger") -> Any:
    return await tenant.ask(who, "POST", "delegate", f"/plans/{plan['plan_id']}/dispatch")


async def test_an_approved_plan_is_handed_over_once(tenant: PlanTenant) -> None:
    """Anybody may ask to look: what happens depends on the approver's receipt alone."""
    plan = await held_plan(tenant)
    [asked_for] = await tenant.receipts(task_type="plan.approval", phase="accepted")
    assert (asked_for["recipient_ai"], asked_for["metadata"]) == ("approver", {"plan_digest": plan["plan_digest"]})
    answer = await dispatch(tenant, plan)
    assert (answer.status_code, answer.json()["code"]) == (409, "NOT_APPROVED")
    assert (await decide(tenant, plan)).status_code == 201
    for _ in range(2):
        answer = await dispatch(tenant, plan)
        assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    expected = sorted(step["task_id"] for step in plan["steps"])
    assert await tasks_of(tenant, plan["plan_id"]) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "failure"},
        {"status": "canceled"},
        {"metadata": {}},
        {"metadata": {"plan_digest": "sha256:" + "0" * 64}},
    ],
    ids=["failure", "canceled", "no digest", "another digest"],
)
async def test_anything_but_an_approval_of_this_digest_ends_the_plan(
    tenant: PlanTenant, fields: dict[str, Any]
) -> None:
    plan = await held_plan(tenant)
    assert (await decide(tenant, plan, **fields)).status_code == 201
    for _ in range(2):
        answer = await dispatch(tenant, plan)
        assert (answer.status_code, answer.json()["phase"]) == (202, "closed"), answer.text
    [end] = await tenant.receipts(obligation_id=plan["plan_id"], phase="complete")
    assert (end["status"], end["emitter"]) == ("canceled", "delegate")
    assert await tasks_of(tenant, plan["plan_id"]) == []
    assert not [receipt for receipt in await tenant.receipts() if receipt["task_id"].startswith(f"{plan['plan_id']}.")]


async def test_nobody_else_approves(tenant: PlanTenant) -> None:
    """Not the plan's principal, not a stranger, not the delegate; whom the approver hands it to neither."""
    plan = await held_plan(tenant)
    for who in ("principal", "stranger", "delegate", "admin"):
        answer = await decide(tenant, plan, who)
        assert (answer.status_code, answer.json()["code"]) == (403, "NOT_CUSTODIAN"), who
        assert (await dispatch(tenant, plan)).json()["code"] == "NOT_APPROVED"
    plan_id = plan["plan_id"]
    escalated = await completed(
        tenant, "approver", plan_id, f"{plan_id}:approval", phase="escalate", status="NA", outcome_kind="NA",
        completed_at=None, escalation_to="stranger", escalation_class="owner", escalation_reason="not mine",
    )  # fmt: skip
    assert escalated.status_code == 201, escalated.text
    assert (await decide(tenant, plan, "stranger")).status_code == 201
    assert (await dispatch(tenant, plan)).json()["phase"] == "closed"
    assert await tasks_of(tenant, plan_id) == []


async def test_a_template_that_changes_meanwhile_changes_nothing(tenant: PlanTenant) -> None:
    """What was approved is what lies at DepotGate (DG-06)."""
    plan = await held_plan(tenant)
    await tenant.publish(gone=("held",))
    assert (await decide(tenant, plan)).status_code == 201
    answer = await dispatch(tenant, plan)
    assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    assert await tasks_of(tenant, plan["plan_id"]) == sorted(step["task_id"] for step in plan["steps"])


async def test_an_approval_that_somebody_opened_before_approves_nothing(tenant: PlanTenant) -> None:
    """The plan goes to somebody who may end it; what was made up is never taken for a decision."""
    plan_id = new_id()
    opened = {"phase": "accepted", "status": "NA", "outcome_kind": "NA", "completed_at": None}
    answer = await completed(tenant, "principal", plan_id, f"{plan_id}:approval", **opened)
    assert answer.status_code == 201, answer.text
    plan = await asked(tenant, {**INTENT, "plan_id": plan_id})
    assert (plan["phase"], plan["escalation"]["class"]) == ("escalated", "owner")
    assert (await decide(tenant, plan, "principal")).status_code == 201
    assert (await dispatch(tenant, plan)).json()["phase"] == "escalated"
    assert await tasks_of(tenant, plan_id) == []
