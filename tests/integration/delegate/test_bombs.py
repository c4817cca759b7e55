"""Plans that would be too much: refused before there is a row, whatever asks for them."""

from typing import Any

import pytest
from tests.integration.delegate.contents import table_checksums
from tests.integration.delegate.driving import asked, evaluated
from tests.integration.delegate.gate_fixture import GateGroup, plan_tenant
from tests.integration.memorygate.conftest import new_id

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("EXT-24")]

ITEMS: dict[str, Any] = {"type": "object", "properties": {"items": {"type": "array"}}}


def bomb(capability: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"capability": capability, "parameters": ITEMS, "escalation": [], "steps": list(steps)}


def group(step_id: str, *needs: str) -> dict[str, Any]:
    return {"id": step_id, "forEach": "items", "capability": "bomb.work", "job": {}, "dependsOn": list(needs)}


def one(step_id: str, *needs: str) -> dict[str, Any]:
    return {"id": step_id, "capability": "bomb.work", "job": {}, "dependsOn": list(needs)}


def included(step_id: str, name: str) -> dict[str, Any]:
    plan = {"templateRef": {"name": name}, "parameters": {"items": "${parameters.items}"}}
    return {"id": step_id, "plan": plan}


GROUPS = (group("a"), group("b", "a"), group("c", "b"), group("d", "c"))
TEMPLATES = {
    "most": bomb("bomb.most", *GROUPS),
    "more": bomb("bomb.more", *GROUPS, one("e", "d")),
    "tree": bomb("bomb.tree", {**included("t", "branch"), "forEach": "items"}),
    "branch": bomb("bomb.branch", {**included("t", "leaf"), "forEach": "items"}),
    "leaf": bomb("bomb.leaf", group("t")),
}


def items(count: int) -> dict[str, Any]:
    return {"items": list(range(count))}


REFUSED = [
    ("more", items(50), "TooManySteps"),
    ("tree", items(64), "TooManySteps"),
    ("leaf", items(65), "TooManyItems"),
    ("leaf", {"items": "x"}, "ParametersRefused"),
]
"""Templates, parameters, and why they make no plan."""


async def test_201_steps_leave_nothing(gates: GateGroup) -> None:
    """422 with the finding; no table of any gate has changed."""
    tenant = await plan_tenant(gates, templates=TEMPLATES)
    before = await table_checksums(tenant)
    for template, parameters, reason in REFUSED:
        intent = {"template": template, "parameters": parameters}
        answer = await tenant.ask("principal", "POST", "delegate", "/plans", {"intent": intent})
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PLAN"), answer.text
        assert reason in {finding["reason"] for finding in answer.json()["findings"]}
    assert await table_checksums(tenant) == before
    assert await tenant.receipts() == []


async def test_an_admitted_bomb_leaves_its_admission_alone(gates: GateGroup) -> None:
    """InterroGate's decision and what became of it are receipted; DeleGate emits nothing."""
    tenant = await plan_tenant(gates, templates=TEMPLATES)
    answer = await evaluated(tenant, "bomb.more", items(50))
    [forward] = answer.json()["forwards"]
    assert forward["status"] == 422, forward
    emitters = {receipt["emitter"] for receipt in await tenant.receipts()}
    assert emitters == {"svc:interrogate"}


async def test_200_steps_are_taken(gates: GateGroup) -> None:
    """As many tasks and the end, each parked once, where each of 150 needs 50 others."""
    tenant = await plan_tenant(gates, templates=TEMPLATES)
    request = {"plan_id": new_id(), "intent": {"template": "most", "parameters": items(50)}}
    # A busy machine may need more time than one statement has; the same request again goes on with the same bytes.
    answer = await tenant.until(
        lambda answer: answer.status_code == 202, "principal", "POST", "delegate", "/plans", request
    )
    plan = answer.json()
    assert (len(plan["steps"]), plan["phase"]) == (201, "running")
    parked = await tenant.receipts(emitter="svc:asyncgate", phase="accepted")
    assert sorted(receipt["task_id"] for receipt in parked) == sorted(step["task_id"] for step in plan["steps"])


async def test_templates_that_come_to_include_each_other(gates: GateGroup) -> None:
    """Each was served and sound; a later change of one closes the circle, and not one receipt is written for it."""
    templates = {"first": bomb("bomb.first", included("s", "second")), "second": bomb("bomb.second", one("s"))}
    tenant = await plan_tenant(gates, templates=templates)
    request = {"intent": {"template": "first", "parameters": {}}}
    assert len((await asked(tenant, request))["steps"]) == 2
    await tenant.publish(templates={"second": bomb("bomb.second", included("s", "first"))})
    checked = ("principal", "POST", "delegate", "/plans/validate", request)
    answer = await tenant.until(lambda answer: not answer.json()["valid"], *checked)
    assert [finding["reason"] for finding in answer.json()["findings"]] == ["TemplateCycle"]
    before = await tenant.receipts()
    answer = await tenant.ask("principal", "POST", "delegate", "/plans", {**request, "plan_id": new_id()})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PLAN")
    assert await tenant.receipts() == before
