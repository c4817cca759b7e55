"""Everything that keeps a template, a draft or a request from being a plan: each with its path and reason."""

import copy
from typing import Any

import pytest
from tests.unit.crds.plans.templates import (
    DOCUMENTS,
    PLAN_ID,
    PRINCIPALS,
    RULES,
    draft_of,
    expand_draft,
    findings_of,
    origin,
    plan_of,
    step,
    sub_plan,
    template,
)

from metagate_crds import reasons
from metagate_crds.plans.expansion import plan_from_template
from metagate_crds.plans.plan import Plan
from metagate_crds.rules.findings import render_path
from metagate_crds.rules.plan_rules import plan_findings
from metagate_crds.validation import validate

CANARY = "canary-value-that-is-nowhere-else"


def spec(*steps: Any, **changes: Any) -> dict[str, Any]:
    members = {"capability": "review", "escalation": RULES, "parameters": DOCUMENTS, "steps": list(steps)} | changes
    return {name: member for name, member in members.items() if member is not None}


def job(**members: Any) -> dict[str, Any]:
    return step("a", job=members)


def read_input(**members: Any) -> dict[str, Any]:
    return job(inputs=[{"name": "x"} | members])


S = "spec.steps[0]"
STATIC: list[tuple[str, dict[str, Any], str, str]] = [
    ("no steps", spec(), "spec.steps", reasons.INVALID_FIELD),
    ("steps missing", {"capability": "review"}, "spec.steps", reasons.MISSING_FIELD),
    ("65 steps", spec(*(step(f"s{n}") for n in range(65))), "spec.steps", reasons.INVALID_FIELD),
    ("unknown member", spec(step("a", runs="x")), f"{S}.runs", reasons.UNKNOWN_FIELD),
    ("own capability", spec(step("a"), capability="plan.close"), "spec.capability", reasons.INVALID_FIELD),
    ("submitted", spec(step("a"), capability="plan.submit"), "spec.capability", reasons.INVALID_FIELD),
    ("upper case", spec(step("a"), capability="Review"), "spec.capability", reasons.INVALID_FIELD),
    ("id", spec(step("1a")), f"{S}.id", reasons.INVALID_FIELD),
    ("long id", spec(step("a" * 42)), f"{S}.id", reasons.INVALID_FIELD),
    ("close", spec(step("close")), f"{S}.id", reasons.INVALID_FIELD),
    ("id twice", spec(step("a"), step("a")), "spec.steps[1].id", reasons.DUPLICATE),
    ("need twice", spec(step("a", "b", "b"), step("b")), f"{S}.dependsOn", reasons.DUPLICATE),
    ("need unknown", spec(step("a", "b")), f"{S}.dependsOn[0]", reasons.UNKNOWN_STEP),
    ("input unknown", spec(read_input(step="b")), f"{S}.job.inputs[0].step", reasons.UNKNOWN_STEP),
    ("itself", spec(step("a", "a")), S, reasons.DEPENDENCY_CYCLE),
    ("circle", spec(step("a", "b"), step("b", "c"), step("c", "a")), "spec.steps[2]", reasons.DEPENDENCY_CYCLE),
    ("circle by inputs", spec(read_input(step="b"), step("b", "a")), "spec.steps[1]", reasons.DEPENDENCY_CYCLE),
    ("neither job nor plan", spec({"id": "a"}), S, reasons.INVALID_FIELD),
    ("job and plan", spec(step("a", plan={"templateRef": {"name": "b"}})), S, reasons.INVALID_FIELD),
    ("no rules", spec(step("a"), escalation=None), f"{S}.escalation", reasons.NO_ESCALATION),
    ("nine rules", spec(step("a", escalation=RULES * 9)), f"{S}.escalation", reasons.INVALID_FIELD),
    ("cause twice", spec(step("a"), escalation=RULES * 2), "spec.escalation[1].on", reasons.DUPLICATE),
    ("cause", spec(step("a", escalation=[{"on": ["x"], "to": "b"}])), f"{S}.escalation[0].on[0]", reasons.INVALID_FIELD),
    ("held by nobody", spec(step("a"), dispatch="Held"), "spec.approver", reasons.APPROVER_MISSING),
    ("approved and not held", spec(step("a"), approver="reviewer"), "spec.approver", reasons.INVALID_FIELD),
    ("result unknown", spec(step("a"), result="b"), "spec.result", reasons.INVALID_RESULT),
    ("result of a group", spec(step("a", forEach="documents"), result="a"), "spec.result", reasons.INVALID_RESULT),
    ("result of a plan", spec(sub_plan("a", "b"), result="a"), "spec.result", reasons.INVALID_RESULT),
    ("deadline", spec(step("a"), deadlineSeconds=31_536_001), "spec.deadlineSeconds", reasons.INVALID_FIELD),
    ("group of nothing", spec(step("a", forEach="x")), f"{S}.forEach", reasons.UNKNOWN_PARAMETER),
    ("group of a text", spec(step("a", forEach="language")), f"{S}.forEach", reasons.UNKNOWN_PARAMETER),
    ("parameter", spec(read_input(pointer="${parameters.x}")), f"{S}.job.inputs[0].pointer", reasons.UNKNOWN_PARAMETER),
    ("in a text", spec(read_input(pointer="a/${parameters.language}")), f"{S}.job.inputs[0].pointer", reasons.UNKNOWN_PARAMETER),
    ("no item", spec(read_input(value=["${item}"])), f"{S}.job.inputs[0].value[0]", reasons.UNKNOWN_PARAMETER),
    ("in settings", spec(job(settings={"a": "${item}"})), f"{S}.job.settings.a", reasons.UNKNOWN_PARAMETER),
    ("to a sub-plan", spec(sub_plan("a", "b", parameters={"x": "${item}"})), f"{S}.plan.parameters.x", reasons.UNKNOWN_PARAMETER),
    ("input twice", spec(job(inputs=[{"name": "x", "value": 1}] * 2)), f"{S}.job.inputs[1].name", reasons.DUPLICATE),
    ("two sources", spec(read_input(value=1, pointer="depot:a")), f"{S}.job.inputs[0]", reasons.INVALID_FIELD),
    ("no source", spec(read_input()), f"{S}.job.inputs[0]", reasons.INVALID_FIELD),
    ("data", spec(read_input(pointer=" DATA:text/plain,x")), f"{S}.job.inputs[0].pointer", reasons.INVALID_POINTER),
    ("control", spec(read_input(pointer="depot:\x01")), f"{S}.job.inputs[0].pointer", reasons.INVALID_POINTER),
    ("pointer bytes", spec(read_input(pointer="é" * 1025)), f"{S}.job.inputs[0].pointer", reasons.INVALID_POINTER),
    ("sink", spec(step("a", authority={"sinks": ["depotgate/plan"]})), f"{S}.authority.sinks[0]", reasons.INVALID_SINK),
    ("sink away", spec(step("a", authority={"sinks": ["depotgate/../output"]})), f"{S}.authority.sinks[0]", reasons.INVALID_SINK),
    ("spawn", spec(step("a", authority={"spawn": {"max": 201}})), f"{S}.authority.spawn.max", reasons.INVALID_FIELD),
    ("value", spec(read_input(value="x" * 16_383)), f"{S}.job.inputs[0].value", reasons.TOO_LARGE),
    ("settings", spec(job(settings={"a": "x" * 8_200})), f"{S}.job.settings", reasons.TOO_LARGE),
    ("instruction", spec(job(instruction="é" * 8_193)), f"{S}.job.instruction", reasons.TOO_LARGE),
    ("for a sub-plan", spec(sub_plan("a", "b", parameters={"x": "y" * 16_400})), f"{S}.plan.parameters", reasons.TOO_LARGE),
    ("in all", spec(*(step(f"s{n}", job={"instruction": "x" * 14_000}) for n in range(5))), "spec", reasons.TOO_LARGE),
    ("secret", spec(job(settings={"password": "hunter2"})), f"{S}.job.settings.password", reasons.SECRET_VALUE),
    ("too deep", spec(job(settings={"a": eval("[" * 40 + "]" * 40)})), "", reasons.TOO_DEEP),
    *(
        (f"schema {name}", spec(step("a"), parameters={"type": "object", "properties": {"x": schema}}), render_path(("parameters", "properties", "x", name)), reasons.INVALID_SCHEMA)
        for name, schema in {
            "pattern": {"pattern": "(a+)+$"},
            "$ref": {"$ref": "https://example.com/schema"},
            "$defs": {"$defs": {}},
            "anyOf": {"anyOf": [{}]},
            "properties": {"properties": 1},
            "items": {"items": True},
            "required": {"required": "x"},
            "format": {"format": "uri"},
            "type": {"type": "text"},
            "additionalProperties": {"additionalProperties": {"type": "string"}},
        }.items()
    ),
    ("schema of a list", spec(step("a"), parameters={"type": "array"}), "spec.parameters.type", reasons.INVALID_SCHEMA),
    ("schema of all", spec(step("a"), parameters={}), "spec.parameters.type", reasons.INVALID_SCHEMA),
    ("large schema", spec(step("a"), parameters={"type": "object", "title": "x" * 8_200}), "spec.parameters", reasons.TOO_LARGE),
    ("schema of outputs", spec(job(output={"schema": {"pattern": "x"}})), f"{S}.job.output.schema.pattern", reasons.INVALID_SCHEMA),
]  # fmt: skip


@pytest.mark.invariant("INV-078")
@pytest.mark.parametrize(("declared", "path", "reason"), [row[1:] for row in STATIC], ids=[row[0] for row in STATIC])
def test_each_finding_of_a_template(declared, path, reason):
    """With the path of what is to be mended and a sentence that says what would be right."""
    before = copy.deepcopy(declared)
    found = validate("PlanTemplate", declared)
    assert declared == before
    assert any(finding.reason == reason and (finding.path == path or not path) for finding in found), found
    assert all(len(finding.message.split()) > 1 for finding in found)


@pytest.mark.invariant("INV-078")
@pytest.mark.parametrize(("declared", "path", "reason"), [row[1:] for row in STATIC], ids=[row[0] for row in STATIC])
def test_each_finding_of_a_draft(declared, path, reason):
    """A draft is judged by the same rules; its paths begin with `draft`, and it has no parameters to stand for."""
    draft = {name: member for name, member in declared.items() if name not in {"capability", "parameters"}}
    found = expand_draft(draft, template(step("x"), name="b"))
    if path.startswith(("spec.capability", "spec.parameters")):
        assert isinstance(found, Plan)
        return
    assert isinstance(found, list)
    wanted = path.replace("spec", "draft", 1)
    assert any(finding.reason == reason and (finding.path == wanted or not path) for finding in found), found
    assert all(finding.path.startswith("draft") for finding in found)


@pytest.mark.parametrize("name", ["capability", "parameters"])
def test_a_draft_is_asked_for_by_nobody(name):
    """So it has no capability and no parameters, not even empty ones."""
    found = expand_draft(draft_of(step("a"), **{name: {}}))
    assert isinstance(found, list)
    assert [(finding.path, finding.reason) for finding in found] == [(f"draft.{name}", reasons.UNKNOWN_FIELD)]


@pytest.mark.parametrize("draft", [None, 1, "x", [], True, {}, {"steps": None}, {"steps": {}}, {"steps": [None]}])
def test_what_is_no_draft_has_findings(draft):
    """Whatever JSON holds: findings and nothing raised."""
    assert isinstance(expand_draft(draft), list)


def test_limits_hold_at_their_edge():
    """The largest of each that is allowed."""
    whole = spec(
        step("a", job={"instruction": "x" * 16_384}),
        read_input(value="x" * 16_382) | {"id": "b"},
        read_input(pointer="p" * 2_048) | {"id": "c"},
        step("d" * 41, job={"settings": {"a": "x" * 8_184}}),
        deadlineSeconds=31_536_000,
    )
    assert validate("PlanTemplate", whole) == ()
    assert plan_findings(whole) == []


def test_principals_that_a_plan_names_exist():
    """Each is named where it is written, rules for all steps once."""
    unknown = [{"on": ["failure"], "to": "ghost"}]
    assert findings_of(
        template(
            step("a", escalation=unknown), step("b"), step("c"), escalation=unknown, escalateTo="x", dispatch="Held",
            approver="y",
        )
    ) == [
        ("spec.approver", reasons.PRINCIPAL_NOT_FOUND),
        ("spec.escalateTo", reasons.PRINCIPAL_NOT_FOUND),
        ("spec.escalation[0].to", reasons.PRINCIPAL_NOT_FOUND),
        ("spec.steps[0].escalation[0].to", reasons.PRINCIPAL_NOT_FOUND),
    ]  # fmt: skip


PARAMETERS = {
    "type": "object",
    "required": ["documents"],
    "additionalProperties": False,
    "properties": {
        "documents": {"type": "array", "items": {"type": "string", "maxLength": 40}, "minItems": 1},
        "language": {"enum": ["en", "de"]},
    },
}


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        (None, "parameters"),
        ([], "parameters"),
        ({}, "parameters.documents"),
        ({"documents": []}, "parameters.documents"),
        ({"documents": [1]}, "parameters.documents[0]"),
        ({"documents": ["x" * 41]}, "parameters.documents[0]"),
        ({"documents": ["x"], "language": "fr"}, "parameters.language"),
        ({"documents": ["x"], "other": 1}, "parameters.other"),
    ],
)
def test_parameters_meet_the_schema(parameters, path):
    """Where they do not, at the place that does not; no value is quoted."""
    first = template(step("a"), parameters=PARAMETERS)
    found = plan_from_template(origin(), first, parameters, {}, PRINCIPALS)
    assert isinstance(found, list)
    assert [(finding.path, finding.reason) for finding in found] == [(path, reasons.PARAMETERS_REFUSED)]


def test_a_template_without_parameters_takes_none():
    """An empty object is what such a template is asked with."""
    assert findings_of(template(step("a")), {"x": CANARY}) == [("parameters.x", reasons.PARAMETERS_REFUSED)]


def test_a_secret_in_parameters_is_refused_and_not_repeated():
    """It would lie in an artifact that a whole tenant reads."""
    secret = "ghp_" + "a1B2" * 9
    first = template(step("a"), parameters=DOCUMENTS)
    found = plan_from_template(origin(), first, {"language": secret}, {}, PRINCIPALS)
    assert isinstance(found, list)
    assert [(finding.path, finding.reason) for finding in found] == [("parameters.language", reasons.SECRET_VALUE)]
    assert secret not in str(found)


@pytest.mark.parametrize("pointer", [1, None, {"a": 1}, "", "data:,x", "x\n", "é" * 1025])
def test_a_pointer_from_outside_is_judged_like_a_written_one(pointer):
    """Parameters may be anything that the schema admits."""
    first = template(read_input(pointer="${item}") | {"forEach": "documents"}, parameters=DOCUMENTS)
    assert findings_of(first, {"documents": [pointer]}) == [
        ("spec.steps[0].job.inputs[0].pointer", reasons.INVALID_POINTER)
    ]


def test_values_from_outside_have_the_bounds_of_written_ones():
    """16 KiB in an input or as parameters of a sub-plan, 8 KiB in settings."""
    whole = {"type": "object", "properties": {"x": {}}}
    first = template(
        read_input(value="${parameters.x}"),
        step("b", job={"settings": {"x": "${parameters.x}"}}),
        sub_plan("c", "inner", parameters={"x": "${parameters.x}"}),
        parameters=whole,
    )
    inner = template(step("a"), name="inner", parameters=whole)
    assert findings_of(first, {"x": "y " * 8_192}, inner) == [
        ("spec.steps[0].job.inputs[0].value", reasons.TOO_LARGE),
        ("spec.steps[1].job.settings", reasons.TOO_LARGE),
        ("spec.steps[2].plan.parameters", reasons.TOO_LARGE),
    ]


def test_a_group_of_more_than_64():
    """64 are expanded, 65 refused."""
    first = template(step("a", forEach="documents"), step("b", "a"), parameters=DOCUMENTS)
    assert len(plan_of(first, {"documents": list(range(64))}).tasks) == 66
    assert findings_of(first, {"documents": list(range(65))}) == [("spec.steps[0].forEach", reasons.TOO_MANY_ITEMS)]


def test_a_step_needs_at_most_64():
    """The end of the plan too."""
    group, other = step("a", forEach="documents"), step("b")
    items = {"documents": list(range(64))}
    last = step("c", "a", "b")
    assert findings_of(template(group, other, last, parameters=DOCUMENTS), items) == [
        ("spec.steps", reasons.TOO_MANY_NEEDS)
    ]
    assert findings_of(template(group, other, parameters=DOCUMENTS), items) == [("spec.steps", reasons.TOO_MANY_NEEDS)]


def test_ids_that_a_group_takes():
    """`a` of two items is `a-0` and `a-1`: no other step may be called so."""
    first = template(step("a", forEach="documents"), step("a-1"), parameters=DOCUMENTS)
    assert findings_of(first, {"documents": [1, 2]}) == [("spec.steps[1].id", reasons.DUPLICATE)]
    assert len(plan_of(first, {"documents": [1]}).tasks) == 3


def test_names_that_inputs_of_a_group_take():
    """`x` from a group is `x-0` and on."""
    joined = step("b", job={"inputs": [{"name": "x", "step": "a"}, {"name": "x-0", "value": 1}]})
    first = template(step("a", forEach="documents"), joined, parameters=DOCUMENTS)
    assert findings_of(first, {"documents": [1]}) == [("spec.steps[1].job.inputs", reasons.DUPLICATE)]


def test_nothing_left_to_do():
    """A plan without a task would end before it began."""
    first = template(step("a", forEach="documents"), parameters=DOCUMENTS)
    assert findings_of(first, {"documents": []}) == [("spec.steps", reasons.MISSING_FIELD)]


def test_templates_that_are_not_served():
    """Named where they are referred to; for a draft too."""
    assert findings_of(template(sub_plan("a", "ghost"))) == [
        ("spec.steps[0].plan.templateRef.name", reasons.TEMPLATE_NOT_FOUND)
    ]
    found = expand_draft(draft_of(sub_plan("a", "ghost")))
    assert isinstance(found, list)
    assert [finding.path for finding in found] == ["draft.steps[0].plan.templateRef.name"]


def test_parameters_of_a_sub_plan_meet_its_schema():
    """The path is that of the step that gives them."""
    inner = template(step("x"), name="inner", parameters=PARAMETERS)
    assert findings_of(template(sub_plan("a", "inner", parameters={"documents": "x"})), None, inner) == [
        ("spec.steps[0].plan.parameters.documents", reasons.PARAMETERS_REFUSED)
    ]


AUTHORITY = {"spawn": {"max": 2}, "sinks": ["depotgate/output"], "cognition": {"calls": 2}}


@pytest.mark.parametrize(
    ("wanted", "member"),
    [({"spawn": {"max": 3}}, "spawn"), ({"sinks": ["depotgate/supporting"]}, "sinks"), ({"invokeCognigate": True}, "invokeCognigate"),
     ({"cognition": {"calls": 3}}, "cognition"), ({"cognition": {"tokens": 1}}, "cognition"), ({"exposeTools": ["a/b"]}, "exposeTools")],
)  # fmt: skip
def test_a_sub_plan_stays_within_the_authority_of_its_step(wanted, member):
    """However deep it stands; what the step does not name it has not."""
    inner = template(step("x", authority=wanted), name="inner")
    between = template(sub_plan("between", "inner"), name="between")
    outer = template(sub_plan("a", "between", authority=AUTHORITY), name="outer")
    assert findings_of(outer, None, inner, between) == [
        (f"spec.steps[0].plan.steps[0].plan.steps[0].authority.{member}", reasons.AUTHORITY_EXCEEDED)
    ]
    within = template(step("x", authority=AUTHORITY), name="inner")
    assert len(plan_of(outer, None, within, between).tasks) == 2


def test_a_time_that_cannot_be_written():
    """A deadline beyond the year 9999 is refused where it is declared, and raises nothing."""
    plan_id = "7ZZZZZZZZZ" + PLAN_ID[10:]
    found = plan_from_template(origin(plan_id), template(step("a"), deadlineSeconds=1), {}, {}, PRINCIPALS)
    assert isinstance(found, list)
    assert [(finding.path, finding.reason) for finding in found] == [("spec.deadlineSeconds", reasons.INVALID_FIELD)]
