"""Authority ends with its lease (INV-125): the same credential, under a lease that is over, moves nothing at any gate."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import CLAIM, envelope, lease_next
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.delegate.test_with_workers import submitted
from tests.integration.memorygate.conftest import new_id

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-125", "INV-068")]

AUTHORITY = {"spawn": {"max": 9}, "maxDepth": 8, "writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
EXPIRY = "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_id = $1"
VERBS: dict[str, dict[str, Any]] = {
    "/complete": CLAIM,
    "/escalate": {"escalation_class": "other", "escalation_reason": "no"},
    "/lease/renew": {},
    "/lease/release": {},
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def working(gates: GateGroup) -> AsyncIterator[PlanTenant]:
    yield await plan_tenant(gates)


async def leased_step(tenant: PlanTenant, authority: dict[str, Any]) -> dict[str, Any]:
    """The lease of the one step of an admitted plan."""
    capability = f"work-{new_id().lower()}"
    step = {"id": "work", "capability": capability, "job": {"instruction": "Work."}, "authority": authority}
    await submitted(tenant, {"escalation": [], "steps": [step]})
    return await lease_next(tenant, capability)


async def end_lease(tenant: PlanTenant, lease: dict[str, Any], how: str) -> None:
    if how == "expiry":
        # As if the time of the lease were over: nobody renewed it.
        connection = await asyncpg.connect(tenant.gates.database.superuser)
        try:
            assert await connection.execute(EXPIRY, lease["lease_id"]) == "UPDATE 1"
        finally:
            await connection.close()
        return
    task_id = lease["task"]["task_id"]
    who, path, body = {
        "release": ("worker", "/lease/release", {"lease_id": lease["lease_id"]}),
        "revocation of the lease": ("principal", f"/tasks/{task_id}/revoke", {"what": "lease"}),
        "revocation of the task": ("principal", f"/tasks/{task_id}/revoke", {"reason": "not needed"}),
    }[how]
    answer = await tenant.ask(who, "POST", "asyncgate", path, body)
    assert answer.status_code == 200, answer.text


async def deposit(tenant: PlanTenant, lease_id: str) -> httpx.Response:
    headers = {"legivellum_lease": lease_id, "content_type": "application/octet-stream"}
    return await tenant.ask("worker", "POST", "depotgate", "/artifacts?role=output", b"late", **headers)


async def spawn(tenant: PlanTenant, lease: dict[str, Any]) -> httpx.Response:
    task = lease["task"]
    [first, *_] = await tenant.receipts(obligation_id=task["obligation_id"], phase="accepted")
    body = envelope(
        tenant, "document.review", {"documents": []}, new_id(), root_task_id=lease["root_task_id"],
        parent_task_id=task["task_id"], caused_by_receipt_id=first["receipt_id"],
    )  # fmt: skip
    return await tenant.ask("worker", "POST", "interrogate", "/v1/evaluate", body, legivellum_lease=lease["lease_id"])


@pytest.mark.parametrize("how", ["expiry", "release", "revocation of the lease", "revocation of the task"])
async def test_nothing_is_done_under_a_lease_that_is_over(working: PlanTenant, how: str) -> None:
    """No claim, escalation, renewal, release, artifact or plan; what is on record is the end of the lease and the refusal."""
    lease = await leased_step(working, AUTHORITY)
    assert (await deposit(working, lease["lease_id"])).status_code == 201, "while it lives it opens the gate"
    await end_lease(working, lease, how)
    task_id, capability = lease["task"]["task_id"], lease["task"]["capability"]
    before = await working.receipts()
    late = await deposit(working, lease["lease_id"])
    assert (late.status_code, late.json()["code"]) == (409, "LEASE_LOST")
    spawned = await spawn(working, lease)
    assert (spawned.status_code, spawned.json()["reason_code"]) == (403, "LEASE_LOST")
    for path, body in VERBS.items():
        answer = await working.ask("worker", "POST", "asyncgate", path, {"lease_id": lease["lease_id"], **body})
        assert (answer.status_code, answer.json()["code"]) == (409, "LEASE_LOST"), path
    known = {receipt["receipt_id"] for receipt in before}
    added = [receipt for receipt in await working.receipts() if receipt["receipt_id"] not in known]
    kinds = {(receipt["kind"], receipt["phase"]) for receipt in added}
    # A lease whose time is over has its end written down by whoever comes first.
    assert kinds <= {("admission", "rejected"), ("lifecycle", "expired")}
    assert ("admission", "rejected") in kinds
    if how != "revocation of the task":
        again = await lease_next(working, capability)
        assert (again["task"]["task_id"], again["number"]) == (task_id, 2)
        assert (await deposit(working, again["lease_id"])).status_code == 201
        answer = await working.ask("worker", "POST", "asyncgate", "/complete", {"lease_id": again["lease_id"], **CLAIM})
        assert answer.status_code == 200, answer.text
