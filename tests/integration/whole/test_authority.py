"""All authority is in the lease, and explicit (INV-124): each key of it absent, present and exceeded.

At AsyncGate, where a task is given authority, every key; where it is used: `spawn` and `maxDepth` at InterroGate,
`writeBeyondReceipts` and `sinks` at DepotGate. `exposeTools` is shown at the MCP gateway
(tests/integration/interrogate/mcp/test_leased_tools.py), `invokeCognigate` and `cognition` at CogniGate
(tests/integration/cognigate/test_jobs.py).
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.delegate.driving import lease_next
from tests.integration.delegate.gate_fixture import CEILING, GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import accepted, new_id
from tests.integration.whole.test_ended_leases import deposit, leased_step, spawn

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-124")]

BEYOND: dict[str, Any] = {
    "spawn": {"max": 11},
    "maxDepth": 9,
    "sinks": ["elsewhere/output"],
    "asyncgates": ["asyncgate"],
    "cognition": {"models": ["another"]},
    "cognition calls": {"calls": 101},
    "cognition tokens": {"tokens": 100_001},
    "cognition seconds": {"seconds": 601},
}
"""One step beyond CEILING. Keys of it that cannot be exceeded are not here: it permits all tools, writing and CogniGate."""
USED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "spawn": ({"maxDepth": 8}, {"spawn": {"max": 1}, "maxDepth": 8}, "spawn"),
    "maxDepth": ({"spawn": {"max": 3}}, {"spawn": {"max": 3}, "maxDepth": 2}, "spawn"),
    "writeBeyondReceipts": (
        {"sinks": ["depotgate/output"]}, {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}, "deposit",
    ),
    "sinks": ({"writeBeyondReceipts": True}, {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}, "deposit"),
}  # fmt: skip
"""By key: an authority without it, one with it, and what it is for."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tenant(gates: GateGroup) -> AsyncIterator[PlanTenant]:
    yield await plan_tenant(gates)


async def parked(tenant: PlanTenant, authority: dict[str, Any] | None) -> tuple[int, str | None, str]:
    """The answer to a task with this authority: status, the code of a refusal, and the mailbox."""
    task_id = new_id()
    receipt = accepted(task_id=task_id, principal_ai="principal", recipient_ai="svc:asyncgate")
    assert (await tenant.ask("principal", "POST", "memorygate", "/receipts", receipt)).status_code == 201
    capability = f"box-{task_id.lower()}"
    task = {"task_id": task_id, "principal_ai": "principal", "capability": capability, "payload_pointer": "s3://x"}
    task |= {} if authority is None else {"authority": authority}
    answer = await tenant.ask("principal", "POST", "asyncgate", "/tasks", task)
    return answer.status_code, answer.json().get("code"), capability


async def leased(tenant: PlanTenant, authority: dict[str, Any] | None) -> dict[str, Any]:
    status, code, capability = await parked(tenant, authority)
    assert status == 201, code
    return await lease_next(tenant, capability)


@pytest.mark.parametrize("key", CEILING)
async def test_a_lease_carries_what_was_given_and_nothing_else(tenant: PlanTenant, key: str) -> None:
    """Without the key the lease has none of it, with the whole of the ceiling exactly that."""
    without = {name: value for name, value in CEILING.items() if name != key}
    assert key not in (await leased(tenant, without))["task"]["authority"]
    assert (await leased(tenant, {key: CEILING[key]}))["task"]["authority"] == {key: CEILING[key]}
    assert not (await leased(tenant, None))["task"].get("authority")


@pytest.mark.parametrize("key", BEYOND)
async def test_nobody_gives_more_than_the_ceiling(tenant: PlanTenant, key: str) -> None:
    status, code, _ = await parked(tenant, {key.partition(" ")[0]: BEYOND[key]})
    assert (status, code) == (403, "AUTHORITY_EXCEEDED")


async def used(tenant: PlanTenant, lease: dict[str, Any], act: str) -> str | None:
    """The reason of a refusal; None: it was done."""
    if act == "deposit":
        answer = await deposit(tenant, lease["lease_id"])
        return None if answer.status_code == 201 else str(answer.json()["code"])
    answer = await spawn(tenant, lease)
    reason = answer.json()["reason_code"]
    return None if reason is None else str(reason)


@pytest.mark.parametrize("key", USED)
async def test_what_is_absent_is_denied_and_what_is_present_is_bounded(tenant: PlanTenant, key: str) -> None:
    absent, present, act = USED[key]
    assert await used(tenant, await leased_step(tenant, absent), act) == "LEASE_AUTHORITY"
    lease = await leased_step(tenant, present)
    assert await used(tenant, lease, act) is None
    if key == "spawn":
        assert await used(tenant, lease, act) == "LEASE_AUTHORITY"
    if key == "maxDepth":
        too_deep = await leased_step(tenant, {**present, "maxDepth": 1})
        assert await used(tenant, too_deep, act) == "LEASE_AUTHORITY"
    if act == "deposit":
        headers = {"legivellum_lease": lease["lease_id"], "content_type": "application/octet-stream"}
        beside = await tenant.ask("worker", "POST", "depotgate", "/artifacts?role=supporting", b"more", **headers)
        assert (beside.status_code, beside.json()["code"]) == (403, "LEASE_AUTHORITY")
