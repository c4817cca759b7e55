"""The worker's reading of plans, on documents as they are expanded from templates and drafts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legivellum_worker import Failed
from legivellum_worker.plan_step import find_step, split_pointer
from metagate_crds.plans.expansion import plan_from_draft, plan_from_template
from metagate_crds.plans.plan import Plan, PlanOrigin
from metagate_crds.plans.template import PlanTemplate

PLAN_ID = "01M8H6CMWB5SGPYD6E5RZJQXBM"
ORIGIN = PlanOrigin(PLAN_ID, "5f0e3a34-6dd4-4e7f-9c4e-8ef1f5f8f6f1", "alice", None, PLAN_ID)
RULES = [{"on": ["failure", "dependency"], "class": "trust", "to": "lead"}]
INNER: dict[str, Any] = {
    "capability": "inner",
    "parameters": {"type": "object", "properties": {"documents": {"type": "array", "items": {"type": "string"}}}},
    "escalation": RULES,
    "steps": [
        {
            "id": "read",
            "forEach": "documents",
            "capability": "index",
            "job": {"inputs": [{"name": "d", "pointer": "${item}"}]},
        },
        {"id": "merge", "capability": "index", "job": {"inputs": [{"name": "parts", "step": "read"}]}},
    ],
    "result": "merge",
}
OUTER: dict[str, Any] = {
    "capability": "outer",
    "escalation": [],
    "steps": [
        {"id": "sub", "plan": {"templateRef": {"name": "inner"}, "parameters": {"documents": ["s3://a", "s3://b"]}}},
        {
            "id": "last", "capability": "index",
            "job": {
                "instruction": "Sum up.",
                "inputs": [{"name": "whole", "step": "sub", "maxBytes": 9}, {"name": "v", "value": {"n": 1}}],
                "output": {"mime": "text/markdown", "maxBytes": 100, "schema": {"type": "object"}},
                "settings": {"k": 1},
            },
        },
    ],
}  # fmt: skip


def template_of(name: str, spec: dict[str, Any]) -> PlanTemplate:
    return PlanTemplate.of(spec, name=name, namespace="team-a", revision=1)


@pytest.fixture(scope="module")
def plan() -> Plan:
    templates = {"inner": template_of("inner", INNER), "outer": template_of("outer", OUTER)}
    made = plan_from_template(ORIGIN, templates["outer"], {}, templates, {"alice", "lead"})
    assert isinstance(made, Plan), made
    return made


def test_every_task_finds_its_step(plan: Plan) -> None:
    """Also those of sub-plans and groups; inputs name steps whose tasks are known."""
    assert len(plan.tasks) == 5
    for task in plan.tasks:
        step = find_step(plan.body, task.step_id, task.task_id)
        assert step.job.document == (task.job or {})
        assert [(rule.on, rule.escalation_class, rule.to) for rule in step.rules] == [
            (frozenset(rule["on"]), rule.get("class", "other"), rule["to"]) for rule in task.escalation
        ]
        for declared in step.job.inputs:
            if declared.step is not None:
                assert step.task_of(declared.step) in {other.task_id for other in plan.tasks}


def test_a_job_as_it_was_written(plan: Plan) -> None:
    step = find_step(plan.body, "last", f"{PLAN_ID}.last")
    whole, value = step.job.inputs
    assert (whole.step, step.task_of(whole.step or ""), whole.max_bytes) == ("sub.merge", f"{PLAN_ID}.sub.merge", 9)
    assert (value.has_value, value.value, value.max_bytes) == (True, {"n": 1}, 1 << 20)
    job = step.job
    assert (job.instruction, job.media_type, job.max_output_bytes) == ("Sum up.", "text/markdown", 100)
    assert (job.output_schema, job.settings) == ({"type": "object"}, {"k": 1})
    merge = find_step(plan.body, "sub.merge", f"{PLAN_ID}.sub.merge")
    assert [declared.step for declared in merge.job.inputs] == ["sub.read-0", "sub.read-1"]
    assert merge.rules[0].to == "lead"


def test_a_draft_is_read_alike() -> None:
    draft = {"escalation": [], "steps": [{"id": "only", "capability": "index", "job": {"instruction": "x"}}]}
    made = plan_from_draft(ORIGIN, draft, {}, {"alice"})
    assert isinstance(made, Plan), made
    assert find_step(made.body, "only", f"{PLAN_ID}.only").job.instruction == "x"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"steps": 5}', b'{"steps": [5]}', b'{"steps": [{}]}', b"[" * 200_000, b"\xff"],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_plan_is_refused(body: bytes) -> None:
    with pytest.raises(Failed, match="INPUT_REFUSED"):
        find_step(body, "only", f"{PLAN_ID}.only")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(("job", "steps", "inputs", "escalation", "output", "kind", "step_id", "name")), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_any_document_is_a_step_or_refused(member: Any) -> None:
    """Whoever mints a task may point it at any artifact: nothing else is raised."""
    step = {"step_id": "only", "task_id": "t", "job": member, "escalation": member}
    with_step = {"steps": [step, {"kind": "plan", "steps": member}] if isinstance(member, list) else [step]}
    for document in (member, with_step):
        try:
            outcome = find_step(json.dumps(document).encode(), "only", "t").step_id
        except Failed as failure:
            outcome = failure.code
        assert outcome in {"only", "INPUT_REFUSED"}


def test_only_a_pointer_with_a_step_names_one() -> None:
    pointer = f"depot:{PLAN_ID}:{'0' * 64}"
    assert split_pointer(f"{pointer}#sub.read-0") == (pointer, "sub.read-0")
    for other in (pointer, f"{pointer}#", "s3://bucket/key#step", ""):
        assert split_pointer(other) is None
