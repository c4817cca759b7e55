"""What each rule lets pass and what it denies: at its limit, one below and one above (IG-02, D-23)."""

from typing import Any

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    ALICE,
    CHILD,
    ROOT,
    decide_child,
    decide_root,
    envelope_from,
    observed_child,
    observed_root,
    parent,
    ruleset_of,
    tool_call,
)

from interrogate.decide import RULES, decide
from interrogate.decision import ReasonCode
from interrogate.observation import Requester


def reason(decision: Any) -> str | None:
    return decision.reason_code.value if decision.reason_code is not None else None


@pytest.mark.invariant("INV-096")
def test_a_root_and_a_child_pass() -> None:
    root = decide_root()
    assert (root.outcome, root.reason_code, root.detail, root.rule) == ("ALLOW", None, None, None)
    assert (root.root_task_id, root.parent_task_id, root.task_id, root.depth) == ("root-1", None, "root-1", 0)
    assert (root.budget, root.budget_remaining) == (32, 31)
    assert root.recent == ("doc.read",)
    assert root.targets == ("delegate", "docs")
    child = decide_child()
    assert child.outcome == "ALLOW"
    assert (child.root_task_id, child.parent_task_id, child.task_id, child.depth) == ("root-1", "parent-1", None, 3)
    assert (child.budget, child.budget_remaining) == (10, 9)
    assert child.recent == ("doc.read", "mail.send", "doc.plan", "doc.plan")
    assert decide_child({"causality": {"task_id": "mine"}, "target": "docs"}).task_id == "mine"
    assert decide_child({"target": "docs"}).targets == ("docs",)


@pytest.mark.invariant("INV-098", "INV-099")
@pytest.mark.parametrize(
    "changes",
    [
        {"payload_kind": ABSENT},
        {"payload": ABSENT},
        {"causality": ABSENT},
        {"causality": {"root_task_id": ABSENT}},
        {"causality": {"parent_task_id": ABSENT}},
        {"causality": {"caused_by_receipt_id": ABSENT}},
        {"causality": {"spawn_depth": ABSENT}},
        {"causality": {"capability_id": ABSENT}},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["plan_request", "work_order", "a kind nobody knows", ABSENT])
def test_a_request_that_can_cause_work_says_everything_about_its_lineage(kind: Any, changes: dict[str, Any]) -> None:
    for decision in (decide_root({"payload_kind": kind} | changes), decide_child({"payload_kind": kind} | changes)):
        assert reason(decision) == "MISSING_FIELD"
        [name] = changes["causality"] if isinstance(changes.get("causality"), dict) else changes
        if name != "causality" and kind is not ABSENT:
            assert name in (decision.detail or "")


@pytest.mark.parametrize("kind", ["lease", "query"])
def test_a_lease_and_a_query_need_no_lineage(kind: str) -> None:
    decision = decide_root({"payload_kind": kind, "causality": ABSENT})
    assert decision.outcome == "ALLOW"
    assert (decision.task_id, decision.root_task_id, decision.depth, decision.budget) == (None, None, None, None)
    # What is given is compared all the same.
    assert reason(decide_child({"payload_kind": kind, "causality": {"spawn_depth": 2}})) == "CAUSALITY_MISMATCH"
    assert reason(decide_child({"payload_kind": kind, "causality": {"root_task_id": "x"}})) == "CAUSALITY_MISMATCH"
    alone = {"payload_kind": kind, "causality": {"parent_task_id": ABSENT, "caused_by_receipt_id": ABSENT}}
    assert reason(decide_child(alone)) == "CAUSALITY_MISMATCH"
    assert decide_root({"payload_kind": kind, "causality": {"capability_id": "doc.read"}} | {}).outcome == "ALLOW"


@pytest.mark.invariant("INV-102")
@pytest.mark.parametrize(
    ("profile", "inherited", "claimed", "expected", "remaining"),
    [
        (None, None, ABSENT, None, None),
        (None, None, 5, None, 4),
        (None, None, 0, "BUDGET_EXHAUSTED", None),
        (None, 10, ABSENT, None, 9),
        (None, 10, 10, None, 9),
        (None, 10, 11, "CAUSALITY_MISMATCH", None),
        (None, 10, 4, None, 3),
        (None, 1, ABSENT, None, 0),
        (None, 0, ABSENT, "BUDGET_EXHAUSTED", None),
        (None, 10, 0, "BUDGET_EXHAUSTED", None),
        (None, 10, -1, "BUDGET_EXHAUSTED", None),
        (None, -1, -1, "BUDGET_EXHAUSTED", None),
        ("required", None, ABSENT, "MISSING_FIELD", None),
        ("required", None, 5, None, 4),
        ("required", 10, ABSENT, None, 9),
    ],
)
def test_a_budget_is_inherited_and_used_up(
    profile: str | None, inherited: int | None, claimed: Any, expected: str | None, remaining: int | None
) -> None:
    """A claim can only lower it; to leave it out never leaves the meter."""
    decision = decide_child(
        {"causality": {"recursion_budget_remaining": claimed}},
        ruleset=ruleset_of({"budget": {"required": profile is not None}}),
        parent=parent(budget=inherited),
    )
    assert (reason(decision), decision.budget_remaining) == (expected, remaining)


@pytest.mark.invariant("INV-102")
@pytest.mark.parametrize(
    ("initial", "claimed", "expected", "remaining"),
    [
        (32, ABSENT, None, 31),
        (32, 32, None, 31),
        (32, 33, "CAUSALITY_MISMATCH", None),
        (32, 1, None, 0),
        (32, 0, "BUDGET_EXHAUSTED", None),
        (ABSENT, ABSENT, None, None),
        (ABSENT, 1_000, None, 999),
        (ABSENT, -1, "BUDGET_EXHAUSTED", None),
        (0, ABSENT, "BUDGET_EXHAUSTED", None),
    ],
)
def test_a_root_begins_with_what_the_profile_grants(
    initial: Any, claimed: Any, expected: str | None, remaining: int | None
) -> None:
    ruleset = ruleset_of({"budget": {"initial": initial}})
    decision = decide_root({"causality": {"recursion_budget_remaining": claimed}}, ruleset=ruleset)
    assert (reason(decision), decision.budget_remaining) == (expected, remaining)


@pytest.mark.invariant("INV-100")
@pytest.mark.parametrize(("depth", "expected"), [(4, None), (5, None), (6, "DEPTH_EXCEEDED")])
@pytest.mark.parametrize("claimed", [True, False])
def test_depth_is_derived_and_limited(depth: int, expected: str | None, claimed: bool) -> None:
    causality = {"spawn_depth": depth if claimed else None}
    decision = decide_child({"causality": causality}, parent=parent(depth=depth - 1))
    assert reason(decision) == expected
    assert decision.depth == depth


@pytest.mark.invariant("INV-100")
def test_a_profile_of_no_depth_admits_roots_alone() -> None:
    ruleset = ruleset_of({"limits": {"maxSpawnDepth": 0}})
    assert decide_root(ruleset=ruleset).outcome == "ALLOW"
    assert reason(decide_child(ruleset=ruleset)) == "DEPTH_EXCEEDED"


@pytest.mark.invariant("INV-101")
@pytest.mark.parametrize(("count", "expected"), [(98, None), (99, None), (100, "DESCENDANTS_EXCEEDED")])
def test_descendants_are_limited(count: int, expected: str | None) -> None:
    """The count after the admission would exceed the cap."""
    assert reason(decide_child(descendants=count)) == expected
    unlimited = ruleset_of({"limits": {"maxTotalDescendants": ABSENT}})
    assert decide_child(descendants=10**9, ruleset=unlimited).outcome == "ALLOW"


def test_a_root_is_no_descendant() -> None:
    assert decide_root(ruleset=ruleset_of({"limits": {"maxTotalDescendants": 0}})).outcome == "ALLOW"


@pytest.mark.invariant("INV-101")
@pytest.mark.parametrize(("count", "expected"), [(18, None), (19, None), (20, "REPEATS_EXCEEDED")])
def test_repeats_of_a_capability_are_limited(count: int, expected: str | None) -> None:
    assert reason(decide_child(repeats=count)) == expected
    unlimited = ruleset_of({"limits": {"maxRepeatsPerCapability": ABSENT}})
    assert decide_child(repeats=10**9, ruleset=unlimited).outcome == "ALLOW"
    assert reason(decide_root(ruleset=ruleset_of({"limits": {"maxRepeatsPerCapability": 0}}))) == "REPEATS_EXCEEDED"


@pytest.mark.invariant("INV-101")
@pytest.mark.parametrize(
    ("recent", "expected"),
    [
        ((), None),
        (("doc.read",), None),
        (("doc.read", "a", "b", "c", "doc.read"), None),
        (("doc.read", "a", "b", "doc.read"), "ANCESTOR_WINDOW"),
        (("doc.read",) * 64, "ANCESTOR_WINDOW"),
        (("doc.plan",) * 64, None),
    ],
)
def test_a_capability_may_not_return_too_often_on_the_path(recent: tuple[str, ...], expected: str | None) -> None:
    """Four ancestors are looked at, of which one may be of the same capability; the request itself does not count."""
    assert reason(decide_child(parent=parent(recent=recent))) == expected
    unlimited = ruleset_of({"limits": {"ancestorWindow": ABSENT}})
    assert decide_child(parent=parent(recent=("doc.read",) * 64), ruleset=unlimited).outcome == "ALLOW"


def test_a_task_keeps_the_capabilities_of_64_at_most() -> None:
    recent = tuple(f"doc.{number}" for number in range(64))
    assert decide_child(parent=parent(recent=recent)).recent == ("doc.read", *recent[:63])


@pytest.mark.invariant("INV-103")
@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("doc.read", None),
        ("doc.", None),
        ("mail.send", None),
        ("doc", "CAPABILITY_DENIED"),
        ("doc.delete", "CAPABILITY_DENIED"),
        ("mail.send.all", "CAPABILITY_DENIED"),
        ("DOC.read", "CAPABILITY_DENIED"),
        ("*", "CAPABILITY_DENIED"),
    ],
)
def test_capabilities_are_allowed_by_name_or_prefix_and_deny_wins(capability: str, expected: str | None) -> None:
    assert reason(decide_root({"causality": {"capability_id": capability}})) == expected
    nothing = ruleset_of(surface={"capabilities": {"allow": []}})
    assert reason(decide_root({"causality": {"capability_id": capability}}, ruleset=nothing)) == "CAPABILITY_DENIED"


@pytest.mark.invariant("INV-103")
@pytest.mark.parametrize(
    ("target", "expected"),
    [("delegate", None), ("docs", None), ("unlisted", "LEASE_AUTHORITY"), ("doc", "LEASE_AUTHORITY")],
)
def test_a_named_target_is_the_surfaces_and_allowed(target: str, expected: str | None) -> None:
    """`unlisted` is the surface's, but not in `allowedTargets`; `doc` would be allowed, but is not the surface's."""
    decision = decide_root({"target": target})
    assert reason(decision) == expected
    assert decision.targets == (() if expected else (target,))
    anything = ruleset_of({"invariants": {"allowedTargets": ABSENT}})
    assert reason(decide_root({"target": target}, ruleset=anything)) == (expected if target == "doc" else None)
    assert decide_root(ruleset=anything).targets == ("delegate", "docs", "unlisted")


@pytest.mark.invariant("INV-103")
@pytest.mark.parametrize(("size", "expected"), [(None, None), (999, None), (1000, None), (1001, "INVARIANT_VIOLATION")])
def test_a_declared_artifact_is_limited(size: int | None, expected: str | None) -> None:
    changes = {"artifact_bytes": ABSENT if size is None else size}
    assert reason(decide_root(changes)) == expected
    unlimited = ruleset_of({"invariants": {"maxArtifactBytes": ABSENT}})
    assert decide_root(changes, ruleset=unlimited).outcome == "ALLOW"


@pytest.mark.invariant("INV-103")
def test_where_nothing_may_spawn_only_what_causes_no_work_passes() -> None:
    ruleset = ruleset_of({"invariants": {"canSpawn": False}})
    assert reason(decide_root(ruleset=ruleset)) == "LEASE_AUTHORITY"
    assert reason(decide_child(ruleset=ruleset)) == "LEASE_AUTHORITY"
    assert decide_root({"payload_kind": "query", "causality": ABSENT}, ruleset=ruleset).outcome == "ALLOW"


@pytest.mark.parametrize(
    ("principal_key", "expected"),
    [("alice", None), ("team-x", None), ("team-", None), ("bob", "UNAUTHORIZED"), ("alice2", "UNAUTHORIZED")],
)
def test_a_surface_names_its_principals(principal_key: str, expected: str | None) -> None:
    requester = Requester(principal_key, "principal")
    assert reason(decide_root(requester=requester)) == expected
    nobody, anybody = ruleset_of(surface={"principals": []}), ruleset_of(surface={"principals": ["*"]})
    assert reason(decide_root(requester=requester, ruleset=nobody)) == "UNAUTHORIZED"
    assert decide_root(requester=requester, ruleset=anybody).outcome == "ALLOW"


def test_observers_and_other_tenants_are_unauthorized() -> None:
    anyone = ruleset_of(surface={"principals": ["*"], "mayBegin": ["*"]})
    for requester in (Requester("watcher", "observer"), Requester("alice", "principal", is_tenants=False)):
        assert reason(decide_root(requester=requester, ruleset=anyone)) == "UNAUTHORIZED"


def test_a_domain_that_is_not_there() -> None:
    assert reason(decide(envelope_from(ROOT), ALICE, None, observed_root())) == "POLICY_NOT_FOUND"
    assert reason(decide_root({"surface_id": "private"})) == "SURFACE_NOT_FOUND"


def test_a_tool_call_counts_for_repeats_and_for_nothing_else() -> None:
    """It begins nothing: neither depth nor budget nor the number of descendants can stop it."""
    strict = ruleset_of({"limits": {"maxSpawnDepth": 0, "maxTotalDescendants": 0}})
    decision = decide(
        tool_call(CHILD), ALICE, strict, observed_child(parent=parent(budget=0, recent=("doc.read",) * 9))
    )
    assert decision.outcome == "ALLOW"
    assert (decision.task_id, decision.budget_remaining, decision.recent) == (None, 0, ())
    assert reason(decide(tool_call(CHILD), ALICE, strict, observed_child(repeats=20))) == "REPEATS_EXCEEDED"
    unnamed = tool_call(ROOT, {"causality": ABSENT})
    assert reason(decide(unnamed, ALICE, strict, observed_root())) == "CAPABILITY_DENIED"


@pytest.mark.invariant("INV-110")
def test_every_reason_belongs_to_a_rule_in_order() -> None:
    assert [rule.number for rule in RULES] == list(range(1, 14))
    order = list(ReasonCode)
    positions = [order.index(rule.reason_code) for rule in RULES]
    assert positions == sorted(positions)
