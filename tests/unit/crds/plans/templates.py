"""Templates, drafts and requests for plans, as the tests of plans write them."""

from collections.abc import Mapping
from typing import Any

from metagate_crds.plans.expansion import plan_from_draft, plan_from_template
from metagate_crds.plans.plan import Plan, PlanOrigin
from metagate_crds.plans.template import PlanTemplate
from metagate_crds.rules.findings import Finding
from metagate_crds.validation import parse_spec

PLAN_ID = "01JDR4Z0C0ABCDEFGHJKMNPQRS"
CAUSE_ID = "01JDR4Z0C0ZZZZZZZZZZZZZZZZ"
TENANT = "00000000-0000-4000-8000-000000000001"
PRINCIPALS = frozenset({"alice", "oncall", "reviewer"})
RULES = [{"on": ["failure"], "to": "oncall"}]
DOCUMENTS = {"type": "object", "properties": {"documents": {"type": "array"}, "language": {"type": "string"}}}


def origin(plan_id: str = PLAN_ID, **changes: Any) -> PlanOrigin:
    members = {"tenant_id": TENANT, "principal_ai": "alice", "caused_by_receipt_id": CAUSE_ID, "root_task_id": plan_id}
    return PlanOrigin(plan_id=plan_id, **(members | changes))


def step(step_id: str, *needs: str, **changes: Any) -> dict[str, Any]:
    """A task step that needs others."""
    members: dict[str, Any] = {"id": step_id, "capability": "text.index", "job": {}}
    return members | ({"dependsOn": list(needs)} if needs else {}) | changes


def sub_plan(step_id: str, template: str, *needs: str, parameters: Any = None, **changes: Any) -> dict[str, Any]:
    """A step that another template stands in for."""
    plan = {"templateRef": {"name": template}} | ({} if parameters is None else {"parameters": parameters})
    return {"id": step_id, "plan": plan} | ({"dependsOn": list(needs)} if needs else {}) | changes


def template(*steps: Mapping[str, Any], name: str = "review", **changes: Any) -> PlanTemplate:
    """One that is valid by itself."""
    spec = {"capability": name, "escalation": RULES, "steps": list(steps)} | changes
    model, findings = parse_spec("PlanTemplate", spec)
    assert model is not None, findings
    return PlanTemplate.of(model.declared(), namespace="team", name=name, revision=7)


def expand(first: PlanTemplate, parameters: Any = None, *others: PlanTemplate) -> Plan | list[Finding]:
    served = {each.name: each for each in (first, *others)}
    return plan_from_template(origin(), first, {} if parameters is None else parameters, served, PRINCIPALS)


def plan_of(first: PlanTemplate, parameters: Any = None, *others: PlanTemplate) -> Plan:
    plan = expand(first, parameters, *others)
    assert isinstance(plan, Plan), plan
    return plan


def findings_of(first: PlanTemplate, parameters: Any = None, *others: PlanTemplate) -> list[tuple[str, str]]:
    findings = expand(first, parameters, *others)
    assert isinstance(findings, list), findings.document
    return [(finding.path, finding.reason) for finding in findings]


def draft_of(*steps: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {"escalation": RULES, "steps": list(steps)} | changes


def expand_draft(draft: Any, *templates: PlanTemplate) -> Plan | list[Finding]:
    return plan_from_draft(origin(), draft, {each.name: each for each in templates}, PRINCIPALS)


def needs(plan: Plan) -> dict[str, list[str]]:
    """What each step needs, by step id, in the plan's order."""
    return {task.step_id: [need.removeprefix(f"{plan.plan_id}.") for need in task.depends_on] for task in plan.tasks}
