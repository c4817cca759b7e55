"""The end of a plan: one receipt, whoever asks and however many at once."""

import asyncio
from typing import Any

import httpx
import pytest
from tests.integration.delegate.driving import asked, closed, completed, lease_next, leases, run_task, tasks_of
from tests.integration.delegate.gate_fixture import PlanTenant

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-082", "INV-084")]

DRAFT: dict[str, Any] = {
    "escalation": [{"on": ["failure", "dependency"], "to": "stranger"}],
    "result": "write",
    "steps": [
        {"id": "look", "capability": "web.look", "job": {"instruction": "Look."}},
        {"id": "write", "capability": "text.write", "dependsOn": ["look"], "job": {"instruction": "Write."}},
    ],
}
INTENT = {"intent": {"draft": DRAFT}}


async def close(tenant: PlanTenant, plan_id: str, who: str = "worker", body: Any = None) -> httpx.Response:
    return await tenant.ask(who, "POST", "delegate", f"/plans/{plan_id}/close", {} if body is None else body)


async def ends(tenant: PlanTenant, plan_id: str) -> list[dict[str, Any]]:
    return await tenant.receipts(obligation_id=plan_id, phase="complete")


async def test_too_early_it_names_what_is_open(tenant: PlanTenant) -> None:
    """Never the step that asks; and nothing is written."""
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    before = len(await tenant.receipts())
    answer = await close(tenant, plan_id)
    assert (answer.status_code, answer.json()["code"]) == (409, "PLAN_NOT_FINISHED")
    assert answer.json()["open"] == ["look", "write"]
    assert len(await tenant.receipts()) == before
    await run_task(tenant, "web.look")
    assert (await close(tenant, plan_id)).json()["open"] == ["write"]
    await run_task(tenant, "text.write")
    assert (await close(tenant, plan_id)).json()["counts"] == {"success": 2, "failure": 0, "canceled": 0}


async def test_a_hundred_ask_at_once(tenant: PlanTenant) -> None:
    """One end, which all of them are answered."""
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    for capability in ("web.look", "text.write"):
        await run_task(tenant, capability)
    answers = await asyncio.gather(*(close(tenant, plan_id, who) for who in ("worker", "stranger") * 50))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    [end] = await ends(tenant, plan_id)
    assert (end["receipt_id"], end["status"]) == (answers[0].json()["receipt_id"], "success")
    assert end["body"] == {"counts": {"success": 2, "failure": 0, "canceled": 0}}


async def test_what_failed_makes_it_a_failure(tenant: PlanTenant) -> None:
    """Counted, and no step named: whether the work is good is not judged here."""
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    await run_task(tenant, "web.look", status="failure")
    await run_task(tenant, "text.write")
    end = await closed(tenant, plan_id)
    assert (end["status"], end["counts"]) == ("failure", {"success": 1, "failure": 1, "canceled": 0})
    [receipt] = await ends(tenant, plan_id)
    assert not any(step in str(receipt["body"]) for step in ("look", "write"))


async def test_the_artifact_of_the_result_is_the_plans(tenant: PlanTenant) -> None:
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    await run_task(tenant, "web.look")
    artifact = {
        "artifact_pointer": "s3://out/report", "artifact_location": "s3://out", "artifact_mime": "text/markdown",
        "artifact_checksum": "sha256:" + "0" * 64, "artifact_size_bytes": 12,
    }  # fmt: skip
    await run_task(tenant, "text.write", outcome_kind="artifact_pointer", outcome_text=None, **artifact)
    await closed(tenant, plan_id)
    [end] = await ends(tenant, plan_id)
    assert {name: end[name] for name in artifact} == artifact


async def test_an_escalated_step_is_waited_for_and_a_person_ends_it(tenant: PlanTenant) -> None:
    """What needed it goes on after that, and the plan ends."""
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    lease = await lease_next(tenant, "web.look")
    escalation = {
        "lease_id": lease["lease_id"],
        "escalation_class": "scope",
        "escalation_reason": "not on the web",
        "escalation_to": "stranger",
    }
    answer = await tenant.ask("worker", "POST", "asyncgate", "/escalate", escalation)
    assert answer.status_code == 200, answer.text
    assert (await close(tenant, plan_id)).json()["open"] == ["look", "write"]
    assert await leases(tenant, "text.write", wait=0) == []
    task_id = f"{plan_id}.look"
    assert (await completed(tenant, "stranger", task_id, task_id)).status_code == 201
    await run_task(tenant, "text.write")
    assert (await closed(tenant, plan_id))["status"] == "success"


async def test_its_principal_abandons_it(tenant: PlanTenant) -> None:
    """Nobody else does; its steps stay, and the end stays what it is."""
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    abandon = {"abandon": True, "reason": "not needed any more"}
    for who in ("stranger", "worker", "delegate", "admin"):
        answer = await close(tenant, plan_id, who, abandon)
        assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED"), who
    answer = await close(tenant, plan_id, "principal", abandon)
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled"), answer.text
    assert (await close(tenant, plan_id, "principal", abandon)).json() == answer.json()
    assert (await close(tenant, plan_id)).json() == answer.json()
    await run_task(tenant, "web.look")
    assert len(await ends(tenant, plan_id)) == 1


async def test_what_is_over_is_not_abandoned(tenant: PlanTenant) -> None:
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    for capability in ("web.look", "text.write"):
        await run_task(tenant, capability)
    await closed(tenant, plan_id)
    answer = await close(tenant, plan_id, "principal", {"abandon": True})
    assert (answer.status_code, answer.json()["code"]) == (409, "OBLIGATION_ALREADY_TERMINATED")


async def test_abandoned_while_its_last_step_ends(tenant: PlanTenant) -> None:
    """Twenty races of both: one end each time, and who lost is told which one it is."""

    async def race() -> tuple[str, str]:
        plan_id = (await asked(tenant, INTENT))["plan_id"]
        task_ids = await tasks_of(tenant, plan_id)
        assert len(task_ids) == 3
        for task_id in (f"{plan_id}.look", f"{plan_id}.write"):
            answer = await tenant.ask("principal", "POST", "asyncgate", f"/tasks/{task_id}/revoke", {})
            assert answer.status_code == 200, answer.text
        abandoned, ended = await asyncio.gather(
            close(tenant, plan_id, "principal", {"abandon": True}), close(tenant, plan_id)
        )
        [end] = await ends(tenant, plan_id)
        assert ended.status_code == 200, ended.text
        assert ended.json()["receipt_id"] == end["receipt_id"]
        assert ended.json()["status"] == end["status"]
        return end["status"], "OVER" if abandoned.status_code == 409 else abandoned.json()["status"]

    results = {await race() for _ in range(20)}
    assert results <= {("canceled", "canceled"), ("failure", "OVER")}


async def test_who_may_not_ask(tenant: PlanTenant) -> None:
    plan_id = (await asked(tenant, INTENT))["plan_id"]
    assert (await close(tenant, plan_id, "observer")).json()["code"] == "ROLE_REQUIRED"
    answer = await tenant.ask("observer", "POST", "delegate", f"/plans/{plan_id}/dispatch")
    assert answer.json()["code"] == "ROLE_REQUIRED"
    assert (await close(tenant, "01ARZ3NDEKTSV4RRFFQ69G5FAV")).json()["code"] == "PLAN_NOT_FOUND"
    assert (await close(tenant, plan_id.lower())).json()["code"] == "INVALID_REQUEST"
    assert (await close(tenant, plan_id, body={"abandon": "yes"})).json()["code"] == "INVALID_REQUEST"
