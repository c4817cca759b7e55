"""No row, no responsibility (INV-121): while the database is stopped, everything by which any gate would take something on is
answered 503. Nothing of it is there afterwards; the same requests are taken then.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from tests.integration.delegate.driving import CLAIM, asked, envelope, lease_next
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.memorygate.conftest import accepted, new_id
from tests.integration.whole.watched_gates import WatchedGates

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-121")]

UNDER_LEASE = ("complete", "completed in a batch", "escalate", "renew", "release", "deposit")
AUTHORITY = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
Call = tuple[str, str, str, Any, dict[str, str]]
"""Who asks, which gate, the path, the body, more headers; all are POST."""


@asynccontextmanager
async def stopped(watched: WatchedGates) -> AsyncIterator[None]:
    watched.server.halt()
    try:
        yield
    finally:
        watched.server.resume()
        await watched.until_up()


async def minted(tenant: PlanTenant) -> dict[str, Any]:
    task_id = new_id()
    receipt = accepted(task_id=task_id, principal_ai="principal", recipient_ai="svc:asyncgate")
    answer = await tenant.ask("principal", "POST", "memorygate", "/receipts", receipt)
    assert answer.status_code == 201, answer.text
    return {"task_id": task_id, "principal_ai": "principal", "capability": "minted", "payload_pointer": "s3://x"}


async def calls(tenant: PlanTenant) -> dict[str, Call]:
    """Everything that is accepted anywhere, complete and good."""
    steps = [
        {
            "id": f"s{number}",
            "capability": f"stopped.s{number}",
            "job": {"instruction": "Work."},
            "authority": AUTHORITY,
        }
        for number, _ in enumerate(UNDER_LEASE)
    ]
    escalation = [{"on": ["failure"], "to": "principal"}]
    draft = {"escalation": escalation, "steps": [*steps, {**steps[0], "id": "free", "capability": "stopped.free"}]}
    await asked(tenant, {"intent": {"draft": draft}})
    leases = {
        name: (await lease_next(tenant, f"stopped.s{number}"))["lease_id"] for number, name in enumerate(UNDER_LEASE)
    }
    doomed = await asked(
        tenant, {"intent": {"draft": {"escalation": [], "steps": [{**steps[0], "capability": "stopped.doomed"}]}}}
    )
    revoked = await minted(tenant)
    parked = await tenant.ask("principal", "POST", "asyncgate", "/tasks", {**revoked, "capability": "revoked"})
    assert parked.status_code == 201, parked.text
    plan_id = new_id()
    media = {"content_type": "application/octet-stream"}
    receipts = [accepted(task_id=new_id(), principal_ai="principal") for _ in range(2)]
    task, other = await minted(tenant), await minted(tenant)
    claim = {"lease_id": leases["completed in a batch"], **CLAIM}
    return {
        "a receipt": ("principal", "memorygate", "/receipts", receipts[0], {}),
        "receipts": ("principal", "memorygate", "/receipts/batch", {"receipts": receipts[1:]}, {}),
        "an admission": (
            "principal", "interrogate", "/v1/evaluate", envelope(tenant, "document.review", {"documents": []}, plan_id), {},
        ),
        "a task": ("principal", "asyncgate", "/tasks", task, {}),
        "tasks": ("principal", "asyncgate", "/tasks/batch", {"items": [{"task": other}]}, {}),
        "a lease": ("worker", "asyncgate", "/lease", {"capabilities": ["stopped.free"]}, {}),
        "a claim": ("worker", "asyncgate", "/complete", {"lease_id": leases["complete"], **CLAIM}, {}),
        "claims": ("worker", "asyncgate", "/complete/batch", {"items": [claim]}, {}),
        "an escalation": (
            "worker", "asyncgate", "/escalate",
            {"lease_id": leases["escalate"], "escalation_class": "other", "escalation_reason": "no", "escalation_to": "principal"}, {},
        ),
        "a renewal": ("worker", "asyncgate", "/lease/renew", {"lease_id": leases["renew"]}, {}),
        "a release": ("worker", "asyncgate", "/lease/release", {"lease_id": leases["release"]}, {}),
        "a revocation": ("principal", "asyncgate", f"/tasks/{revoked['task_id']}/revoke", {}, {}),
        "an input": ("principal", "depotgate", f"/artifacts?role=input&task_id={new_id()}&artifact_id={new_id()}", b"in", media),
        "an output": (
            "worker", "depotgate", f"/artifacts?role=output&artifact_id={new_id()}", b"out",
            {**media, "legivellum_lease": leases["deposit"]},
        ),
        "a plan": ("principal", "delegate", "/plans", {"plan_id": new_id(), "intent": {"template": "review", "parameters": {"documents": []}}}, {}),
        "an end": ("principal", "delegate", f"/plans/{doomed['plan_id']}/close", {"abandon": True}, {}),
        "a look": ("principal", "delegate", f"/plans/{doomed['plan_id']}/dispatch", None, {}),
    }  # fmt: skip


async def ask(tenant: PlanTenant, call: Call) -> httpx.Response:
    who, gate, path, body, headers = call
    return await tenant.ask(who, "POST", gate, path, body, **headers)


async def test_nothing_is_accepted_without_the_database(watched: WatchedGates) -> None:
    tenant = await watched.tenant()
    prepared = await calls(tenant)
    before = await watched.rows()
    async with stopped(watched):
        for name, call in prepared.items():
            answer = await ask(tenant, call)
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), (name, answer.text)
        boot = await tenant.ask("component", "POST", "metagate", "/v1/bootstrap", {"component_key": "indexer"})
        assert boot.status_code == 503, boot.text
    assert await watched.rows() == before
    for name, call in prepared.items():
        answer = await ask(tenant, call)
        assert answer.status_code in {200, 201, 202}, (name, answer.text)
