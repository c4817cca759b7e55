"""Under a lease, authority is the lease's within the profile's; what it does not grant is denied (IG-05)."""

from typing import Any

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    CHILD,
    ROOT,
    decide_child,
    decide_root,
    envelope_from,
    lease,
    observed_child,
    observed_root,
    parent,
    ruleset_of,
    tool_call,
)

from interrogate.decide import decide
from interrogate.decision import Decision
from interrogate.observation import Requester

pytestmark = pytest.mark.invariant("INV-103")

WORKER = Requester("team-w", "worker", lease_id="lease-1")
REQUIRED = {"invariants": {"leaseAuthority": "Required"}}


def under_lease(authority: Any, envelope: Any = None, **leased: Any) -> Decision:
    return decide(
        envelope or envelope_from(CHILD),
        WORKER,
        ruleset_of(),
        observed_child(lease=lease(authority=authority, **leased)),
    )


@pytest.mark.parametrize("spawned", [0, 1, 4])
def test_a_granted_spawn_passes_and_is_counted(spawned: int) -> None:
    decision = under_lease({"spawn": {"max": 5}, "maxDepth": 3}, spawned=spawned)
    assert (decision.outcome, decision.spawns_under_lease) == ("ALLOW", True)


@pytest.mark.parametrize(
    ("authority", "spawned"),
    [
        ({"spawn": {"max": 5}, "maxDepth": 3}, 5),
        ({"spawn": {"max": 5}, "maxDepth": 3}, 6),
        ({"spawn": {"max": 0}, "maxDepth": 3}, 0),
        ({"spawn": {}, "maxDepth": 3}, 0),
        ({"maxDepth": 3}, 0),
        ({"spawn": {"max": 5}}, 0),
        ({"spawn": {"max": 5}, "maxDepth": 2}, 0),
        ({"spawn": {"max": 5}, "maxDepth": 0}, 0),
        ({}, 0),
        # of a shape that nothing grants
        ({"spawn": 5, "maxDepth": 3}, 0),
        ({"spawn": {"max": True}, "maxDepth": 3}, 0),
        ({"spawn": {"max": "5"}, "maxDepth": 3}, 0),
        ({"spawn": {"max": 5}, "maxDepth": "3"}, 0),
    ],
    ids=str,
)
def test_what_is_not_granted_or_exceeded_is_denied(authority: dict[str, Any], spawned: int) -> None:
    decision = under_lease(authority, spawned=spawned)
    assert (decision.reason_code, decision.spawns_under_lease) == ("LEASE_AUTHORITY", False)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["mail/send"], "ALLOW"),
        (["mail/*"], "ALLOW"),
        (["*"], "ALLOW"),
        (["docs/*", "mail/send"], "ALLOW"),
        (["mail/read"], "DENY"),
        ([], "DENY"),
        (ABSENT, "DENY"),
        ("mail/*", "DENY"),
    ],
)
def test_a_tool_must_be_granted(patterns: Any, expected: str) -> None:
    authority = {} if patterns is ABSENT else {"exposeTools": patterns}
    decision = under_lease(authority, tool_call(CHILD))
    assert (decision.outcome, decision.spawns_under_lease) == (expected, False)
    if expected == "DENY":
        assert decision.reason_code == "LEASE_AUTHORITY"


def test_the_profile_limits_what_a_lease_grants() -> None:
    authority = {"spawn": {"max": 200}, "maxDepth": 1024, "exposeTools": ["*"]}
    observed = observed_child(lease=lease(authority=authority), parent=parent(depth=5))
    deep = envelope_from(CHILD, {"causality": {"spawn_depth": None}})
    assert decide(deep, WORKER, ruleset_of(), observed).reason_code == "DEPTH_EXCEEDED"
    nothing = ruleset_of({"invariants": {"canSpawn": False}})
    assert decide(envelope_from(CHILD), WORKER, nothing, observed_child(lease=lease())).reason_code == "LEASE_AUTHORITY"


def test_the_parent_is_the_task_of_the_lease() -> None:
    """Also where the caller has custody of another parent."""
    elsewhere = lease(task_id="task-9")
    decision = decide_child(requester=WORKER, lease=elsewhere, parent=parent(custodian="team-w"))
    assert decision.reason_code == "LEASE_AUTHORITY"
    tenants = ruleset_of(surface={"parentage": "Tenant"})
    assert decide_child(requester=WORKER, lease=elsewhere, ruleset=tenants).reason_code == "LEASE_AUTHORITY"


def test_a_lease_and_a_query_need_nothing_of_a_lease() -> None:
    for kind in ("lease", "query"):
        assert under_lease({}, envelope_from(CHILD, {"payload_kind": kind})).outcome == "ALLOW"


@pytest.mark.parametrize("lease_id", ["lease-9", "", "not an id at all", "ü" * 300])
@pytest.mark.parametrize("kind", ["plan_request", "lease", "query"])
@pytest.mark.parametrize("custodian", ["team-w", "svc:asyncgate"])
def test_a_lease_that_is_not_live_is_lost(lease_id: str, kind: str, custodian: str) -> None:
    """Another's, ended, revoked, or none: the answer is one, and whatever else the caller may do does not help."""
    worker = Requester("team-w", "worker", lease_id=lease_id)
    changes = {"payload_kind": kind}
    decision = decide_child(changes, requester=worker, parent=parent(custodian=custodian))
    assert (decision.reason_code, decision.rule) == ("LEASE_LOST", 12)
    # Only who has custody without the lease has a verified parent.
    assert decision.parent_task_id == ("parent-1" if custodian == "team-w" else None)
    assert decide_child(changes, requester=Requester("alice", "principal", lease_id="x")).reason_code == "LEASE_LOST"


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("worker", "LEASE_AUTHORITY"),
        ("service", "LEASE_AUTHORITY"),
        ("component", "LEASE_AUTHORITY"),
        ("principal", None),
        ("delegate", None),
        ("admin", None),
        ("observer", "UNAUTHORIZED"),
    ],
)
@pytest.mark.parametrize("kind", ["plan_request", "lease", "query"])
def test_where_leases_are_required(type_: str, expected: str | None, kind: str) -> None:
    """`principal` and `delegate` mint by their type (INV-122); a query may be asked by anybody."""
    requester = Requester("team-w", type_)
    observed = {"parent": parent(custodian="team-w")}
    if kind == "query" and expected == "LEASE_AUTHORITY":
        expected = None
    decision = decide_child({"payload_kind": kind}, requester=requester, ruleset=ruleset_of(REQUIRED), **observed)
    assert decision.reason_code == expected
    if type_ != "observer":
        assert decide_child({"payload_kind": kind}, requester=requester, **observed).outcome == "ALLOW"


def test_where_leases_are_required_a_live_one_is_enough() -> None:
    for type_ in ("worker", "service", "component"):
        requester = Requester("team-w", type_, lease_id="lease-1")
        assert decide_child(requester=requester, ruleset=ruleset_of(REQUIRED), lease=lease()).outcome == "ALLOW"


def test_a_tool_call_without_a_lease_where_leases_are_required() -> None:
    ruleset = ruleset_of(REQUIRED)
    call = tool_call(ROOT, {"causality": {name: ABSENT for name in ROOT["causality"] if name != "capability_id"}})
    worker = Requester("team-w", "worker")
    assert decide(call, worker, ruleset, observed_root()).reason_code == "LEASE_AUTHORITY"
    assert decide(call, Requester("team-w", "delegate"), ruleset, observed_root()).outcome == "ALLOW"


def test_who_begins_a_tree_under_a_lease_needs_a_depth() -> None:
    ruleset = ruleset_of(surface={"mayBegin": ["team-*"]})
    for authority, expected in (({"spawn": {"max": 1}, "maxDepth": 0}, "ALLOW"), ({"spawn": {"max": 1}}, "DENY")):
        decision = decide_root(requester=WORKER, ruleset=ruleset, lease=lease(authority=authority))
        assert decision.outcome == expected
