"""What InterroGate admits and what it does not: the receipt is the authority, each step is admitted or no task is."""

import asyncio
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import completed, envelope, lease_next, tasks_of
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant, plans_policy
from tests.integration.memorygate.conftest import new_id

from legivellum.base.canonical_json import canonical

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-085", "INV-122")]

PARAMETERS = {"documents": ["s3://in/one"]}
DRAFT: dict[str, Any] = {
    "escalation": [],
    "steps": [{"id": "look", "capability": "web.look", "job": {"instruction": "Look."}}],
}


def unforwarded(policy: dict[str, Any]) -> dict[str, Any]:
    """It admits, names DeleGate, and lets the test send the request on."""
    policy["surfaces"][0]["targets"][0]["forward"] = False
    return policy


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(gates: GateGroup) -> PlanTenant:
    return await admitting_tenant(gates)


async def admitting_tenant(gates: GateGroup) -> PlanTenant:
    nobody = "http://delegate.invalid/intents"
    elsewhere = unforwarded(plans_policy(nobody))
    elsewhere["surfaces"][0]["targets"][0]["name"] = "another"
    slow = unforwarded(plans_policy(nobody))
    slow["surfaces"][1]["rateLimit"] = {"requests": 2, "per": "1s"}
    return await plan_tenant(
        gates,
        templates={"review": REVIEW, "bold": {**REVIEW, "capability": "document.bold", "steps": [bold_step()], "result": "act"}},
        policies={
            "front": unforwarded(plans_policy(nobody)),
            "narrow": unforwarded(plans_policy(nobody, ("document.summarise", "plan.close"))),
            "elsewhere": elsewhere,
            "slow": slow,
        },
    )  # fmt: skip


def bold_step() -> dict[str, Any]:
    return {
        "id": "act",
        "capability": "document.act",
        "job": {"instruction": "Act."},
        "authority": {"spawn": {"max": 5}},
    }


async def admission(tenant: PlanTenant, capability: str, payload: Any, **more: Any) -> tuple[str, str]:
    """The plan's id and the receipt of a decision, allowed or not."""
    plan_id = more.pop("plan_id", None) or new_id()
    body = canonical(envelope(tenant, capability, payload, plan_id, **more))
    answer = await tenant.ask("principal", "POST", "interrogate", "/v1/evaluate", body)
    return plan_id, answer.json()["receipt_id"]


async def intent(
    tenant: PlanTenant, receipt_id: str | None, payload: Any = PARAMETERS, namespace: str | None = None
) -> httpx.Response:
    headers = {} if receipt_id is None else {"legivellum_admission": receipt_id}
    path = f"/intents/{namespace or tenant.namespace}"
    return await tenant.ask(None, "POST", "admitting", path, canonical(payload), **headers)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


async def no_delegate_receipts(tenant: PlanTenant) -> bool:
    return await tenant.receipts(emitter="delegate") == []


async def test_what_admits_nothing_here(tenant: PlanTenant, gates: GateGroup) -> None:
    """Forged, altered, rejected, of another kind, for another gate, of another tenant: 403, and no receipt."""
    _, good = await admission(tenant, "document.review", PARAMETERS)
    _, elsewhere = await admission(tenant, "document.review", PARAMETERS, profile="elsewhere")
    _, rejected = await admission(tenant, "document.review", PARAMETERS, profile="front", spawn_depth=3)
    other = await admitting_tenant(gates)
    _, foreign = await admission(other, "document.review", PARAMETERS)
    mine = new_id()
    assert (await tenant.ask("delegate", "POST", "memorygate", "/receipts", {
        "receipt_id": mine, "task_id": new_id(), "phase": "accepted", "principal_ai": "principal",
    })).status_code == 201  # fmt: skip
    kept = await tenant.receipts(emitter="delegate")
    refused = [
        await intent(tenant, new_id()),
        await intent(tenant, good, {"documents": ["s3://in/another"]}),
        await intent(tenant, elsewhere),
        await intent(tenant, rejected),
        await intent(tenant, foreign),
        await intent(tenant, mine),
        await intent(other, good),
    ]
    assert {code_of(answer) for answer in refused} == {(403, "ADMISSION_REFUSED")}
    assert code_of(await intent(tenant, None)) == (403, "ADMISSION_REQUIRED")
    assert code_of(await intent(tenant, good, namespace="nobody")) == (403, "TENANT_NOT_SERVED")
    assert await tenant.receipts(emitter="delegate") == kept
    assert (await intent(tenant, good)).status_code == 202


async def test_each_gate_has_one_way_in(tenant: PlanTenant) -> None:
    """Where admission is required nobody asks directly; where it is off nothing is admitted (DG-09)."""
    body = {"intent": {"draft": DRAFT}}
    answer = await tenant.ask("principal", "POST", "admitting", "/plans", body)
    assert code_of(answer) == (403, "ADMISSION_REQUIRED")
    _, good = await admission(tenant, "document.review", PARAMETERS)
    answer = await tenant.ask(
        None, "POST", "delegate", f"/intents/{tenant.namespace}", canonical(PARAMETERS), legivellum_admission=good
    )
    assert code_of(answer) == (403, "ADMISSION_REFUSED")
    assert await no_delegate_receipts(tenant)


async def test_what_is_submitted_is_the_admitted_task(tenant: PlanTenant) -> None:
    """A body of /plans under `plan.submit`: its plan is the task that was admitted, no other (DG-04)."""
    payload = {"intent": {"draft": DRAFT}}
    plan_id, receipt_id = await admission(tenant, "plan.submit", payload)
    answer = await intent(tenant, receipt_id, payload)
    assert (answer.status_code, answer.json()["plan_id"], answer.json()["phase"]) == (202, plan_id, "running")
    other = {**payload, "plan_id": new_id()}
    _, receipt_id = await admission(tenant, "plan.submit", other)
    assert code_of(await intent(tenant, receipt_id, other)) == (422, "INVALID_REQUEST")
    _, receipt_id = await admission(tenant, "plan.submit", payload, plan_id="a-task")
    assert code_of(await intent(tenant, receipt_id, payload)) == (403, "ADMISSION_REFUSED")
    _, receipt_id = await admission(tenant, "document.unknown", PARAMETERS)
    assert code_of(await intent(tenant, receipt_id)) == (404, "TEMPLATE_NOT_FOUND")


@pytest.mark.invariant("INV-083")
async def test_a_step_that_is_denied_leaves_no_task(tenant: PlanTenant) -> None:
    """Of many steps one is denied: none is minted, the plan goes to somebody who may end it, once."""
    documents = {"documents": [f"s3://in/{number}" for number in range(5)]}
    plan_id, receipt_id = await admission(tenant, "document.review", documents, profile="narrow")
    for _ in range(2):
        answer = await intent(tenant, receipt_id, documents)
        assert (answer.status_code, answer.json()["phase"]) == (202, "escalated"), answer.text
    plan = answer.json()
    assert (plan["escalation"]["to"], plan["escalation"]["class"]) == ("principal", "policy")
    assert "merge" in plan["escalation"]["reason"]
    assert await tasks_of(tenant, plan_id) == []
    receipts = await tenant.receipts(emitter="delegate")
    assert [receipt["phase"] for receipt in receipts] == ["accepted", "accepted", "complete", "escalate"]
    inbox = await tenant.ask("principal", "GET", "memorygate", "/inbox")
    assert [item["obligation_id"] for item in inbox.json()["items"]] == [plan_id]
    assert (await completed(tenant, "principal", plan_id, plan_id, status="canceled")).status_code == 201
    read = await tenant.ask("principal", "POST", "admitting", f"/plans/{plan_id}/close", {})
    assert (read.status_code, read.json()["status"]) == (200, "canceled")


async def test_being_asked_too_often_is_no_verdict(tenant: PlanTenant) -> None:
    """503, and the same request goes on where it was until all steps are admitted."""
    documents = {"documents": [f"s3://in/{number}" for number in range(4)]}
    plan_id, receipt_id = await admission(tenant, "document.review", documents, profile="slow")
    answer = await intent(tenant, receipt_id, documents)
    assert code_of(answer) == (503, "UNAVAILABLE")
    assert "interrogate" in answer.json()["detail"]
    assert await tasks_of(tenant, plan_id) == []
    async with asyncio.timeout(30):
        while answer.status_code == 503:
            await asyncio.sleep(int(answer.headers["retry-after"]) / 2)
            answer = await intent(tenant, receipt_id, documents)
    assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    assert len(await tasks_of(tenant, plan_id)) == 6
    assert await tenant.receipts(emitter="delegate", phase="escalate") == []


async def leased(tenant: PlanTenant, authority: dict[str, Any]) -> dict[str, Any]:
    """A worker's live lease on an admitted step of this authority."""
    step = {**DRAFT["steps"][0], "authority": authority}
    payload = {"intent": {"draft": {**DRAFT, "steps": [step]}}}
    _, receipt_id = await admission(tenant, "plan.submit", payload)
    answer = await intent(tenant, receipt_id, payload)
    assert answer.status_code == 202, answer.text
    return await lease_next(tenant, "web.look")


async def spawned(
    tenant: PlanTenant, lease: dict[str, Any], capability: str, payload: Any
) -> tuple[str, httpx.Response]:
    """What DeleGate answers a request that a worker made under its lease."""
    parent = lease["task"]["task_id"]
    [cause] = await tenant.receipts(task_id=parent, kind="admission")
    plan_id = new_id()
    causality = {
        "root_task_id": lease["root_task_id"], "parent_task_id": parent, "caused_by_receipt_id": cause["receipt_id"],
    }  # fmt: skip
    body = canonical(envelope(tenant, capability, payload, plan_id, **causality))
    answer = await tenant.ask("worker", "POST", "interrogate", "/v1/evaluate", body, legivellum_lease=lease["lease_id"])
    assert answer.status_code == 200, answer.text
    return plan_id, await intent(tenant, answer.json()["receipt_id"], payload)


@pytest.mark.invariant("INV-087")
async def test_a_worker_gives_away_no_more_than_its_lease(tenant: PlanTenant) -> None:
    """Declared templates within its own authority, whose plans are its task's principal's; no plan of its own."""
    lease = await leased(tenant, {"spawn": {"max": 3}, "maxDepth": 8})
    plan_id, answer = await spawned(tenant, lease, "document.review", PARAMETERS)
    assert (answer.status_code, answer.json()["principal_ai"]) == (202, "principal"), answer.text
    assert answer.json()["root_task_id"] == lease["root_task_id"]
    [accepted] = await tenant.receipts(obligation_id=plan_id, emitter="delegate")
    assert accepted["parent_task_id"] == lease["task"]["task_id"]
    kept = await tenant.receipts(emitter="delegate")
    _, answer = await spawned(tenant, lease, "document.bold", {"documents": []})
    assert code_of(answer) == (403, "AUTHORITY_EXCEEDED")
    assert "act: authority.spawn" in answer.json()["detail"]
    _, answer = await spawned(tenant, lease, "plan.submit", {"intent": {"draft": DRAFT}})
    assert code_of(answer) == (403, "ADMISSION_REFUSED")
    assert await tenant.receipts(emitter="delegate") == kept


async def test_who_may_ask_directly(tenant: PlanTenant) -> None:
    """Principals and delegates, for themselves; and only within what AsyncGate lets this namespace give."""
    for who in ("worker", "service", "component", "observer", "admin"):
        answer = await tenant.ask(who, "POST", "delegate", "/plans", {"intent": {"draft": DRAFT}})
        assert code_of(answer) == (403, "ROLE_REQUIRED"), who
    step = {**DRAFT["steps"][0], "authority": {"spawn": {"max": 11}}}
    answer = await tenant.ask(
        "principal", "POST", "delegate", "/plans", {"intent": {"draft": {**DRAFT, "steps": [step]}}}
    )
    assert code_of(answer) == (403, "AUTHORITY_EXCEEDED")
    other = {"intent": {"draft": DRAFT}, "principal_ai": "stranger"}
    assert code_of(await tenant.ask("principal", "POST", "delegate", "/plans", other)) == (422, "INVALID_REQUEST")
    assert await no_delegate_receipts(tenant)
    for who in ("principal", "delegate"):
        answer = await tenant.ask(who, "POST", "delegate", "/plans", {"intent": {"draft": DRAFT}})
        assert (answer.status_code, answer.json()["principal_ai"]) == (202, who)
    assert {receipt["principal_ai"] for receipt in await tenant.receipts(emitter="delegate")} == {
        "principal",
        "delegate",
    }
