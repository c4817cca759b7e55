"""PlanTemplates: what they need before they are served, whose capability it is, and circles of templates."""

import copy
import itertools
import time
from typing import Any

import pytest
from tests.unit.crds.worlds import PLAN_TEMPLATE, START, declared, last_good_of

from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.snapshot import CompiledWorld
from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey

INDEXER = declared("Principal", "indexer", {"type": "worker"})


def template(name: str = "review", *, age: float = 0, **changes: Any) -> DeclaredObject:
    return declared("PlanTemplate", name, {**copy.deepcopy(PLAN_TEMPLATE), **changes}, age=age)


def including(name: str, *others: str) -> DeclaredObject:
    """A template that does something itself and has others in place of steps."""
    steps = [{"id": f"s{index}", "plan": {"templateRef": {"name": other}}} for index, other in enumerate(others)]
    return declared(
        "PlanTemplate",
        name,
        {"capability": name, "escalation": [], "steps": [{"id": "own", "capability": "x", "job": {}}, *steps]},
    )


def world(*objects: DeclaredObject) -> World:
    return World(CompileSettings(), [Namespace("team", "t-team", START)], objects)


def served(result: CompiledWorld) -> set[str]:
    return {row.values["name"] for rows in result.rows.values() for row in rows if row.table == "plan_template"}


def compiled(*objects: DeclaredObject) -> CompiledWorld:
    return compile_world(world(*objects), {})


def reason_of(result: CompiledWorld, name: str, condition: str = "Ready") -> str | None:
    found = result.verdicts[ObjectKey("PlanTemplate", "team", name)].condition(condition)
    return None if found is None else found.reason


def test_a_template_is_served_with_its_digest_and_whole():
    """What DeleGate follows is the spec with its defaults."""
    result = compiled(INDEXER, template())
    [row] = [row for rows in result.rows.values() for row in rows if row.table == "plan_template"]
    assert row.values["body"] == {**row.values["body"], "dispatch": "Now", "capability": "review"}
    assert len(row.values["content_hash"]) == 64
    assert reason_of(result, "review") == reasons.SERVED


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"escalation": [{"on": ["failure"], "to": "nobody"}]}, "spec.escalation[0].to"),
        ({"escalateTo": "nobody"}, "spec.escalateTo"),
        ({"dispatch": "Held", "approver": "nobody"}, "spec.approver"),
    ],
)
def test_who_is_named_must_be_there(changes: dict[str, Any], path: str):
    """And when the Principal comes, the template is served without being touched."""
    there = world(INDEXER, template(**changes))
    result = compile_world(there, {})
    assert served(result) == set()
    condition = result.verdicts[ObjectKey("PlanTemplate", "team", "review")].condition("ResolvedRefs")
    assert condition is not None
    assert (condition.reason, condition.message.split(":")[0]) == (reasons.PRINCIPAL_NOT_FOUND, path)
    affected = there.put(declared("Principal", "nobody", {"type": "principal"}))
    assert served(compile_world(there, {}, affected)) == {"review"}


def test_a_capability_belongs_to_the_oldest_template():
    """The younger one is told, and takes its place when the older one goes."""
    there = world(INDEXER, template("young", age=2), template("old", age=1))
    result = compile_world(there, {})
    assert served(result) == {"old"}
    assert reason_of(result, "young", "Conflicted") == reasons.CAPABILITY_CONFLICT
    affected = there.remove(ObjectKey("PlanTemplate", "team", "old"))
    assert served(compile_world(there, {}, affected)) == {"young"}


def test_a_template_that_is_included_must_be_there():
    """A plan that stands in place of a step is looked up in the same namespace."""
    result = compiled(including("outer", "inner"))
    assert served(result) == set()
    assert reason_of(result, "outer") == reasons.TEMPLATE_NOT_FOUND
    assert served(compiled(including("outer", "inner"), including("inner"))) == {"outer", "inner"}


def test_templates_that_come_to_include_each_other_are_not_served():
    """Also when the circle is closed far away from the one that is looked at; and they are again when it opens."""
    there = world(including("a", "b"), including("b", "c"), including("c"))
    assert served(compile_world(there, {})) == {"a", "b", "c"}
    affected = there.put(including("c", "a"))
    result = compile_world(there, {}, affected)
    assert served(result) == set()
    assert {reason_of(result, name) for name in "abc"} == {reasons.TEMPLATE_CYCLE}
    affected = there.put(including("c"))
    assert served(compile_world(there, {}, affected)) == {"a", "b", "c"}


def test_plans_in_plans_end_below_the_fourth_level():
    """Four below the first are served, five are not; the shorter chains within stay served."""
    names = ["l0", "l1", "l2", "l3", "l4", "l5"]
    chain = [including(name, following) for name, following in itertools.pairwise(names)]
    result = compiled(*chain, including("l5"))
    assert served(result) == set(names[1:])
    assert reason_of(result, "l0") == reasons.NESTED_TOO_DEEP


def test_the_longest_way_to_a_template_counts():
    """One that is also reached by a shorter way lies as deep as the longest one says."""
    names = ["l0", "l1", "l2", "l3", "l4", "l5"]
    chain = {name: [following] for name, following in itertools.pairwise(names)} | {"l5": []}
    chain["l1"].append("l4")
    result = compiled(*(including(name, *below) for name, below in chain.items()))
    assert served(result) == set(names[1:])
    assert reason_of(result, "l0") == reasons.NESTED_TOO_DEEP


def test_what_includes_a_template_that_is_not_served_is_not_served_either():
    """DeleGate knows no other templates; whatever keeps the included one away, and when it ends, all come back."""

    def inner(to: str) -> DeclaredObject:
        return template("inner", age=1, capability="inner", escalation=[{"on": ["failure"], "to": to}])

    there = world(INDEXER, including("outer", "middle"), including("middle", "inner"), inner("nobody"))
    result = compile_world(there, {})
    assert served(result) == set()
    assert {reason_of(result, name) for name in ("outer", "middle")} == {reasons.REFERENCE_NOT_VALID}
    affected = there.put(declared("Principal", "nobody", {"type": "principal"}))
    assert served(compile_world(there, {}, affected)) == {"outer", "middle", "inner"}
    affected = there.put(template("older", age=0, capability="inner"))
    assert served(compile_world(there, {}, affected)) == {"older"}
    affected = there.remove(ObjectKey("PlanTemplate", "team", "older"))
    assert served(compile_world(there, {}, affected)) == {"outer", "middle", "inner"}


def test_what_leads_to_a_circle_of_others_is_not_served():
    """It would never end; it is served again once that circle opens."""
    there = world(including("outer", "a"), including("a", "b"), including("b", "a"))
    assert served(compile_world(there, {})) == set()
    affected = there.put(including("b"))
    assert served(compile_world(there, {}, affected)) == {"outer", "a", "b"}


@pytest.mark.parametrize("layers", [5, 6])
def test_templates_that_all_include_each_other_layer_by_layer_cost_little(layers: int):
    """There are 40^5 ways through them, and a namespace may declare as many as it likes: templates count, not ways."""
    names = [[f"t{layer}-{index}" for index in range(40)] for layer in range(layers)]
    below = [*names[1:], []]
    started = time.process_time()
    there = world(*(including(name, *below[layer]) for layer in range(layers) for name in names[layer]))
    assert len(served(compile_world(there, {}))) == 200
    affected = there.put(including(names[-1][0], "nothing"))
    assert served(compile_world(there, {}, affected)) == set()
    assert time.process_time() - started < 8


def test_what_is_wrong_with_the_steps_is_the_objects_own_finding():
    """Validation finds it, so that kubectl says it."""
    broken = template(steps=[{"id": "a", "capability": "x", "job": {}, "dependsOn": ["b"]}], result="a")
    result = compiled(INDEXER, broken)
    assert reason_of(result, "review") == reasons.UNKNOWN_STEP
    assert served(result) == set()


def served_body(good: DeclaredObject, broken: dict[str, Any], *more: DeclaredObject) -> dict[str, Any] | None:
    """What is served of a good template when its next version is broken."""
    present = declared("PlanTemplate", "review", {**broken, "deadlineSeconds": 0}, generation=2)
    result = compile_world(world(INDEXER, present, *more), last_good_of(good))
    rows = [row for rows in result.rows.values() for row in rows if row.table == "plan_template"]
    return rows[0].values["body"] if rows else None


def test_a_broken_version_does_not_replace_the_last_good_one():
    """What is served stays as it was, to the byte."""
    good = template()
    before = [row for rows in compiled(INDEXER, good).rows.values() for row in rows if row.table == "plan_template"]
    assert served_body(good, copy.deepcopy(good.spec)) == before[0].values["body"]


@pytest.mark.parametrize(
    ("good", "broken", "granted"),
    [
        ({"invokeCognigate": True, "spawn": {"max": 4}}, {"spawn": {"max": 2}}, {"spawn": {"max": 2}}),
        ({"invokeCognigate": True}, {"invokeCognigate": False}, {"invokeCognigate": False}),
        ({"spawn": {"max": 2}}, {"spawn": {"max": 4}}, {"spawn": {"max": 2}}),
        (
            {"sinks": ["depotgate/output", "depotgate/supporting"]},
            {"sinks": ["depotgate/output"]},
            {"sinks": ["depotgate/output"]},
        ),
        ({"cognition": {"models": ["default"], "calls": 5, "tokens": 9}}, {"cognition": {"calls": 3}}, {"cognition": {"calls": 3}}),
        ({"invokeCognigate": True}, None, None),
        ({"spawn": {"max": 2}}, {"spawn": {"max": "two"}}, {"spawn": {"max": 2}}),
    ],
)  # fmt: skip
def test_what_a_broken_version_no_longer_grants_goes_at_once(good: Any, broken: Any, granted: Any):
    """Absent is denied, and what cannot be read takes nothing away."""
    step: dict[str, Any] = {"id": "own", "capability": "x", "job": {}, "escalation": []}
    before = declared("PlanTemplate", "review", {"capability": "review", "steps": [{**step, "authority": good}]})
    body = served_body(before, {"capability": "review", "steps": [{**step, "authority": broken}]})
    assert body is not None
    assert body["steps"][0].get("authority") == granted


def test_a_broken_version_that_holds_plans_holds_them():
    """For the approver that it names, if there is one; without one nothing is served, rather than plans at once."""
    approver = declared("Principal", "chief", {"type": "principal"})
    held = {**copy.deepcopy(PLAN_TEMPLATE), "dispatch": "Held", "approver": "chief"}
    body = served_body(template(), held, approver)
    assert body is not None
    assert (body["dispatch"], body["approver"]) == ("Held", "chief")
    assert served_body(template(), held) is None
    assert served_body(template(), {**held, "approver": None}, approver) is None


def test_a_template_that_is_held_is_included_only_under_its_approver():
    """There is one approval, of the whole: else whoever includes it would have it unapproved, at any depth."""
    held = declared(
        "PlanTemplate",
        "pay",
        {
            "capability": "pay",
            "dispatch": "Held",
            "approver": "indexer",
            "escalation": [],
            "steps": [{"id": "own", "capability": "x", "job": {}}],
        },
    )
    there = world(INDEXER, held, including("a", "pay"), including("b", "a"))
    result = compile_world(there, {})
    assert served(result) == {"pay"}
    assert reason_of(result, "a") == reasons.APPROVER_MISSING
    assert reason_of(result, "b") == reasons.REFERENCE_NOT_VALID
    same = including("a", "pay")
    affected = there.put(declared("PlanTemplate", "a", {**same.spec, "dispatch": "Held", "approver": "indexer"}))
    result = compile_world(there, {}, affected)
    assert served(result) == {"a"}
    assert reason_of(result, "b") == reasons.APPROVER_MISSING
