"""PlanTemplates on a real API server: what kubectl says of them, and that only what can become a plan is served."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.cluster.control_plane import Cluster
from tests.operator.machinery import Admission, Operator, Tenancy
from tests.unit.crds.worlds import PLAN_TEMPLATE

ESCALATION_TARGET = ("Principal", "indexer", {"type": "worker"})
STEP = {"id": "read", "capability": "x", "job": {}}


def template(tenancy: Tenancy, name: str = "review", **changes: Any) -> dict[str, Any]:
    return tenancy.resource("PlanTemplate", name, {**PLAN_TEMPLATE, **changes})


async def served(tenancy: Tenancy, name: str = "review") -> list[dict[str, Any]]:
    rows = await tenancy.rows("SELECT name, body FROM metagate.plan_template")
    return [json.loads(row["body"]) for row in rows if row["name"] == name]


@pytest.mark.invariant("INV-078")
async def test_it_is_served_when_who_it_names_is_there(tenancy: Tenancy, operator: Operator) -> None:
    """Applied first, Ready later, by itself; gone when it is deleted."""
    tenancy.apply(template(tenancy))
    condition = tenancy.condition("PlanTemplate", "review", "Ready")
    assert (condition["status"], condition["reason"]) == ("False", "PrincipalNotFound")
    assert condition["message"].startswith("spec.escalation[0].to: ")
    assert await served(tenancy) == []
    tenancy.apply(tenancy.resource(*ESCALATION_TARGET))
    tenancy.wait_ready("pt/review")
    [body] = await served(tenancy)
    assert body["capability"] == "review"
    assert body["steps"][0]["job"]["inputs"][0] == {"name": "document", "pointer": "${item}", "maxBytes": 1048576}
    printed = tenancy.kubectl.run("get", "pt", "-n", tenancy.namespace).stdout.split()
    assert printed[:6] == ["NAME", "READY", "STATUS", "CAPABILITY", "DISPATCH", "AGE"]
    assert printed[6:11] == ["review", "True", "Served", "review", "Now"]
    tenancy.kubectl.run("delete", "pt", "review", "-n", tenancy.namespace)
    async with asyncio.timeout(20):
        while await served(tenancy):
            await asyncio.sleep(0.05)


async def test_templates_that_come_to_include_each_other(tenancy: Tenancy, operator: Operator) -> None:
    """The one that closes the circle takes both out of service, and both come back when it opens."""

    def including(name: str, other: str | None) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [STEP]
        if other is not None:
            steps.append({"id": "more", "plan": {"templateRef": {"name": other}}})
        return template(tenancy, name, capability=name, steps=steps, parameters=None, result=None, escalation=[])

    tenancy.apply(including("inner", None), including("outer", "inner"))
    tenancy.wait_ready("pt/inner")
    tenancy.wait_ready("pt/outer")
    tenancy.apply(including("inner", "outer"))
    for name in ("inner", "outer"):
        tenancy.wait_ready(f"pt/{name}", condition="condition=Ready=False")
        assert tenancy.condition("PlanTemplate", name, "Ready")["reason"] == "TemplateCycle"
        assert await served(tenancy, name) == []
    tenancy.apply(including("inner", None))
    tenancy.wait_ready("pt/outer")
    assert len(await served(tenancy, "outer")) == 1


REFUSED = [
    ({"capability": "Review"}, "spec.capability"),
    ({"dispatch": "Later"}, "spec.dispatch"),
    ({"steps": []}, "spec.steps"),
    ({"steps": [STEP] * 2}, "Duplicate value"),
    ({"steps": [{"id": "read", "capability": "x"}]}, "a step has capability and job, or plan"),
    (
        {"steps": [{**STEP, "job": {"inputs": [{"name": "a", "pointer": "b", "step": "read"}]}}]},
        "an input has exactly one of pointer, step and value",
    ),
    ({"escalation": [{"on": ["sometimes"], "to": "indexer"}]}, "spec.escalation[0].on[0]"),
    ({"steps": [{**STEP, "authority": {"spawn": {"max": 201}}}]}, "spec.steps[0].authority.spawn.max"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_the_api_server_refuses_by_itself(
    tenancy: Tenancy, cluster: Cluster, changes: dict[str, Any], message: str
) -> None:
    """By the schema and its rules, without the webhook."""
    manifest = json.dumps(template(tenancy, **changes))
    done = cluster.kubectl.run("create", "-f", "-", stdin=manifest, check=False)
    assert done.returncode != 0
    assert message in done.stderr


def test_admission_says_the_rest(tenancy: Tenancy, cluster: Cluster) -> None:
    """What only the rules know is refused by its path; what is not there yet is a warning."""
    hostile = [
        ({"steps": [{**STEP, "dependsOn": ["nothing"]}], "result": None}, "spec.steps[0].dependsOn[0]: is the id of"),
        ({"steps": [STEP], "result": None, "escalation": None}, "spec.steps[0].escalation: is required here"),
        ({"dispatch": "Held"}, "spec.approver: is required with dispatch: Held"),
        ({"parameters": {"type": "object", "patternProperties": {}}}, "spec.parameters.patternProperties: is none of"),
        (
            {"steps": [{**STEP, "job": {"settings": {"key": "AKIA" + "ABCDEFGHIJKLMNOP"}}}], "result": None},
            "spec.steps[0].job.settings.key",
        ),
    ]
    with Admission.running(cluster):
        done = tenancy.kubectl.apply(template(tenancy))
        assert "Warning: spec.escalation[0].to: Principal indexer does not exist" in done.stderr
        tenancy.apply(tenancy.resource(*ESCALATION_TARGET))
        done = tenancy.kubectl.apply(template(tenancy, "second"))
        assert "Warning: spec.capability: older PlanTemplate review already has this capability" in done.stderr
        for changes, message in hostile:
            manifest = json.dumps(template(tenancy, "hostile", **changes))
            done = tenancy.kubectl.run("apply", "-f", "-", stdin=manifest, check=False)
            assert done.returncode != 0
            assert message in done.stderr


def test_kubectl_explains_the_fields(cluster: Cluster) -> None:
    """Where people look first."""
    for field, part in (
        ("steps.forEach", "each item makes one step"),
        ("steps.job.instruction", "what callers give reaches a model as data only"),
        ("approver", "required with dispatch: Held"),
    ):
        text = " ".join(cluster.kubectl.run("explain", f"plantemplate.spec.{field}").stdout.split())
        assert part in text
