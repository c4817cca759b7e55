"""Receipts are all that there is (INV-120): every table of every gate but theirs is emptied and derived from them again, and
whatever a gate shows of open obligations, custodians and outcomes is what it was. Work goes on from there.

Local, and not compared: renewals of leases, rates, idempotency keys, the archive of tasks that are over, and when a task came
into its mailbox: after a rebuild that is the time of its receipt, some milliseconds later.
"""

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from tests.integration.delegate.driving import asked, closed, completed, evaluated, lease_next, run_task
from tests.integration.delegate.gate_fixture import REVIEW, PlanTenant
from tests.integration.memorygate.conftest import new_id
from tests.integration.whole.watched_gates import WatchedGates

from asyncgate.rebuilding import rebuild as rebuild_asyncgate
from depotgate.rebuilding import rebuild as rebuild_depotgate
from interrogate.verifying import verify as verify_interrogate
from memorygate.verifying import verify as verify_memorygate

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-120", "INV-050")]

EMPTIED = {
    "memorygate": ("task", "obligation", "dedupe", "tally"),
    "asyncgate": ("task", "need", "archive", "request", "admission"),
    "depotgate": ("artifact", "blob"),
    "interrogate": (
        "root", "capability", "admitted", "lease", "rate", "request", "forward", "call", "canceled_handle",
    ),
}  # fmt: skip
KEPT = {"memorygate": {"receipt", "migration", "verification"}, "interrogate": {"ruleset", "profile"}}
"""Receipts; and what is written of other things than tasks: policies that were followed, what a verification found."""
VIEWS = (
    ("memorygate", "/v1/summary"), ("memorygate", "/v1/interview"), ("asyncgate", "/tasks"), ("asyncgate", "/queue/depth"),
    ("asyncgate", "/v1/interview"), ("depotgate", "/artifacts"), ("depotgate", "/v1/interview"), ("interrogate", "/v1/calls"),
)  # fmt: skip
VOLATILE = {"as_of", "last_verification", "notes", "available_at", "oldest_available_at", "oldest"}


def steady(value: Any) -> Any:
    """Without what says when it was asked."""
    if isinstance(value, dict):
        return {name: steady(item) for name, item in value.items() if name not in VOLATILE}
    return [steady(item) for item in value] if isinstance(value, list) else value


def differences(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """Where two views differ, each place in a line of its own."""
    if type(before) is not type(after):
        yield f"{place}: {before!r} became {after!r}"
    elif isinstance(before, dict):
        for name in before.keys() | after.keys():
            yield from differences(before.get(name), after.get(name), f"{place}/{name}")
    elif isinstance(before, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif before != after:
        yield f"{place}: {before!r} became {after!r}"


async def view(tenant: PlanTenant, who: str, gate: str, path: str) -> Any:
    answer = await tenant.ask(who, "GET", gate, path)
    assert answer.status_code == 200, answer.text
    return steady(answer.json())


async def views(tenant: PlanTenant, plans: list[str]) -> dict[str, Any]:
    shown = {f"{gate}{path}": await view(tenant, "observer", gate, path) for gate, path in VIEWS}
    for name in tenant.principals:
        shown[f"inbox of {name}"] = await view(tenant, "observer", "memorygate", f"/inbox?principal={name}")
    shown["inbox of AsyncGate"] = await view(tenant, "observer", "memorygate", "/inbox?principal=svc:asyncgate")
    for plan_id in plans:
        shown[plan_id] = await view(tenant, "observer", "delegate", f"/plans/{plan_id}?body=true")
        shown[f"root of {plan_id}"] = await view(tenant, "observer", "memorygate", f"/receipts/root/{plan_id}")
    return shown


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "capability": f"rebuilt.{name}", "job": {"instruction": "Work."}, **more}


async def planned(tenant: PlanTenant, *steps: dict[str, Any]) -> str:
    escalation = [{"on": ["failure"], "to": "principal"}]
    plan = await asked(tenant, {"intent": {"draft": {"escalation": escalation, "steps": list(steps)}}})
    return str(plan["plan_id"])


async def story(tenant: PlanTenant) -> tuple[list[str], dict[str, Any]]:
    """Plans that ended, were abandoned, are held and run; a decision of each kind; an artifact; tasks that wait, are held
    back, escalated and leased. The ids of the plans, the lease.
    """
    ended = await planned(tenant, step("ended"))
    await run_task(tenant, "rebuilt.ended")
    await closed(tenant, ended)
    abandoned = await planned(tenant, step("abandoned"))
    answer = await tenant.ask("principal", "POST", "delegate", f"/plans/{abandoned}/close", {"abandon": True})
    assert answer.status_code == 200, answer.text
    held = (await asked(tenant, {"intent": {"template": "held", "parameters": {"documents": []}}}))["plan_id"]
    running = await planned(
        tenant, step("waiting"), step("needing", dependsOn=["waiting"]), step("leased"), step("escalated")
    )
    escalated = await lease_next(tenant, "rebuilt.escalated")
    body = {
        "lease_id": escalated["lease_id"],
        "escalation_class": "other",
        "escalation_reason": "no",
        "escalation_to": "principal",
    }
    answer = await tenant.ask("worker", "POST", "asyncgate", "/escalate", body)
    assert answer.status_code in {200, 201}, answer.text
    admitted = await evaluated(tenant, "document.review", {"documents": []})
    denied = await evaluated(tenant, "document.review", {}, parent_task_id=new_id())
    assert (admitted.status_code, denied.status_code) == (200, 403), (admitted.text, denied.text)
    path, media = f"/artifacts?role=input&task_id={running}", {"content_type": "application/octet-stream"}
    assert (await tenant.ask("principal", "POST", "depotgate", path, b"input", **media)).status_code == 201
    return [ended, abandoned, held, running], await lease_next(tenant, "rebuilt.leased")


async def emptied(watched: WatchedGates) -> None:
    connection = await asyncpg.connect(watched.superuser)
    try:
        for schema, tables in EMPTIED.items():
            names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
            left = {row["tablename"] for row in names if not row["tablename"].startswith("receipt_")}
            assert left - set(tables) == KEPT.get(schema, set()) | ({"migration"} & left), schema
        await connection.execute(
            "TRUNCATE " + ", ".join(f"{schema}.{table}" for schema, tables in EMPTIED.items() for table in tables)
        )
    finally:
        await connection.close()


async def test_what_gates_show_is_derived_from_receipts(watched: WatchedGates) -> None:
    """Open obligations, custodians and outcomes before and after; then the lease that was live is, and the plan ends."""
    tenant = await watched.tenant()
    await tenant.publish(
        templates={"held": {**REVIEW, "capability": "held", "dispatch": "Held", "approver": "approver"}}
    )
    validation = {"intent": {"template": "held", "parameters": {"documents": []}}}
    await tenant.until(
        lambda answer: answer.json()["valid"], "principal", "POST", "delegate", "/plans/validate", validation
    )
    plans, lease = await story(tenant)
    before = await views(tenant, plans)
    await emptied(watched)
    assert await views(tenant, plans) != before
    dsn = watched.superuser
    assert (await verify_memorygate(dsn, rebuild=True)).bad is None
    assert (await verify_interrogate(dsn, rebuild=True)).bad is None
    await rebuild_asyncgate(dsn)
    await rebuild_depotgate(dsn)
    after = await views(tenant, plans)
    assert [*differences(before, after)] == []
    await run_task(tenant, lease=lease)
    for capability in ("rebuilt.waiting", "rebuilt.needing"):
        await run_task(tenant, capability)
    running = plans[-1]
    ended = await completed(tenant, "principal", f"{running}.escalated", f"{running}.escalated")
    assert ended.status_code == 201, ended.text
    assert (await closed(tenant, running))["counts"]["success"] == 4
