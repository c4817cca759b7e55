"""Random drafts, and a judge of them that shares no code with what it judges."""

import random
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any

from tests.unit.crds.plans.templates import step, template

PRINCIPALS = ("approver", "principal")
INNER = template(step("first"), step("second", "first"), name="inner", escalation=[])
"""The one template that drafts may name."""
CAPABILITIES = ("draft.one", "draft.two")
_IDS = tuple(f"s{number}" for number in range(8))


def random_draft(chance: random.Random) -> dict[str, Any]:
    """Sound in about half of the cases; otherwise with one or several of the mistakes that people and models make."""
    careless = chance.choice([0.0, 0.0, 0.02, 0.05])
    count = chance.randint(1, len(_IDS))
    ids = list(_IDS[:count])
    draft: dict[str, Any] = {
        "steps": [_step(chance, careless, ids, position) for position in range(count)],
    }
    if chance.random() > careless:
        draft["escalation"] = _rules(chance, careless)
    if chance.random() < 0.3:
        draft["result"] = chance.choice(ids) if chance.random() > careless else "s9"
    if chance.random() < careless:
        draft["dispatch"] = "Held"
    if chance.random() < careless:
        draft["escalateTo"] = "ghost"
    if chance.random() < careless:
        draft[chance.choice(["capability", "parameters", "priority"])] = {}
    chance.shuffle(draft["steps"])
    return draft


def is_sound(draft: dict[str, Any]) -> bool:
    """Whether it has to be a plan, read from the contract."""
    return next(_mistakes(draft), None) is None


def _mistakes(draft: dict[str, Any]) -> Iterator[str]:
    if set(draft) - {"steps", "escalation", "result", "dispatch", "approver", "escalateTo"}:
        yield "member"
    if (draft.get("dispatch") == "Held") != ("approver" in draft):
        yield "approver"
    if draft.get("escalateTo", "principal") not in PRINCIPALS:
        yield "escalateTo"
    steps = {each["id"]: each for each in draft["steps"]}
    if len(steps) != len(draft["steps"]) or "close" in steps:
        yield "ids"
    graph = {name: _needed(each) for name, each in steps.items()}
    if any(need not in steps for needs in graph.values() for need in needs):
        yield "unknown"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        yield "circle"
    result = draft.get("result")
    if result is not None and "capability" not in steps.get(result, {}):
        yield "result"
    for rules in (each.get("escalation", ()) for each in (draft, *steps.values())):
        causes = [cause for rule in rules for cause in rule["on"]]
        if len(set(causes)) != len(causes) or any(rule["to"] not in PRINCIPALS for rule in rules):
            yield "rules"
    for each in steps.values():
        yield from _step_mistakes(draft, each)


def _step_mistakes(draft: dict[str, Any], each: dict[str, Any]) -> Iterator[str]:
    if ("plan" in each) == ("capability" in each):
        yield "kind"
    if each.get("plan", {"templateRef": {"name": "inner"}})["templateRef"]["name"] != "inner":
        yield "template"
    if "plan" not in each and "escalation" not in each and "escalation" not in draft:
        yield "no rules"
    if any(
        sink not in {"depotgate/output", "depotgate/supporting"} for sink in each.get("authority", {}).get("sinks", ())
    ):
        yield "sink"
    if any("${" in str(given.get("value")) for given in each.get("job", {}).get("inputs", ())):
        yield "parameter"


def _needed(each: dict[str, Any]) -> set[str]:
    inputs = each.get("job", {}).get("inputs", ())
    return {*each.get("dependsOn", ()), *(given["step"] for given in inputs if "step" in given)}


def _step(chance: random.Random, careless: float, ids: list[str], position: int) -> dict[str, Any]:
    def mistaken() -> bool:
        return chance.random() < careless

    earlier = ids[:position]
    needs = chance.sample(earlier, chance.randint(0, min(3, len(earlier))))
    if mistaken():
        needs = [chance.choice([*ids, "s9"])]
    each: dict[str, Any] = {"id": chance.choice([*ids, "close"]) if mistaken() else ids[position]}
    if needs:
        each["dependsOn"] = needs
    if chance.random() < 0.15:
        return each | {"plan": {"templateRef": {"name": "ghost" if mistaken() else "inner"}}}
    inputs: list[dict[str, Any]] = []
    if earlier and chance.random() < 0.4:
        inputs.append({"name": "parts", "step": chance.choice(earlier)})
    if chance.random() < 0.3:
        inputs.append(
            {"name": "given", "value": "${item}" if mistaken() else chance.choice([0, "text", ["a"], {"a": 1}])}
        )
    each |= {"capability": chance.choice(CAPABILITIES), "job": {"inputs": inputs} if inputs else {}}
    if chance.random() < 0.3:
        each["escalation"] = _rules(chance, careless)
    if chance.random() < 0.3:
        each["authority"] = {
            "writeBeyondReceipts": True,
            "sinks": ["depotgate/plan" if mistaken() else "depotgate/output"],
        }
    if mistaken():
        each["plan"] = {"templateRef": {"name": "inner"}}
    return each


def _rules(chance: random.Random, careless: float) -> list[dict[str, Any]]:
    causes = ["failure", "limit", "dependency"]
    chance.shuffle(causes)
    rules = [{"on": [cause], "to": chance.choice(PRINCIPALS)} for cause in causes[: chance.randint(0, 3)]]
    if rules and chance.random() < careless:
        rules.append({"on": rules[0]["on"], "to": "ghost"})
    return rules
