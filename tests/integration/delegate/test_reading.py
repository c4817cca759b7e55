"""GET /plans and GET /plans/{id}: what became of plans, from the ledger alone; and who may ask."""

from typing import Any

import pytest
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

pytestmark = pytest.mark.asyncio(loop_scope="session")

INTENT = {"template": "review", "parameters": {"documents": ["s3://in/one"]}}
HELD = {**REVIEW, "capability": "document.held", "dispatch": "Held", "approver": "approver"}


async def made(tenant: PlanTenant, intent: Any = INTENT, who: str = "principal", **more: Any) -> dict[str, Any]:
    answer = await tenant.ask(who, "POST", "delegate", "/plans", {"intent": intent, **more})
    assert answer.status_code == 202, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def read(tenant: PlanTenant, plan_id: str, who: str = "principal", query: str = "") -> dict[str, Any]:
    answer = await tenant.ask(who, "GET", "delegate", f"/plans/{plan_id}{query}")
    assert answer.status_code == 200, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def refused(tenant: PlanTenant, who: str | None, path: str) -> tuple[int, str]:
    answer = await tenant.ask(who, "GET", "delegate", path)
    return answer.status_code, answer.json()["code"]


async def open_plans(tenant: PlanTenant, who: str = "principal") -> dict[str, str]:
    """Phases by plan, from pages of two."""
    plans: dict[str, str] = {}
    path = "/plans?limit=2"
    while True:
        answer = await tenant.ask(who, "GET", "delegate", path)
        assert answer.status_code == 200, answer.text
        plans |= {item["plan_id"]: item["phase"] for item in answer.json()["items"]}
        if answer.json()["next_cursor"] is None:
            return plans
        path = f"/plans?limit=2&cursor={answer.json()['next_cursor']}"


@pytest.mark.invariant("INV-079")
async def test_a_plan_is_read_as_it_was_answered(tenant: PlanTenant) -> None:
    """By everybody of the tenant but its workers, observers too; with the document as DepotGate keeps it."""
    plan = await made(tenant)
    assert plan["phase"] == "running"
    assert await refused(tenant, "worker", f"/plans/{plan['plan_id']}") == (403, "ROLE_REQUIRED")
    for who in ("principal", "observer", "stranger", "admin"):
        assert await read(tenant, plan["plan_id"], who) == plan
    whole = await read(tenant, plan["plan_id"], "observer", "?body=true")
    document = whole.pop("plan")
    assert whole == plan
    assert (document["plan_digest"], document["plan_id"]) == (plan["plan_digest"], plan["plan_id"])
    assert await read(tenant, plan["plan_id"], query="?body=false") == plan


async def test_open_plans_are_the_callers_own(gates: GateGroup) -> None:
    """Page by page; what is closed is not among them."""
    tenant = await plan_tenant(gates, templates={"review": REVIEW, "held": HELD})
    held = await made(tenant, {"template": "held", "parameters": {"documents": []}})
    running = [(await made(tenant))["plan_id"] for _ in range(4)]
    foreign = await made(tenant, who="stranger")
    assert held["phase"] == (await read(tenant, held["plan_id"]))["phase"] == "held"
    assert await open_plans(tenant) == {held["plan_id"]: "held", **dict.fromkeys(running, "running")}
    assert await open_plans(tenant, "stranger") == {foreign["plan_id"]: "running"}
    assert await open_plans(tenant, "observer") == {}
    ended = await tenant.ask("principal", "POST", "delegate", f"/plans/{running[0]}/close", {"abandon": True})
    assert ended.status_code == 200, ended.text
    assert (await read(tenant, running[0]))["phase"] == "closed"
    assert running[0] not in await open_plans(tenant)


async def test_what_is_not_there(tenant: PlanTenant) -> None:
    """Names that no plan can have are 422, others 404; a task of the ledger is no plan."""
    plan = await made(tenant)
    assert await refused(tenant, "principal", f"/plans/{new_id()}") == (404, "PLAN_NOT_FOUND")
    assert await refused(tenant, "principal", f"/plans/{plan['plan_id'].lower()}") == (422, "INVALID_REQUEST")
    assert await refused(tenant, "principal", f"/plans/{plan['steps'][0]['task_id']}") == (422, "INVALID_REQUEST")
    assert await refused(tenant, "principal", f"/plans/{plan['plan_id']}?body=maybe") == (422, "INVALID_REQUEST")
    assert await refused(tenant, "principal", "/plans?cursor=abc") == (422, "INVALID_CURSOR")
    assert await refused(tenant, "principal", "/plans?limit=0") == (422, "INVALID_REQUEST")
    assert await refused(tenant, None, "/plans") == (401, "CREDENTIAL_MISSING")
    task = new_id()
    receipt = {
        "receipt_id": new_id(), "kind": "obligation", "phase": "accepted", "task_id": task, "principal_ai": "principal",
    }  # fmt: skip
    assert (await tenant.ask("principal", "POST", "memorygate", "/receipts", receipt)).status_code == 201
    assert await refused(tenant, "principal", f"/plans/{task}") == (404, "PLAN_NOT_FOUND")


async def test_another_tenant_hears_of_nothing(gates: GateGroup, tenant: PlanTenant) -> None:
    """A plan of another tenant is not found, whatever it is; to name its tenant is refused but to who reads everywhere."""
    plan = await made(tenant)
    other = await plan_tenant(gates)
    assert await refused(other, "admin", f"/plans/{plan['plan_id']}") == (404, "PLAN_NOT_FOUND")
    assert await refused(other, "admin", f"/plans/{plan['plan_id']}?tenant={tenant.uid}") == (403, "TENANT_MISMATCH")
    assert await open_plans(other) == {}
    other.principals["everywhere"] = LedgerPrincipal(other.uid, "everywhere", "observer", scope="Cluster")
    await other.publish()
    await other.until(lambda answer: answer.status_code == 200, "everywhere", "GET", "delegate", "/v1/interview")
    assert await read(other, plan["plan_id"], "everywhere", f"?tenant={tenant.uid}") == plan
    assert await refused(other, "everywhere", f"/plans/{plan['plan_id']}") == (404, "PLAN_NOT_FOUND")
    unknown = f"/plans/{plan['plan_id']}?tenant={'0' * 8}-0000-0000-0000-{'0' * 12}"
    assert await refused(other, "everywhere", unknown) == (403, "TENANT_NOT_SERVED")


async def test_without_a_credential_a_tenant_is_not_served(gates: GateGroup) -> None:
    """Lists too; what needs no other gate is answered all the same."""
    tenant = await plan_tenant(gates)
    plan = await made(tenant)
    (gates.credentials / tenant.namespace).unlink()
    for path in ("/plans", f"/plans/{plan['plan_id']}"):
        assert await refused(tenant, "principal", path) == (403, "TENANT_NOT_SERVED")
    answer = await tenant.ask("principal", "POST", "delegate", "/plans", {"intent": INTENT})
    assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_NOT_SERVED")
    answer = await tenant.ask("principal", "POST", "delegate", "/plans/validate", {"intent": INTENT})
    assert answer.json()["valid"] is True
    tenant.serve()
    assert await read(tenant, plan["plan_id"]) == plan
    tenant.serve((await plan_tenant(gates)).principals["delegate"].key)
    assert await refused(tenant, "principal", "/plans") == (403, "TENANT_NOT_SERVED")


@pytest.mark.invariant("INV-093", "INV-094", "INV-095")
async def test_the_interview_keeps_to_itself(gates: GateGroup, tenant: PlanTenant) -> None:
    """Any principal of the tenant hears it, also while every other gate is stopped; nothing is written and nobody called."""
    await made(tenant)
    before = len(await tenant.receipts())
    calls = await gate_calls(tenant)
    for who in ("principal", "worker", "observer"):
        answer = await tenant.ask(who, "GET", "delegate", "/v1/interview")
        assert answer.status_code == 200
        interview = answer.json()
        assert (interview["gate"], interview["tenant_id"]) == ("delegate", str(tenant.uid))
        assert (interview["counts"], interview["oldest"]) == ({}, {})
    assert (await tenant.ask("principal", "POST", "delegate", "/v1/interview", {})).status_code == 405
    assert await gate_calls(tenant) == calls
    assert len(await tenant.receipts()) == before


async def gate_calls(tenant: PlanTenant) -> list[str]:
    metrics = (await tenant.ask(None, "GET", "delegate", "/metrics")).text
    return sorted(line for line in metrics.splitlines() if line.startswith("delegate_gate_calls_total"))
