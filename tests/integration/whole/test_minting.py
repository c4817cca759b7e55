"""Who opens obligations (INV-122): eight types of principals × what would open one, at the gates as processes. Each request
is complete, so that nothing but the type can be why it is refused.
"""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.memorygate.conftest import accepted, complete, new_id

from legivellum.receipts.rights import ROLES

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-122", "INV-080")]

TYPE_CODES = {"MAY_NOT_EMIT", "ROLE_REQUIRED", "ROLE_NOT_PERMITTED"}


async def opening_for_itself(tenant: PlanTenant, who: str) -> httpx.Response:
    return await tenant.ask(who, "POST", "memorygate", "/receipts", accepted(task_id=new_id(), principal_ai=who))


async def opening_for_another(tenant: PlanTenant, who: str) -> httpx.Response:
    receipt = accepted(task_id=new_id(), principal_ai="stranger", recipient_ai="stranger")
    return await tenant.ask(who, "POST", "memorygate", "/receipts", receipt)


async def opening_a_plan(tenant: PlanTenant, who: str) -> httpx.Response:
    receipt = accepted(task_id=new_id(), principal_ai=who, task_type="plan.run")
    return await tenant.ask(who, "POST", "memorygate", "/receipts", receipt)


async def enqueuing(tenant: PlanTenant, who: str) -> httpx.Response:
    """A task whose obligation the tenant's delegate has opened in the name of whoever asks."""
    task_id = new_id()
    receipt = accepted(task_id=task_id, principal_ai=who, recipient_ai="svc:asyncgate")
    posted = await tenant.ask("delegate", "POST", "memorygate", "/receipts", receipt)
    assert posted.status_code == 201, posted.text
    task = {"task_id": task_id, "principal_ai": who, "capability": f"of-{who}", "payload_pointer": "s3://x"}
    return await tenant.ask(who, "POST", "asyncgate", "/tasks", task)


async def planning(tenant: PlanTenant, who: str) -> httpx.Response:
    body = {"intent": {"template": "review", "parameters": {"documents": []}}}
    return await tenant.ask(who, "POST", "delegate", "/plans", body)


async def depositing_a_plan(tenant: PlanTenant, who: str) -> httpx.Response:
    path = f"/artifacts?role=plan&task_id={new_id()}"
    return await tenant.ask(who, "POST", "depotgate", path, b"{}", content_type="application/octet-stream")


async def emitting_a_plan_receipt(tenant: PlanTenant, who: str) -> httpx.Response:
    """Of a planning that is open and in the custody of the tenant's delegate."""
    task_id = new_id()
    obligation = {
        "task_id": task_id,
        "obligation_id": f"{task_id}:planning",
        "principal_ai": "principal",
        "task_type": "plan",
    }
    posted = await tenant.ask(
        "delegate", "POST", "memorygate", "/receipts", accepted(**obligation, recipient_ai="delegate")
    )
    assert posted.status_code == 201, posted.text
    return await tenant.ask(who, "POST", "memorygate", "/receipts", complete(**obligation))


ACTS: dict[Callable[[PlanTenant, str], Awaitable[httpx.Response]], tuple[set[str], int]] = {
    opening_for_itself: ({"principal", "delegate"}, 201),
    opening_for_another: ({"delegate"}, 201),
    opening_a_plan: ({"delegate"}, 201),
    enqueuing: ({"principal", "delegate"}, 201),
    planning: ({"principal", "delegate"}, 202),
    depositing_a_plan: ({"delegate"}, 201),
    emitting_a_plan_receipt: ({"delegate"}, 201),
}


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
async def test_principals_and_delegates_mint_alone(
    typed_tenant: PlanTenant, act: Callable[[PlanTenant, str], Awaitable[httpx.Response]]
) -> None:
    """Whoever else tries is told that its type may not, and no receipt bears its name."""
    permitted, status = ACTS[act]
    for who in ROLES:
        answer = await act(typed_tenant, who)
        if who in permitted:
            assert answer.status_code == status, (who, answer.text)
            continue
        # A principal opens obligations, but of its own only.
        codes = {"EMITTER_MISMATCH"} if (act, who) == (opening_for_another, "principal") else TYPE_CODES
        assert (answer.status_code, answer.json()["code"] in codes) == (403, True), (who, answer.text)
    emitters = {receipt["emitter"] for receipt in await typed_tenant.receipts(phase="accepted", kind="obligation")}
    assert emitters <= {"principal", "delegate", "svc:asyncgate"}
