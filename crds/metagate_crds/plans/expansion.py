"""Expanding: a template with its parameters, or a draft, becomes one plan or the findings that keep it from being one.

Sub-plans stand in place (DG-12) and forEach becomes as many steps as it has items, so what is approved is what will be
minted. Bounded: it stops at the first step beyond the most, however many a template's parameters would make.
"""

from __future__ import annotations

import heapq
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, NoReturn

from metagate_crds import reasons
from metagate_crds.authority import Authority, exceeded, parse_authority
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.kinds import PLAN_TEMPLATE
from metagate_crds.plans.identifiers import created_at, task_id
from metagate_crds.plans.parameters import ABSENT, parameter_findings, replaced
from metagate_crds.plans.plan import (
    CLOSE,
    CLOSE_CAPABILITY,
    MOST_BYTES,
    SCHEMA,
    Plan,
    PlanOrigin,
    plan_digest,
)
from metagate_crds.plans.template import PlanTemplate
from metagate_crds.rules.findings import Finding, Step, render_path
from metagate_crds.rules.plan_rules import (
    HELD_WITHIN,
    MOST_ITEMS,
    MOST_SETTINGS_BYTES,
    MOST_VALUE_BYTES,
    input_steps,
    needs_of,
    pointer_problem,
)
from metagate_crds.rules.spec_scanner import SpecScanner
from metagate_crds.validation import parse_spec

MOST_STEPS: Final = 200
MOST_NEEDS: Final = 64
MOST_LEVELS: Final = 4
_MOST_SUB_PLANS: Final = MOST_STEPS * MOST_LEVELS
"""What 200 steps can need at most; more are looked at only where sub-plans are empty, and those would multiply."""
_NOT_IN_DRAFTS: Final = ("capability", "parameters")
# A draft is a template that nobody can ask for, so its members have the rules of a template's.
_DRAFT_CAPABILITY: Final = "plan.draft"

_Path = tuple[Step, ...]
_Node = dict[str, Any]
_Rules = Sequence[Mapping[str, Any]]


def plan_from_template(
    origin: PlanOrigin,
    template: PlanTemplate,
    parameters: Any,
    templates: Mapping[str, PlanTemplate],
    principals: Container[str],
) -> Plan | list[Finding]:
    """The plan, or everything that is wrong. `templates`: those served in the namespace, by name."""
    scanner = SpecScanner(forbid=False)
    scanner.scan(parameters)
    if scanner.findings:
        return sorted({_moved(finding, "parameters") for finding in scanner.findings})
    if findings := parameter_findings(template.spec, parameters, ("parameters",)):
        return [_moved(finding, "") for finding in findings]
    planner = {
        "kind": "template",
        "name": template.name,
        "digest": f"sha256:{template.digest}",
        "revision": template.revision,
    }
    expansion = _Expansion(templates, principals)
    return expansion.plan(origin, template.spec, parameters, planner, templates_above=(template.name,))


def plan_from_draft(
    origin: PlanOrigin, draft: Any, templates: Mapping[str, PlanTemplate], principals: Container[str]
) -> Plan | list[Finding]:
    """The same of a draft: a template's spec without capability, parameters and anything that stands for one."""
    spec = read_draft(draft)
    if isinstance(spec, list):
        return spec
    planner = {"kind": "draft", "name": None, "digest": f"sha256:{digest(canonical(draft))}", "revision": None}
    result = _Expansion(templates, principals).plan(origin, spec, {}, planner, templates_above=())
    return result if isinstance(result, Plan) else [_moved(finding, "draft") for finding in result]


def read_draft(draft: Any) -> dict[str, Any] | list[Finding]:
    """The draft with defaults filled in, or everything that is wrong with it by itself. Never raises."""
    if not isinstance(draft, dict):
        return [Finding("draft", reasons.INVALID_FIELD, "must be an object")]
    unknown = [name for name in _NOT_IN_DRAFTS if name in draft]
    spec = {name: member for name, member in draft.items() if name not in _NOT_IN_DRAFTS}
    model, refused = parse_spec(PLAN_TEMPLATE.name, {**spec, "capability": _DRAFT_CAPABILITY})
    findings = [Finding(f"draft.{name}", reasons.UNKNOWN_FIELD, "is not a field of a draft") for name in unknown]
    findings += [_moved(finding, "draft") for finding in refused]
    return sorted(set(findings)) if model is None or findings else model.declared()


def _moved(finding: Finding, where: str) -> Finding:
    """The finding with another name for what paths of specs call `spec`."""
    path = finding.path.removeprefix("spec")
    path = where + path if where else path.removeprefix(".")
    return Finding(path or where, finding.reason, finding.message)


class _Stopped(Exception):  # noqa: N818 - ends an expansion that would cost too much
    pass


@dataclass(slots=True)
class _Expansion:
    """Of one request. Findings gather; steps, sub-plans and bytes are counted over all levels."""

    templates: Mapping[str, PlanTemplate]
    principals: Container[str]
    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    sub_plans: int = 0
    given_bytes: int = 0
    approver: str | None = None
    """Who approves the whole."""

    def plan(
        self,
        origin: PlanOrigin,
        spec: Mapping[str, Any],
        parameters: Mapping[str, Any],
        planner: Mapping[str, Any],
        templates_above: tuple[str, ...],
    ) -> Plan | list[Finding]:
        self._require_principals(spec)
        self.approver = spec.get("approver")
        level = _Level(self, spec, parameters, (), "", templates_above, None, None)
        try:
            steps = level.expand(())
        except _Stopped:
            return sorted(set(self.findings))
        if not self.findings and not steps:
            self.refuse(("steps",), reasons.MISSING_FIELD, "leave nothing to do: every forEach is empty")
        if self.findings:
            return sorted(set(self.findings))
        steps.append(_close_step(steps))
        plan = Plan.of(self._document(origin, spec, planner, steps))
        for task in plan.tasks:
            if len(task.depends_on) > MOST_NEEDS:
                what = "the end of the plan waits for" if task.is_close else f"the step {task.step_id} needs"
                self.refuse(("steps",), reasons.TOO_MANY_NEEDS, f"are too many beside each other: {what} more than 64")
        if len(plan.body) > MOST_BYTES:
            self.refuse((), reasons.PLAN_TOO_LARGE, f"makes a plan of more than {MOST_BYTES // 1024} KiB")
        return sorted(set(self.findings)) or plan

    def refuse(self, path: _Path, reason: str, message: str) -> None:
        self.findings.append(Finding(render_path(path), reason, message))

    def count_step(self, path: _Path) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            message = f"make more than {MOST_STEPS} in all, those of sub-plans and forEach counted"
            self._stop(path[:-1], reasons.TOO_MANY_STEPS, message)

    def count_sub_plan(self, path: _Path) -> None:
        self.sub_plans += 1
        if self.sub_plans > _MOST_SUB_PLANS:
            message = f"make more than {_MOST_SUB_PLANS} plans within plans, empty ones counted"
            self._stop(path[:-1], reasons.TOO_MANY_STEPS, message)

    def count_bytes(self, value: Any, path: _Path) -> int:
        """The size of what parameters put here. A few KiB of them in many places would fill the memory."""
        size = len(canonical(value))
        self.given_bytes += size
        if self.given_bytes > MOST_BYTES:
            message = f"makes a plan of more than {MOST_BYTES // 1024} KiB, with what parameters put into steps"
            self._stop(path, reasons.PLAN_TOO_LARGE, message)
        return size

    def _stop(self, path: _Path, reason: str, message: str) -> NoReturn:
        self.refuse(path, reason, message)
        raise _Stopped

    def require_principal(self, path: _Path, name: str) -> None:
        if name not in self.principals:
            self.refuse(path, reasons.PRINCIPAL_NOT_FOUND, "is no Principal of this namespace")

    def _require_principals(self, spec: Mapping[str, Any]) -> None:
        for name in ("approver", "escalateTo"):
            if name in spec:
                self.require_principal((name,), spec[name])

    def _deadline(self, origin: PlanOrigin, spec: Mapping[str, Any]) -> str | None:
        if "deadlineSeconds" not in spec:
            return None
        try:
            moment = created_at(origin.plan_id) + timedelta(seconds=spec["deadlineSeconds"])
        except (OverflowError, ValueError):
            self.refuse(("deadlineSeconds",), reasons.INVALID_FIELD, "ends after the year 9999")
            return None
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _document(
        self, origin: PlanOrigin, spec: Mapping[str, Any], planner: Mapping[str, Any], steps: list[_Node]
    ) -> dict[str, Any]:
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "plan_id": origin.plan_id,
            "tenant_id": origin.tenant_id,
            "principal_ai": origin.principal_ai,
            "caused_by_receipt_id": origin.caused_by_receipt_id,
            "root_task_id": origin.root_task_id,
            "parent_task_id": origin.parent_task_id,
            "planner": dict(planner),
            "dispatch": spec.get("dispatch", "Now"),
            "approver": spec.get("approver"),
            "escalate_to": spec.get("escalateTo", origin.principal_ai),
            "result": spec.get("result"),
            "deadline_at": self._deadline(origin, spec),
            "steps": [_with_task_ids(step, origin.plan_id) for step in steps],
        }
        return {**document, "plan_digest": plan_digest(document)}


@dataclass(slots=True)
class _Level:
    """One template or draft within the plan. `prefix` stands before the ids of its steps."""

    expansion: _Expansion
    spec: Mapping[str, Any]
    parameters: Mapping[str, Any]
    path: _Path
    prefix: str
    templates_above: tuple[str, ...]
    rules_above: _Rules | None
    ceiling: Authority | None
    last: dict[str, list[str]] = field(default_factory=dict)
    """What a written step stands for to those that need it: the ids of its last steps."""
    outputs: dict[str, list[str]] = field(default_factory=dict)
    """The ids of the steps whose artifacts are a written step's output."""

    def expand(self, needs_above: tuple[str, ...]) -> list[_Node]:
        """The steps in topological, then written order. `needs_above`: what a sub-plan as a whole waits for."""
        self._require_targets(self.spec, self.path)
        nodes: list[_Node] = []
        ids: set[str] = set()
        for index in _ordered(self.spec["steps"]):
            step = self.spec["steps"][index]
            made = self._expand_step(step, (*self.path, "steps", index), needs_above)
            for node in made:
                if node["step_id"] in ids:
                    message = "becomes steps whose ids others have already"
                    self.expansion.refuse((*self.path, "steps", index, "id"), reasons.DUPLICATE, message)
                ids.add(node["step_id"])
            nodes += made
        return nodes

    def _expand_step(self, step: Mapping[str, Any], path: _Path, needs_above: tuple[str, ...]) -> list[_Node]:
        self._require_targets(step, path)
        written = needs_of(step)
        # The result of a sub-plan need not be one of its last steps, and a lease names only receipts of what it needs.
        taken = [output for need in input_steps(step) for output in self.outputs.get(need, ())]
        needs = list(dict.fromkeys([*(last for need in written for last in self.last.get(need, ())), *taken]))
        depends_on = needs or list(needs_above)
        nodes: list[_Node] = []
        last: list[str] = []
        outputs: list[str] = []
        for suffix, item in self._items(step, path):
            step_id = f"{self.prefix}{step['id']}{suffix}"
            if "plan" in step:
                node, ends, results = self._sub_plan(step, path, step_id, depends_on, item)
            else:
                self.expansion.count_step(path)
                node, ends, results = self._task(step, path, step_id, depends_on, item), [step_id], [step_id]
            if node is not None:
                nodes.append(node)
            last += ends
            outputs += results
        # A step that became nothing is not waited for, but what it would have waited for is.
        self.last[step["id"]] = last or needs
        self.outputs[step["id"]] = outputs
        return nodes

    def _items(self, step: Mapping[str, Any], path: _Path) -> list[tuple[str, Any]]:
        """A suffix of ids and an item for each step that this one becomes."""
        if "forEach" not in step:
            return [("", ABSENT)]
        items = self.parameters.get(step["forEach"], [])
        if not isinstance(items, list):
            self.expansion.refuse((*path, "forEach"), reasons.UNKNOWN_PARAMETER, "is given no array")
            return []
        if len(items) > MOST_ITEMS:
            message = f"has {len(items)} items, more than {MOST_ITEMS}"
            self.expansion.refuse((*path, "forEach"), reasons.TOO_MANY_ITEMS, message)
            return []
        return [(f"-{number}", item) for number, item in enumerate(items)]

    def _rules(self, step: Mapping[str, Any]) -> _Rules | None:
        rules: _Rules | None = step.get("escalation", self.spec.get("escalation"))
        return self.rules_above if rules is None else rules

    def _require_targets(self, owner: Mapping[str, Any], path: _Path) -> None:
        """Whom the rules of a step, or those for all steps, name. Rules that no step uses are judged like others."""
        for index, rule in enumerate(owner.get("escalation", ())):
            self.expansion.require_principal((*path, "escalation", index, "to"), rule["to"])

    def _task(self, step: Mapping[str, Any], path: _Path, step_id: str, depends_on: list[str], item: Any) -> _Node:
        authority = step.get("authority", {})
        self._require_within_ceiling(authority, path)
        return {
            "step_id": step_id,
            "kind": "task",
            "capability": step["capability"],
            "depends_on": depends_on,
            "job": self._job(step["job"], (*path, "job"), item),
            "escalation": list(self._rules(step) or ()),
            "authority": authority,
        }

    def _require_within_ceiling(self, authority: Mapping[str, Any], path: _Path) -> None:
        wanted = parse_authority(authority)
        if self.ceiling is None or not isinstance(wanted, Authority):
            return
        member = exceeded(wanted, self.ceiling)
        if member is not None:
            message = "goes beyond the authority of the step that this plan stands in for"
            self.expansion.refuse((*path, "authority", member), reasons.AUTHORITY_EXCEEDED, message)

    def _job(self, job: Mapping[str, Any], path: _Path, item: Any) -> _Node:
        inputs: list[_Node] = []
        for index, each in enumerate(job.get("inputs", ())):
            inputs += self._inputs(each, (*path, "inputs", index), item)
        names = [each["name"] for each in inputs]
        if len(set(names)) != len(names):
            message = "become inputs of the same name: those of a group get its name and a number"
            self.expansion.refuse((*path, "inputs"), reasons.DUPLICATE, message)
        made = {**job, "inputs": inputs} if inputs or "inputs" in job else dict(job)
        if "settings" in job:
            made["settings"] = replaced(job["settings"], self.parameters, item)
            self._require_size(made["settings"], (*path, "settings"), MOST_SETTINGS_BYTES)
        return made

    def _inputs(self, each: Mapping[str, Any], path: _Path, item: Any) -> list[_Node]:
        """One input; none where its parameter was not given; one for each step of a group."""
        if "step" in each:
            ids = self.outputs.get(each["step"], [])
            if ids == [f"{self.prefix}{each['step']}"]:
                return [{**each, "step": ids[0]}]
            return [{**each, "name": f"{each['name']}-{number}", "step": step} for number, step in enumerate(ids)]
        name = "pointer" if "pointer" in each else "value"
        value = replaced(each[name], self.parameters, item)
        if value is ABSENT:
            return []
        if name == "pointer" and (problem := pointer_problem(value)) is not None:
            self.expansion.refuse((*path, name), reasons.INVALID_POINTER, problem)
            return []
        self._require_size(value, (*path, name), MOST_VALUE_BYTES)
        return [{**each, name: value}]

    def _require_size(self, value: Any, path: _Path, most: int) -> None:
        if self.expansion.count_bytes(value, path) > most:
            self.expansion.refuse(path, reasons.TOO_LARGE, f"is larger than {most // 1024} KiB")

    def _sub_plan(
        self, step: Mapping[str, Any], path: _Path, step_id: str, depends_on: list[str], item: Any
    ) -> tuple[_Node | None, list[str], list[str]]:
        """The step that holds the sub-plan's, the ids of its last steps, and of those whose artifacts it gives."""
        place = (*path, "plan", "templateRef", "name")
        name = step["plan"]["templateRef"]["name"]
        template = self.expansion.templates.get(name)
        refused = None
        if template is None:
            refused = reasons.TEMPLATE_NOT_FOUND, "is no PlanTemplate that is served in this namespace"
        elif name in self.templates_above:
            refused = reasons.TEMPLATE_CYCLE, "includes itself, by the templates that it names"
        elif path.count("plan") >= MOST_LEVELS:
            refused = reasons.NESTED_TOO_DEEP, f"is more than {MOST_LEVELS} plans below the first"
        elif template.spec.get("approver") not in {None, self.expansion.approver}:
            # Else whoever may not ask for it unapproved would have it by putting it into a plan of their own.
            refused = reasons.APPROVER_MISSING, HELD_WITHIN
        if template is None or refused is not None:
            if refused is not None:
                self.expansion.refuse(place, *refused)
            return None, [], []
        self.expansion.count_sub_plan(path)
        parameters = replaced(step["plan"].get("parameters", {}), self.parameters, item)
        self._require_size(parameters, (*path, "plan", "parameters"), MOST_VALUE_BYTES)
        findings = parameter_findings(template.spec, parameters, (*path, "plan", "parameters"))
        self.expansion.findings += findings
        if findings:
            return None, [], []
        authority = step.get("authority")
        if authority is not None:
            self._require_within_ceiling(authority, path)
        ceiling = self.ceiling if authority is None else parse_authority(authority)
        level = _Level(
            self.expansion,
            template.spec,
            parameters,
            (*path, "plan"),
            f"{step_id}.",
            (*self.templates_above, name),
            self._rules(step),
            ceiling if isinstance(ceiling, Authority) else None,
        )
        steps = level.expand(tuple(depends_on))
        if not steps:
            return None, [], []
        ends = last_steps(steps)
        result = template.spec.get("result")
        results = ends if result is None else [f"{step_id}.{result}"]
        return {"step_id": step_id, "kind": "plan", "depends_on": depends_on, "steps": steps}, ends, results


def _leaves(nodes: list[_Node]) -> list[_Node]:
    return [leaf for node in nodes for leaf in (_leaves(node["steps"]) if node["kind"] == "plan" else [node])]


def last_steps(nodes: list[_Node]) -> list[str]:
    """The ids of the tasks that no other task of these needs, in their order."""
    leaves = _leaves(nodes)
    needed = {need for leaf in leaves for need in leaf["depends_on"]}
    return [leaf["step_id"] for leaf in leaves if leaf["step_id"] not in needed]


def _close_step(nodes: list[_Node]) -> _Node:
    """The step whose lease makes somebody ask for the end of the plan: it needs all that nobody needs."""
    return {
        "step_id": CLOSE,
        "kind": "task",
        "capability": CLOSE_CAPABILITY,
        "depends_on": last_steps(nodes),
        "job": {},
        "escalation": [],
        "authority": {},
    }


def _with_task_ids(node: _Node, plan_id: str) -> _Node:
    if node["kind"] == "plan":
        return {**node, "steps": [_with_task_ids(inner, plan_id) for inner in node["steps"]]}
    return {**node, "task_id": task_id(plan_id, node["step_id"])}


def _ordered(steps: Sequence[Mapping[str, Any]]) -> list[int]:
    """Positions in topological order, ties by the written order. Steps on a circle are left out; they were refused."""
    position = {step["id"]: index for index, step in enumerate(steps)}
    needs = [{position[need] for need in needs_of(step) if need in position} for step in steps]
    waiting = [len(each) for each in needs]
    dependents: dict[int, list[int]] = {}
    for index, each in enumerate(needs):
        for need in each:
            dependents.setdefault(need, []).append(index)
    ready = [index for index, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for dependent in dependents.get(index, ()):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                heapq.heappush(ready, dependent)
    return order
