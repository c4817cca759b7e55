"""What a request says of its own place is never believed (IG-04): every forgery is a CAUSALITY_MISMATCH."""

from typing import Any

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    CAUSE,
    CHILD,
    decide_child,
    decide_root,
    envelope_from,
    lease,
    observed_child,
    parent,
    ruleset_of,
)

from interrogate.decide import decide
from interrogate.decision import Decision
from interrogate.observation import Requester

pytestmark = pytest.mark.invariant("INV-099", "INV-100")

WORKER = Requester("team-w", "worker")


def is_mismatch(decision: Decision) -> bool:
    """Nothing of the claim is then taken over: neither root nor parent nor depth."""
    unverified = (decision.root_task_id, decision.parent_task_id, decision.task_id, decision.depth, decision.budget)
    return decision.reason_code == "CAUSALITY_MISMATCH" and unverified == (None,) * 5 and decision.rate_tats is None


@pytest.mark.parametrize(
    "claims",
    [
        {"spawn_depth": 2},
        {"spawn_depth": 4},
        {"spawn_depth": 0},
        {"spawn_depth": -1},
        {"recursion_budget_remaining": 11},
        {"recursion_budget_remaining": 2**53 - 1},
        {"root_task_id": "root-2"},
        {"root_task_id": "parent-1"},
        {"parent_task_id": None},
        {"caused_by_receipt_id": None},
    ],
    ids=str,
)
def test_a_claim_that_disagrees(claims: dict[str, Any]) -> None:
    assert is_mismatch(decide_child({"causality": claims}))


@pytest.mark.parametrize(
    "claims",
    [
        {"spawn_depth": 1},
        {"spawn_depth": -1},
        {"recursion_budget_remaining": 33},
        {"task_id": "another"},
        {"caused_by_receipt_id": CAUSE},
        {"parent_task_id": "parent-1"},
    ],
    ids=str,
)
def test_a_root_that_claims_to_be_something_else(claims: dict[str, Any]) -> None:
    assert is_mismatch(decide_root({"causality": claims}))


def test_a_root_may_name_itself() -> None:
    decision = decide_root({"causality": {"task_id": "root-1", "spawn_depth": None}})
    assert (decision.outcome, decision.task_id, decision.depth) == ("ALLOW", "root-1", 0)


@pytest.mark.parametrize(
    "observed",
    [
        # not admitted: unknown, another tenant's, or rejected
        {"parent": None},
        # admitted, of another tree
        {"parent": parent(root_task_id="root-2")},
        # another's, closed, or nobody's: a shallower parent than the real one
        {"parent": parent(custodian="bob")},
        {"parent": parent(custodian="svc:asyncgate")},
        {"parent": parent(open=False)},
        {"parent": parent(custodian=None, open=False)},
        # the receipt of another task, or of no task of this tenant
        {"cause_task_id": "another"},
        {"cause_task_id": "root-1"},
        {"cause_task_id": None},
        # a second admission
        {"task_admitted": True, "task_root_id": "root-1"},
        # first posted to the ledger under another root
        {"task_root_id": "root-2"},
    ],
    ids=str,
)
def test_a_lineage_that_is_another(observed: dict[str, Any]) -> None:
    assert is_mismatch(decide_child({"causality": {"task_id": "mine"}}, **observed))


def test_a_task_that_the_ledger_knows_under_the_same_root_passes() -> None:
    """Its minter opened the obligation first."""
    assert decide_child({"causality": {"task_id": "mine"}}, task_root_id="root-1").outcome == "ALLOW"
    assert decide_root(task_root_id="root-1").outcome == "ALLOW"


@pytest.mark.parametrize("observed", [{"task_admitted": True, "task_root_id": "root-1"}, {"task_root_id": "root-2"}])
def test_a_root_that_was_begun_by_another_request(observed: dict[str, Any]) -> None:
    assert is_mismatch(decide_root(**observed))


@pytest.mark.parametrize("type_", ["worker", "service", "component", "delegate", "admin"])
def test_only_a_principal_begins_a_tree_unless_the_surface_says_so(type_: str) -> None:
    requester = Requester("team-w", type_)
    assert is_mismatch(decide_root(requester=requester))
    for may_begin, expected in ((["team-w"], "ALLOW"), (["team-*"], "ALLOW"), (["team-x"], "DENY"), ([], "DENY")):
        ruleset = ruleset_of(surface={"mayBegin": may_begin})
        assert decide_root(requester=requester, ruleset=ruleset).outcome == expected


def test_the_holder_of_a_live_lease_on_the_parent_may_add_to_it() -> None:
    """The custodian of such a task is `svc:asyncgate`."""
    worker = Requester("team-w", "worker", lease_id="lease-1")
    leased = {"parent": parent(custodian="svc:asyncgate"), "lease": lease()}
    assert decide_child(requester=worker, **leased).outcome == "ALLOW"
    assert is_mismatch(decide_child(requester=worker, parent=leased["parent"], lease=lease(task_id="parent-2")))


def test_a_profile_may_let_the_whole_tenant_add_to_a_task() -> None:
    ruleset = ruleset_of(surface={"parentage": "Tenant"})
    for custodian in ("bob", None):
        tasks = parent(custodian=custodian, open=custodian is not None)
        assert decide_child(ruleset=ruleset, parent=tasks).outcome == "ALLOW"
        assert is_mismatch(decide_child(parent=tasks))
    # What is derived stays derived.
    assert is_mismatch(decide_child({"causality": {"spawn_depth": 1}}, ruleset=ruleset))


def test_the_numbers_of_a_tree_are_not_told_to_a_made_up_lease() -> None:
    stranger = Requester("team-x", "worker", lease_id="made-up")
    envelope = envelope_from(CHILD, {"causality": {"spawn_depth": 1}})
    decision = decide(envelope, stranger, ruleset_of(), observed_child(parent=parent(depth=3, budget=7)))
    assert is_mismatch(decision)
    assert not any(digit in (decision.detail or "") for digit in "347")


@pytest.mark.parametrize("kind", ["lease", "query"])
def test_lineage_that_is_given_without_need_is_compared_all_the_same(kind: str) -> None:
    for claims in ({"spawn_depth": 1}, {"root_task_id": "root-2"}, {"recursion_budget_remaining": 11}):
        assert is_mismatch(decide_child({"payload_kind": kind, "causality": claims}))
    assert is_mismatch(decide_child({"payload_kind": kind}, parent=parent(custodian="bob")))
    assert is_mismatch(decide_root({"payload_kind": kind}, requester=WORKER))
    incomplete = {"parent_task_id": ABSENT, "caused_by_receipt_id": ABSENT, "spawn_depth": ABSENT}
    assert is_mismatch(decide_child({"payload_kind": kind, "causality": incomplete}))


def test_a_depth_that_is_left_to_be_derived() -> None:
    assert decide_child({"causality": {"spawn_depth": None}}).depth == 3
