"""The rules are looked at in one order (IG-02): of a request that breaks several, the first is the reason."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    CHILD,
    NOW,
    envelope_from,
    lease,
    merged,
    observed_child,
    parent,
    ruleset_of,
)

from interrogate.decide import decide, explain
from interrogate.decision import Decision, ReasonCode, RuleResult
from interrogate.observation import Requester
from interrogate.ruleset import Ruleset


@dataclass
class Scenario:
    """A request that passes: a worker adds to the task that is leased to it."""

    envelope: dict[str, Any] = field(default_factory=lambda: merged(CHILD, {}))
    requester: Requester = field(default_factory=lambda: Requester("team-w", "worker", lease_id="lease-1"))
    policy: dict[str, Any] = field(default_factory=dict)
    observed: dict[str, Any] = field(default_factory=lambda: {"lease": lease()})
    has_policy: bool = True

    def arguments(self) -> tuple[Any, Requester, Ruleset | None, Any]:
        ruleset = ruleset_of(self.policy) if self.has_policy else None
        return envelope_from(self.envelope), self.requester, ruleset, observed_child(**self.observed)

    def decide(self) -> Decision:
        return decide(*self.arguments())

    def explain(self) -> list[RuleResult]:
        return explain(*self.arguments())

    def send(self, changes: Mapping[str, Any]) -> None:
        self.envelope = merged(self.envelope, changes)

    def declare(self, changes: Mapping[str, Any]) -> None:
        self.policy = merged(self.policy, changes)

    def ask_as(self, **changes: Any) -> None:
        self.requester = replace(self.requester, **changes)

    def observe(self, **changes: Any) -> None:
        self.observed |= changes

    def observe_parent(self, **changes: Any) -> None:
        observed = self.observed.get("parent", parent())
        self.observed["parent"] = observed and replace(observed, **changes)

    def lose_lease(self) -> None:
        """The caller has custody as well, so that nothing but the lease is missing."""
        self.observe_parent(custodian="team-w")
        self.observe(lease=None)


BREAKS: dict[ReasonCode, list[Callable[[Scenario], None]]] = {
    ReasonCode.MISSING_FIELD: [
        lambda it: it.send({"payload": ABSENT}),
        lambda it: it.send({"causality": {"root_task_id": ABSENT}}),
    ],
    ReasonCode.POLICY_NOT_FOUND: [lambda it: setattr(it, "has_policy", False)],
    ReasonCode.SURFACE_NOT_FOUND: [lambda it: it.send({"surface_id": "none"})],
    ReasonCode.CAUSALITY_MISMATCH: [
        lambda it: it.send({"causality": {"spawn_depth": 99}}),
        lambda it: it.observe(task_admitted=True),
        lambda it: it.observe(cause_task_id=None),
        lambda it: it.observe(parent=None),
    ],
    ReasonCode.UNAUTHORIZED: [
        lambda it: it.ask_as(is_tenants=False),
        lambda it: it.ask_as(type="observer"),
        lambda it: it.ask_as(principal_key="stranger"),
    ],
    ReasonCode.RATE_LIMITED: [lambda it: it.observe(rate_tats=(NOW + 10**9,))],
    ReasonCode.BUDGET_EXHAUSTED: [
        lambda it: it.observe_parent(budget=0),
        lambda it: it.send({"causality": {"recursion_budget_remaining": -1}}),
    ],
    ReasonCode.DEPTH_EXCEEDED: [lambda it: it.declare({"limits": {"maxSpawnDepth": 2}})],
    ReasonCode.DESCENDANTS_EXCEEDED: [lambda it: it.declare({"limits": {"maxTotalDescendants": 5}})],
    ReasonCode.REPEATS_EXCEEDED: [lambda it: it.declare({"limits": {"maxRepeatsPerCapability": 2}})],
    ReasonCode.ANCESTOR_WINDOW: [
        lambda it: (
            it.declare({"limits": {"ancestorWindow": {"size": 64, "maxRepeats": 0}}})
            or it.observe_parent(recent=(it.envelope["causality"]["capability_id"],) * 64)
        )
    ],
    ReasonCode.CAPABILITY_DENIED: [
        lambda it: it.send({"causality": {"capability_id": "doc.delete"}}) or _repeat(it),
        lambda it: it.send({"causality": {"capability_id": "other"}}) or _repeat(it),
    ],
    ReasonCode.LEASE_LOST: [Scenario.lose_lease],
    ReasonCode.LEASE_AUTHORITY: [
        lambda it: it.send({"target": "unlisted"}),
        lambda it: it.declare({"invariants": {"canSpawn": False}}),
    ],
    ReasonCode.INVARIANT_VIOLATION: [
        lambda it: it.send({"artifact_bytes": 1001}),
        lambda it: it.declare({"invariants": {"rules": [{"name": "never", "cel": "payload.text == 'x'"}]}}),
    ],
}
"""Reason → ways to break its rule and no other."""


def _repeat(scenario: Scenario) -> None:
    """A window that was broken for one capability stays broken for another."""
    before = scenario.observed.get("parent", parent())
    if before is not None and len(before.recent) == 64:
        scenario.observe_parent(recent=(scenario.envelope["causality"]["capability_id"],) * 64)


SINGLE = [(reason, way) for reason, ways in BREAKS.items() for way in range(len(ways))]
PAIRS = [
    (first, second)
    for first, second in itertools.combinations(SINGLE, 2)
    if first[0] is not second[0] and not {first[0], second[0]} >= {"POLICY_NOT_FOUND", "SURFACE_NOT_FOUND"}
]


def test_the_scenario_passes() -> None:
    assert Scenario().decide().outcome == "ALLOW"
    assert {result.passed for result in Scenario().explain()} == {True}
    assert set(BREAKS) == set(ReasonCode)


@pytest.mark.invariant("INV-104", "INV-110")
@pytest.mark.parametrize(("reason", "way"), SINGLE)
def test_each_rule_is_broken_alone(reason: ReasonCode, way: int) -> None:
    scenario = Scenario()
    BREAKS[reason][way](scenario)
    decision = scenario.decide()
    assert (decision.outcome, decision.reason_code) == ("DENY", reason)
    assert 0 < len(decision.detail or "") <= 256
    failed = [result for result in scenario.explain() if result.passed is False]
    assert [(result.rule, result.reason_code) for result in failed] == [(decision.rule, reason)]


@pytest.mark.invariant("INV-104")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_broken_rules_the_earlier_is_the_reason(
    first: tuple[ReasonCode, int], second: tuple[ReasonCode, int], turned: bool
) -> None:
    scenario = Scenario()
    for reason, way in (second, first) if turned else (first, second):
        BREAKS[reason][way](scenario)
    decision = scenario.decide()
    assert decision.reason_code == first[0]
    results = scenario.explain()
    failed = [result for result in results if result.passed is False]
    assert (failed[0].rule, failed[0].reason_code) == (decision.rule, first[0])
    # Whatever the second was, it is named as well, or cannot be judged any more.
    number = next(result.rule for result in _explained_alone(second) if result.passed is False)
    [other] = [result for result in results if result.rule == number]
    assert other.passed is not True


def _explained_alone(broken: tuple[ReasonCode, int]) -> list[RuleResult]:
    scenario = Scenario()
    BREAKS[broken[0]][broken[1]](scenario)
    return scenario.explain()


@pytest.mark.invariant("INV-105")
def test_the_same_request_gives_the_same_decision() -> None:
    for reason, way in SINGLE:
        scenario = Scenario()
        BREAKS[reason][way](scenario)
        arguments = scenario.arguments()
        first = decide(*arguments)
        assert all(decide(*arguments) == first for _ in range(100))
        assert scenario.decide() == first


def test_explain_shows_limits_and_what_was_compared() -> None:
    scenario = Scenario()
    scenario.declare({"limits": {"maxTotalDescendants": 5}})
    shown = {result.rule: (result.passed, result.limit, result.observed) for result in scenario.explain()}
    assert shown[5] == (True, None, [0])
    assert shown[6] == (True, 1, 10)
    assert shown[7] == (True, 5, 3)
    assert shown[8] == (False, 5, 5)
    assert shown[9] == (True, 20, 2)
    assert shown[10] == (True, 1, 0)
    assert shown[13] == (True, 1000, {"artifact_bytes": None, "rules": {}})


def test_explain_keeps_the_numbers_of_a_tree_from_strangers() -> None:
    """Whoever was not shown to stand in a tree learns nothing of its size."""
    for requester, seen in (
        (Requester("team-x", "principal"), {}),
        (Requester("team-x", "worker", lease_id="made-up"), {}),
    ):
        scenario = Scenario(requester=requester, observed=dict(seen))
        numbers = {result.rule: (result.passed, result.limit, result.observed) for result in scenario.explain()}
        assert {numbers[rule] for rule in range(6, 11)} == {(None, None, None)}


def test_without_a_surface_nothing_of_it_is_judged() -> None:
    scenario = Scenario(has_policy=False)
    assert [result.passed for result in scenario.explain()] == [True, False] + [None] * 11
