"""What one plan leaves in the ledger, receipt by receipt (COMPOSITION.md §1), through both ways in."""

from collections.abc import Mapping
from typing import Any

import pytest
from tests.integration.delegate.driving import admitted, asked, closed, lease_next, run_task
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.memorygate.conftest import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

DOCUMENTS = {"documents": ["s3://in/one", "s3://in/two"]}


def shown(receipts: list[dict[str, Any]], plan_id: str) -> list[tuple[str, ...]]:
    """Emitter, kind and phase, obligation, and what caused it: the same four of the cause."""

    def name(receipt: Mapping[str, Any]) -> tuple[str, ...]:
        obligation = receipt["obligation_id"].replace(plan_id, "P")
        return receipt["emitter"], f"{receipt['kind']}/{receipt['phase']}", obligation

    by_id = {receipt["receipt_id"]: receipt for receipt in receipts}
    return [
        (*name(receipt), *(name(by_id[cause])[1:] if (cause := receipt.get("caused_by_receipt_id")) else ("-", "-")))
        for receipt in receipts
    ]


STEPS = ("read-0", "read-1", "merge", "close")
OPENED = [
    ("delegate", "obligation/accepted", "P", "-", "-"),
    ("delegate", "obligation/accepted", "P:planning", "obligation/accepted", "P"),
    ("svc:depotgate", "artifact/stored", "P", "obligation/accepted", "P:planning"),
    ("delegate", "obligation/complete", "P:planning", "artifact/stored", "P"),
]
MINTED = [("delegate", "obligation/accepted", f"P.{step}", "obligation/complete", "P:planning") for step in STEPS]


def parked(step: str) -> list[tuple[str, ...]]:
    return [
        ("svc:asyncgate", "obligation/accepted", f"P.{step}", "obligation/accepted", f"P.{step}"),
        ("svc:asyncgate", "lifecycle/queued", f"P.{step}", "obligation/accepted", f"P.{step}"),
    ]


@pytest.mark.invariant("INV-076", "INV-079", "INV-081", "INV-082")
async def test_a_plan_asked_for_directly(tenant: PlanTenant) -> None:
    """From the first receipt to the end, each named with its cause; one plan receipt, one end."""
    plan_id = new_id()
    plan = await asked(tenant, {"plan_id": plan_id, "intent": {"template": "review", "parameters": DOCUMENTS}})
    assert (plan["phase"], plan["principal_ai"], plan["root_task_id"]) == ("running", "principal", plan_id)
    assert [step["step_id"] for step in plan["steps"]] == list(STEPS)
    receipts = shown(await tenant.receipts(), plan_id)
    assert receipts[:8] == [*OPENED, *MINTED]
    assert sorted(receipts[8:]) == sorted(receipt for step in STEPS for receipt in parked(step))
    for capability in ("document.summarise", "document.summarise", "document.merge"):
        await run_task(tenant, capability)
    close = await lease_next(tenant, "plan.close")
    end = await closed(tenant, plan_id)
    assert end == {**end, "status": "success", "counts": {"success": 3, "failure": 0, "canceled": 0}}
    await run_task(tenant, lease=close)
    receipts = shown(await tenant.receipts(), plan_id)
    assert receipts[-2:] == [
        ("delegate", "obligation/complete", "P", "obligation/complete", "P.merge"),
        ("svc:asyncgate", "obligation/complete", "P.close", "lifecycle/lease_issued", "P.close"),
    ]
    assert len(receipts) == 4 + 4 * 5 + 1
    assert await closed(tenant, plan_id) == end


ADMITTED = [
    ("svc:interrogate", "admission/accepted", "P", "-", "-"),
    ("delegate", "obligation/accepted", "P", "admission/accepted", "P"),
    *OPENED[1:],
]


@pytest.mark.invariant("INV-076", "INV-077", "INV-079", "INV-081", "INV-082")
async def test_a_plan_that_is_admitted(tenant: PlanTenant) -> None:
    """As the table of the composition has it: the request and each step admitted before anything is minted."""
    plan = await admitted(tenant, "document.review", DOCUMENTS)
    plan_id = plan["plan_id"]
    receipts = await tenant.receipts()
    table = shown(receipts, plan_id)
    assert table[:5] == ADMITTED
    admissions = [
        ("svc:interrogate", "admission/accepted", f"P.{step}", "obligation/complete", "P:planning") for step in STEPS
    ]
    # They are asked for at the same time.
    assert sorted(table[5:9]) == sorted(admissions)
    assert table[9:13] == [
        ("delegate", "obligation/accepted", f"P.{step}", "admission/accepted", f"P.{step}") for step in STEPS
    ]
    assert sorted(table[13:]) == sorted(receipt for step in STEPS for receipt in parked(step))
    for capability in ("document.summarise", "document.summarise", "document.merge"):
        await run_task(tenant, capability)
    close = await lease_next(tenant, "plan.close")
    assert (await closed(tenant, plan_id, "admitting"))["status"] == "success"
    await run_task(tenant, lease=close)
    receipts = await tenant.receipts()
    # The receipts 1 to 33 of the table, without the outputs of three steps that these workers do not deposit.
    assert len(receipts) == 33 - 3
    assert shown(receipts, plan_id)[-2][:3] == ("delegate", "obligation/complete", "P")
    assert {receipt["task_id"].partition(".")[0] for receipt in receipts} == {plan_id}
    kept = next(receipt for receipt in receipts if receipt["phase"] == "stored")
    answer = await tenant.ask("observer", "GET", "depotgate", f"/artifacts/{kept['artifact_pointer']}")
    document = answer.json()
    accepted = next(
        receipt for receipt in receipts if receipt["obligation_id"] == plan_id and receipt["emitter"] == "delegate"
    )
    assert (document["plan_id"], document["principal_ai"], document["tenant_id"]) == (
        plan_id,
        "principal",
        str(tenant.uid),
    )
    assert document["caused_by_receipt_id"] == accepted["receipt_id"]
    assert plan["artifact"] == {
        "pointer": kept["artifact_pointer"],
        "sha256": kept["artifact_checksum"].removeprefix("sha256:"),
    }


@pytest.mark.invariant("INV-076", "INV-085")
async def test_the_same_request_again_is_the_same_plan(tenant: PlanTenant) -> None:
    """Nothing is stored twice; another request under the plan's id is refused."""
    body = {"plan_id": new_id(), "intent": {"template": "review", "parameters": DOCUMENTS}}
    plan = await asked(tenant, body)
    receipts = await tenant.receipts()
    again = await tenant.ask("principal", "POST", "delegate", "/plans", body)
    assert (again.status_code, again.headers["idempotency-replayed"], again.json()) == (202, "true", plan)
    assert await tenant.receipts() == receipts
    other = {**body, "intent": {"template": "review", "parameters": {"documents": ["s3://in/three"]}}}
    for who, changed in (("principal", other), ("stranger", body)):
        answer = await tenant.ask(who, "POST", "delegate", "/plans", changed)
        assert (answer.status_code, answer.json()["code"]) == (409, "PLAN_CONFLICT"), who
    assert await tenant.receipts() == receipts


async def test_a_deadline_is_the_ledgers_to_count(tenant: PlanTenant) -> None:
    """What is open after it is overdue there; nobody is woken by it."""
    step = {"id": "look", "capability": "web.look", "job": {"instruction": "Look."}}
    draft = {"escalation": [], "deadlineSeconds": 1, "steps": [step]}
    plan_id = "01JZZZZZZZ0000000000000000"
    await asked(tenant, {"plan_id": plan_id, "intent": {"draft": draft}})
    inbox = (await tenant.ask("delegate", "GET", "memorygate", "/inbox")).json()["items"]
    [whole] = [item for item in inbox if item["obligation_id"] == plan_id]
    [receipt] = await tenant.receipts(obligation_id=plan_id, phase="accepted")
    assert whole["deadline_at"] == receipt["metadata"]["deadline_at"] > receipt["created_at"]
    summary = (await tenant.ask("observer", "GET", "memorygate", "/v1/summary")).json()
    assert summary["overdue"] == 1
