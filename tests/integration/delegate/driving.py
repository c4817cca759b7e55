"""What people, agents and workers do with a plan."""

from typing import Any

import httpx
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.memorygate.conftest import new_id

CLAIM = {"status": "success", "outcome_kind": "response_text", "outcome_text": "done"}


async def asked(tenant: PlanTenant, body: Any, who: str = "principal") -> dict[str, Any]:
    """A plan that was taken."""
    answer = await tenant.ask(who, "POST", "delegate", "/plans", body)
    assert answer.status_code == 202, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


async def closed(tenant: PlanTenant, plan_id: str, gate: str = "delegate", who: str = "worker") -> dict[str, Any]:
    answer = await tenant.ask(who, "POST", gate, f"/plans/{plan_id}/close", {})
    assert answer.status_code == 200, answer.text
    end: dict[str, Any] = answer.json()
    return end


async def leases(tenant: PlanTenant, *capabilities: str, most: int = 1, wait: float = 10) -> list[dict[str, Any]]:
    body = {"capabilities": list(capabilities), "most": most, "wait_seconds": wait}
    answer = await tenant.ask("worker", "POST", "asyncgate", "/lease", body)
    assert answer.status_code == 200, answer.text
    issued: list[dict[str, Any]] = answer.json()["leases"]
    return issued


async def lease_next(tenant: PlanTenant, *capabilities: str) -> dict[str, Any]:
    [lease] = await leases(tenant, *capabilities)
    return lease


async def run_task(
    tenant: PlanTenant, *capabilities: str, lease: dict[str, Any] | None = None, **claim: Any
) -> dict[str, Any]:
    """Lease a task, unless it is leased already, and complete it; the lease."""
    lease = lease or await lease_next(tenant, *capabilities)
    body = {"lease_id": lease["lease_id"], **CLAIM, **claim}
    answer = await tenant.ask("worker", "POST", "asyncgate", "/complete", body)
    assert answer.status_code == 200, answer.text
    return lease


def envelope(
    tenant: PlanTenant, capability: str, payload: Any, plan_id: str, profile: str = "front", **causality: Any
) -> dict[str, Any]:
    """A request for InterroGate: a root, unless `causality` says otherwise."""
    return {
        "tenant_id": str(tenant.uid),
        "surface_id": "public",
        "policy_profile_id": profile,
        "payload_kind": "task",
        "payload": payload,
        "causality": {
            "root_task_id": plan_id,
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": None,
            "capability_id": capability,
            "task_id": plan_id,
            **causality,
        },
    }


async def evaluated(
    tenant: PlanTenant,
    capability: str,
    payload: Any,
    *,
    who: str = "principal",
    plan_id: str | None = None,
    **more: Any,
) -> httpx.Response:
    """What InterroGate answers a request, which it forwards to DeleGate if it admits it."""
    body = envelope(tenant, capability, payload, plan_id or new_id(), **more)
    return await tenant.ask(who, "POST", "interrogate", "/v1/evaluate", body)


async def admitted(tenant: PlanTenant, capability: str, payload: Any, **more: Any) -> dict[str, Any]:
    """The plan of an admitted request, as DeleGate answered InterroGate."""
    answer = await evaluated(tenant, capability, payload, **more)
    assert answer.status_code == 200, answer.text
    [forward] = answer.json()["forwards"]
    assert forward["status"] == 202, forward
    plan: dict[str, Any] = forward["answer"]
    return plan


async def completed(tenant: PlanTenant, who: str, task_id: str, obligation_id: str, **fields: Any) -> httpx.Response:
    """An obligation that a person ends at the ledger."""
    receipt = {
        "receipt_id": new_id(), "task_id": task_id, "obligation_id": obligation_id, "principal_ai": "principal",
        "phase": "complete", "status": "success", "outcome_kind": "none", "completed_at": "2027-01-01T00:00:00Z", **fields,
    }  # fmt: skip
    return await tenant.ask(who, "POST", "memorygate", "/receipts", receipt)


async def tasks_of(tenant: PlanTenant, plan_id: str) -> list[str]:
    """The ids of the plan's tasks that AsyncGate ever took, as often as it did."""
    receipts = await tenant.receipts(emitter="svc:asyncgate", phase="accepted")
    return sorted(receipt["task_id"] for receipt in receipts if receipt["task_id"].startswith(f"{plan_id}."))
