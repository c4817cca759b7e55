"""What becomes of a template with its parameters: groups, sub-plans in place, inputs, order, the end."""

import json
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.crds.plans.templates import (
    CAUSE_ID,
    DOCUMENTS,
    PLAN_ID,
    PRINCIPALS,
    RULES,
    TENANT,
    draft_of,
    expand_draft,
    findings_of,
    needs,
    origin,
    plan_of,
    step,
    sub_plan,
    template,
)

from metagate_crds import reasons
from metagate_crds.canonical_json import canonical
from metagate_crds.plans.expansion import plan_from_draft, plan_from_template
from metagate_crds.plans.identifiers import ULID, created_at
from metagate_crds.plans.plan import Plan, UnreadablePlan

READ = step(
    "read",
    forEach="documents",
    job={"instruction": "Summarise.", "inputs": [{"name": "document", "pointer": "${item}"}]},
)
MERGE = step("merge", job={"inputs": [{"name": "parts", "step": "read"}]})
REVIEW = template(READ, MERGE, parameters=DOCUMENTS, result="merge")


def test_the_template_of_the_page():
    """A group of reads, a merge of what they gave, and the added end."""
    plan = plan_of(REVIEW, {"documents": ["depot:a", "depot:b"]})
    assert needs(plan) == {"read-0": [], "read-1": [], "merge": ["read-0", "read-1"], "close": ["merge"]}
    assert [task.task_id for task in plan.tasks] == [f"{PLAN_ID}.{name}" for name in needs(plan)]
    first, _, merge, close = plan.tasks
    assert first.job["inputs"] == [{"name": "document", "pointer": "depot:a", "maxBytes": 2**20}]
    assert [(each["name"], each["step"]) for each in merge.job["inputs"]] == [
        ("parts-0", "read-0"),
        ("parts-1", "read-1"),
    ]
    assert (close.capability, close.is_close, close.authority, close.escalation) == ("plan.close", True, {}, ())
    assert plan.result_task_id == f"{PLAN_ID}.merge"
    assert first.escalation_to == ("oncall",)
    assert (plan.depth, plan.is_held, plan.approver) == (0, False, None)


@pytest.mark.invariant("INV-077")
def test_a_plan_says_whose_it_is_and_what_caused_it():
    """Its id is a ULID; tenant, principal, cause and root are those of the request and nobody else's."""
    plan = plan_of(REVIEW, {"documents": ["depot:a"]})
    document = json.loads(plan.body)
    assert ULID.fullmatch(document["plan_id"])
    assert {name: document[name] for name in ("plan_id", "tenant_id", "principal_ai", "caused_by_receipt_id")} == {
        "plan_id": PLAN_ID,
        "tenant_id": TENANT,
        "principal_ai": "alice",
        "caused_by_receipt_id": CAUSE_ID,
    }
    assert (document["root_task_id"], document["parent_task_id"]) == (PLAN_ID, None)
    assert document["planner"] == {
        "kind": "template",
        "name": "review",
        "digest": f"sha256:{REVIEW.digest}",
        "revision": 7,
    }


def test_a_document_has_the_members_that_were_promised():
    """Those of the plan and of each kind of step, in RFC 8785."""
    plan = plan_of(template(sub_plan("all", "inner"), name="outer"), None, template(step("one"), name="inner"))
    assert canonical(json.loads(plan.body)) == plan.body
    document = json.loads(plan.body)
    assert sorted(document) == sorted(
        [
            "schema",
            "plan_id",
            "tenant_id",
            "principal_ai",
            "caused_by_receipt_id",
            "root_task_id",
            "parent_task_id",
            "planner",
            "dispatch",
            "approver",
            "escalate_to",
            "result",
            "deadline_at",
            "plan_digest",
            "steps",
        ]
    )
    inner, close = document["steps"]
    assert sorted(inner) == ["depends_on", "kind", "step_id", "steps"]
    task = inner["steps"][0]
    assert (inner["kind"], task["kind"], close["kind"]) == ("plan", "task", "task")
    assert sorted(task) == sorted(
        ["step_id", "kind", "task_id", "capability", "depends_on", "job", "escalation", "authority"]
    )


def test_order_is_topological_and_then_as_written():
    """Whatever is ready comes in the written order."""
    plan = plan_of(template(step("d", "a"), step("c"), step("b", "c"), step("a", "c")))
    assert list(needs(plan)) == ["c", "b", "a", "d", "close"]
    assert needs(plan)["close"] == ["b", "d"]


def test_whole_values_are_replaced_and_never_words_of_an_instruction():
    """What callers send is data: in pointer, value, settings, and not in the instruction."""
    job = {
        "instruction": "Translate into ${parameters.language}: ${item}",
        "inputs": [
            {"name": "language", "value": "${parameters.language}"},
            {"name": "mixed", "value": {"deep": ["${parameters.language}", 1, "plain"]}},
        ],
        "settings": {"documents": "${parameters.documents}", "item": "${item}"},
    }
    plan = plan_of(
        template(step("read", forEach="documents", job=job), parameters=DOCUMENTS),
        {"documents": [{"a": 1}], "language": "${item}"},
    )
    made = plan.tasks[0].job
    assert made["instruction"] == job["instruction"]
    assert [each["value"] for each in made["inputs"]] == ["${item}", {"deep": ["${item}", 1, "plain"]}]
    assert made["settings"] == {"documents": [{"a": 1}], "item": {"a": 1}}


def test_a_parameter_that_is_not_given_leaves_its_place_out():
    """An optional input is then no input, a member of settings no member."""
    job = {
        "inputs": [{"name": "language", "value": "${parameters.language}"}],
        "settings": {"l": "${parameters.language}"},
    }
    plan = plan_of(template(step("read", job=job), parameters=DOCUMENTS))
    assert plan.tasks[0].job == {"inputs": [], "settings": {}}


def test_an_empty_group_makes_no_task():
    """Who needs it needs nothing of it, and goes on waiting for what the group would have waited for."""
    plan = plan_of(
        template(step("first"), {**READ, "dependsOn": ["first"]}, MERGE, parameters=DOCUMENTS), {"documents": []}
    )
    assert needs(plan) == {"first": [], "merge": ["first"], "close": ["merge"]}
    assert plan.tasks[1].job["inputs"] == []


INNER = template(
    step("fetch"),
    step("parse", "fetch", job={"inputs": [{"name": "text", "step": "fetch"}]}),
    name="inner",
)


def test_a_sub_plan_stands_in_place():
    """Its first steps wait for what the step waits for; its last are what the step stands for."""
    outer = template(step("start"), sub_plan("deep", "inner", "start"), step("end", "deep"), name="outer")
    plan = plan_of(outer, None, INNER)
    assert needs(plan) == {
        "start": [],
        "deep.fetch": ["start"],
        "deep.parse": ["deep.fetch"],
        "end": ["deep.parse"],
        "close": ["end"],
    }
    assert plan.tasks[2].job["inputs"][0]["step"] == "deep.fetch"
    assert plan.depth == 1


def test_sub_plans_for_each_item():
    """As many plans within the plan, each with the item as its parameter."""
    inner = template(
        step("only", job={"inputs": [{"name": "text", "pointer": "${parameters.text}"}]}),
        name="inner",
        parameters={"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
    )
    outer = template(
        sub_plan("part", "inner", parameters={"text": "${item}"}, forEach="documents"),
        step("join", job={"inputs": [{"name": "parts", "step": "part"}]}),
        name="outer",
        parameters=DOCUMENTS,
    )
    plan = plan_of(outer, {"documents": ["depot:a", "depot:b"]}, inner)
    assert needs(plan)["join"] == ["part-0.only", "part-1.only"]
    assert [task.job["inputs"][0]["pointer"] for task in plan.tasks[:2]] == ["depot:a", "depot:b"]
    assert [each["name"] for each in plan.tasks[2].job["inputs"]] == ["parts-0", "parts-1"]


def test_the_result_of_a_sub_plan_is_also_needed():
    """A lease names the receipts of what the task needs and no others, so an input must be among them."""
    inner = template(step("report"), step("archive", "report"), name="inner", result="report")
    outer = template(
        sub_plan("deep", "inner"), step("send", job={"inputs": [{"name": "report", "step": "deep"}]}), name="outer"
    )
    plan = plan_of(outer, None, inner)
    assert plan.tasks[2].job["inputs"][0]["step"] == "deep.report"
    assert needs(plan)["send"] == ["deep.archive", "deep.report"]


def test_rules_come_from_the_step_then_its_template():
    """An empty list permits nobody, whatever stands for all steps."""
    own = [{"on": ["limit", "dependency"], "class": "scope", "to": "reviewer"}]
    plan = plan_of(template(step("a"), step("b", escalation=own), step("c", escalation=[])))
    assert [task.escalation for task in plan.tasks[:3]] == [({**RULES[0], "class": "other"},), tuple(own), ()]


def test_a_held_plan_names_who_approves_it():
    """With whom it goes to in trouble, and its deadline as a moment."""
    plan = plan_of(template(step("a"), dispatch="Held", approver="reviewer", escalateTo="oncall", deadlineSeconds=90))
    assert (plan.is_held, plan.approver) == (True, "reviewer")
    assert plan.document["escalate_to"] == "oncall"
    assert plan.deadline_at == (created_at(PLAN_ID) + timedelta(seconds=90)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_a_draft_makes_the_plan_of_the_same_template():
    """But for who planned: a draft has a digest of its own and no revision."""
    draft = expand_draft(draft_of(step("a"), step("b", "a")))
    assert isinstance(draft, Plan)
    assert draft.document["planner"]["kind"] == "draft"
    assert draft.document["steps"] == plan_of(template(step("a"), step("b", "a"))).document["steps"]


def test_a_kept_plan_is_read_back_whole():
    """Its document decides, whatever has become of the template (DG-06)."""
    plan = plan_of(REVIEW, {"documents": ["depot:a"]})
    assert Plan.read(plan.body) == plan


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"{}", b'{"schema": "legivellum.plan/v2", "steps": []}', b"[" * 100_000]
    + [b'{"schema": "legivellum.plan/v1", "steps": %s}' % steps for steps in (b"1", b"[1]", b'[{"kind": "task"}]')],
)
def test_what_is_no_plan_is_not_read_as_one(body):
    """Nothing but UnreadablePlan is raised for it."""
    with pytest.raises(UnreadablePlan):
        Plan.read(body)


@pytest.mark.invariant("INV-086")
def test_the_same_request_gives_the_same_bytes_and_another_id_the_same_digest():
    """Ids and times are all that two plans of one intent differ in."""
    parameters = {"documents": ["depot:a", "depot:b"]}
    timed = template(READ, MERGE, parameters=DOCUMENTS, deadlineSeconds=3600)
    plan = plan_of(timed, parameters)
    assert plan_of(timed, parameters).body == plan.body
    other = plan_from_template(
        origin("01JZZZZZZZ0000000000000000", tenant_id="other", caused_by_receipt_id=PLAN_ID),
        timed,
        parameters,
        {},
        PRINCIPALS,
    )
    assert isinstance(other, Plan)
    assert other.body != plan.body
    assert other.plan_digest == plan.plan_digest


@pytest.mark.invariant("INV-086")
@pytest.mark.parametrize(
    "other",
    [
        template(READ, MERGE, parameters=DOCUMENTS, deadlineSeconds=60),
        template(READ, MERGE, parameters=DOCUMENTS, deadlineSeconds=3600, dispatch="Held", approver="reviewer"),
        template(READ, MERGE, parameters=DOCUMENTS, deadlineSeconds=3600, escalateTo="oncall"),
        template(READ, {**MERGE, "authority": {"spawn": {"max": 1}}}, parameters=DOCUMENTS, deadlineSeconds=3600),
        template(READ, {**MERGE, "escalation": []}, parameters=DOCUMENTS, deadlineSeconds=3600),
    ],
    ids=["deadline", "approver", "escalateTo", "authority", "escalation"],
)
def test_whoever_approves_a_digest_approves_all_that_will_happen(other):
    """Another deadline, approver, authority, target of escalation: another digest."""
    parameters = {"documents": ["depot:a"]}
    plan = plan_of(template(READ, MERGE, parameters=DOCUMENTS, deadlineSeconds=3600), parameters)
    assert plan_of(other, parameters).plan_digest != plan.plan_digest


@pytest.mark.parametrize(
    ("changes", "is_plan"),
    [
        ({}, False),
        ({"dispatch": "Held", "approver": "oncall"}, False),
        ({"dispatch": "Held", "approver": "reviewer"}, True),
    ],
)
def test_a_template_that_is_held_is_not_had_without_its_approver(changes: dict[str, Any], is_plan: bool):
    """There is one approval, of the whole (DG-12): who includes a held template must have it approved by the same one."""
    held = template(step("pay"), name="pay", dispatch="Held", approver="reviewer")
    outer = template(step("own"), sub_plan("more", "pay", "own"), **changes)
    if is_plan:
        assert plan_of(outer, None, held).approver == "reviewer"
    else:
        found = [("spec.steps[1].plan.templateRef.name", reasons.APPROVER_MISSING)]
        assert findings_of(outer, None, held) == found
    draft = {"escalation": [], "steps": [sub_plan("more", "pay")], **changes}
    result = plan_from_draft(origin(), draft, {"pay": held}, PRINCIPALS)
    assert isinstance(result, Plan) is is_plan
