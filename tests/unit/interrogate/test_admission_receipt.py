"""The receipt of a decision: what is in it, where it is filed, and that it is enough to decide again (IG-08)."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    ALICE,
    CAUSE,
    CHILD,
    ROOT,
    envelope_from,
    lease,
    merged,
    observed_child,
    observed_root,
    parent,
    ruleset_of,
    tool_call,
)

from interrogate.admission_receipt import admission_receipt, admitted_task, differences, made_admission, read_admission
from interrogate.database import StoredDecision
from interrogate.decide import decide
from interrogate.decision import ReasonCode
from interrogate.envelope import Envelope
from interrogate.observation import Observed, Requester
from interrogate.rendering import NOTHING_FORWARDED, decision_response
from interrogate.ruleset import Ruleset
from legivellum.base.canonical_json import canonical
from legivellum.receipts.receipt import Receipt, examine

TENANT = UUID("11111111-2222-3333-4444-555555555555")
RECEIPT = "01J0000000000000000000000R"


def receipt_of(envelope: Envelope, requester: Requester, observed: Observed, ruleset: Ruleset | None) -> dict[str, Any]:
    decision = decide(envelope, requester, ruleset, observed)
    form = admission_receipt(
        envelope, requester, decision, observed, ruleset, tenant=TENANT, receipt_id=RECEIPT, policy_revision=7
    )
    fields: dict[str, Any] = json.loads(form)
    assert canonical(fields).decode() == form
    assert isinstance(examine(fields, tenant=str(TENANT), emitter="svc:interrogate"), Receipt)
    return fields


@pytest.mark.invariant("INV-109")
def test_an_acceptance_says_everything_that_was_decided() -> None:
    envelope = envelope_from(CHILD, {"target": "docs", "artifact_bytes": 12, "causality": {"task_id": "mine"}})
    fields = receipt_of(envelope, ALICE, observed_child(), ruleset_of())
    body = fields.pop("body")
    assert {name: fields[name] for name in fields if fields[name] not in ("NA", 0, False, {})} == {
        "receipt_id": RECEIPT,
        "kind": "admission",
        "phase": "accepted",
        "emitter": "svc:interrogate",
        "recipient_ai": "svc:interrogate",
        "principal_ai": "alice",
        "for_principal": "alice",
        "tenant_id": str(TENANT),
        "task_id": "mine",
        "obligation_id": "mine",
        "parent_task_id": "parent-1",
        "caused_by_receipt_id": CAUSE,
        "task_type": "plan_request",
    }
    assert body == {
        "v": 1,
        "outcome": "ALLOW",
        "reason_code": None,
        "detail": None,
        "rule": None,
        "surface_id": "public",
        "policy_profile_id": "front-desk",
        "policy_hash": "0" * 64,
        "policy_revision": 7,
        "payload_kind": "plan_request",
        "capability_id": "doc.read",
        "payload_sha256": envelope.payload_sha256,
        "payload_bytes": len('{"text": "read"}'),
        "targets": ["docs"],
        "rules": {},
        "caller": {"principal_key": "alice", "type": "principal"},
        "lease": None,
        "claimed": {
            "causality": CHILD["causality"] | {"task_id": "mine"},
            "artifact_bytes": 12,
            "target": "docs",
            "own_tenant": True,
            "envelope_sha256": envelope.digest.hex(),
        },
        "shadow": None,
        "observed": {
            "at": observed_child().at,
            "descendants": 5,
            "repeats": 2,
            "parent": {
                "root_task_id": "root-1",
                "depth": 2,
                "budget": 10,
                "recent": ["mail.send", "doc.plan", "doc.plan"],
                "admitted_by": parent().admitted_by,
                "custodian": "alice",
                "open": True,
            },
            "cause": "parent-1",
            "task_known": None,
            "rate_tat": [0],
            "spawned": None,
        },
        "derived": {
            "root_task_id": "root-1",
            "depth": 3,
            "budget": 10,
            "budget_remaining": 9,
            "retry_after_ms": None,
        },
    }


REFUSALS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "MISSING_FIELD": ({"payload": ABSENT}, {}),
    "SURFACE_NOT_FOUND": ({"surface_id": "none"}, {}),
    "CAUSALITY_MISMATCH": ({"causality": {"spawn_depth": 1}}, {}),
    "UNAUTHORIZED": ({}, {}),
    "RATE_LIMITED": ({}, {"rate_tats": (observed_child().at + 10**6,)}),
    "BUDGET_EXHAUSTED": ({"causality": {"recursion_budget_remaining": 0}}, {}),
    "DEPTH_EXCEEDED": ({"causality": {"spawn_depth": None}}, {"parent": parent(depth=5)}),
    "DESCENDANTS_EXCEEDED": ({}, {"descendants": 100}),
    "REPEATS_EXCEEDED": ({}, {"repeats": 20}),
    "ANCESTOR_WINDOW": ({}, {"parent": parent(recent=("doc.read",) * 4)}),
    "CAPABILITY_DENIED": ({"causality": {"capability_id": "doc.delete"}}, {}),
    "LEASE_LOST": ({}, {}),
    "LEASE_AUTHORITY": ({"target": "unlisted"}, {}),
    "INVARIANT_VIOLATION": ({"artifact_bytes": 1001}, {}),
}
"""Reason → the change to the envelope and to the observation by which it comes."""


@pytest.mark.invariant("INV-110")
@pytest.mark.parametrize("reason", [reason for reason in ReasonCode if reason != "POLICY_NOT_FOUND"])
def test_a_rejection_has_its_reason_and_never_the_task_that_was_refused(reason: ReasonCode) -> None:
    """It is filed under the verified parent or, where no lineage was verified, under its own id: the ledger would
    settle the root of a refused task by it."""
    changes, seen = REFUSALS[reason]
    requester = Requester("bob", "principal") if reason == "UNAUTHORIZED" else ALICE
    if reason == "LEASE_LOST":
        requester = Requester("alice", "principal", lease_id="lease-9")
    observation = {"parent": parent(custodian=requester.principal_key)} | seen
    if reason == "DEPTH_EXCEEDED":
        observation["parent"] = parent(depth=5)
    envelope = envelope_from(sent_members(changes), {"causality": {"task_id": "refused"}})
    fields = receipt_of(envelope, requester, observed_child(**observation), ruleset_of())
    body = fields["body"]
    assert (fields["phase"], body["outcome"], body["reason_code"]) == ("rejected", "DENY", reason.value)
    assert 0 < len(body["detail"]) <= 256
    is_verified = body["rule"] > 3
    assert fields["task_id"] == ("parent-1" if is_verified else RECEIPT)
    assert fields.get("caused_by_receipt_id") == (CAUSE if is_verified else None)
    assert "parent_task_id" not in fields
    assert (body["derived"]["retry_after_ms"] is not None) is (reason is ReasonCode.RATE_LIMITED)


def sent_members(changes: dict[str, Any]) -> dict[str, Any]:
    members: dict[str, Any] = merged(CHILD, changes)
    return members


@pytest.mark.invariant("INV-110")
def test_a_rejection_without_a_policy() -> None:
    fields = receipt_of(envelope_from(ROOT), ALICE, Observed(at=1), None)
    assert (fields["task_id"], fields["body"]["reason_code"]) == (RECEIPT, "POLICY_NOT_FOUND")
    assert (fields["body"]["policy_hash"], fields["body"]["policy_revision"]) == (None, 7)
    nothing = receipt_of(
        envelope_from(ROOT, {"payload_kind": ABSENT, "causality": ABSENT}), ALICE, Observed(at=1), None
    )
    assert (nothing["task_type"], nothing["body"]["claimed"]["causality"]) == ("unknown", None)


def test_the_task_of_an_acceptance() -> None:
    root = receipt_of(envelope_from(ROOT), ALICE, observed_root(), ruleset_of())
    assert (root["task_id"], root.get("parent_task_id"), root.get("caused_by_receipt_id")) == ("root-1", None, None)
    unnamed = receipt_of(envelope_from(CHILD), ALICE, observed_child(), ruleset_of())
    assert (unnamed["task_id"], unnamed["parent_task_id"]) == (RECEIPT, "parent-1")
    # What begins nothing is filed under the task that it belongs to, and opens none.
    query = receipt_of(envelope_from(CHILD, {"payload_kind": "query"}), ALICE, observed_child(), ruleset_of())
    assert (query["task_id"], query.get("parent_task_id")) == ("parent-1", None)
    free = {"payload_kind": "lease", "causality": ABSENT}
    assert receipt_of(envelope_from(ROOT, free), ALICE, observed_root(), ruleset_of())["task_id"] == RECEIPT


def test_under_a_lease_the_receipt_belongs_to_the_principal_of_the_task() -> None:
    worker = Requester("team-w", "worker", lease_id="lease-1")
    fields = receipt_of(envelope_from(CHILD), worker, observed_child(lease=lease(spawned=2)), ruleset_of())
    assert (fields["principal_ai"], fields["body"]["caller"]["principal_key"]) == ("alice", "team-w")
    assert fields["body"]["lease"] == {
        "lease_id": "lease-1",
        "task_id": "parent-1",
        "number": 1,
        "authority": {"spawn": {"max": 5}, "maxDepth": 5, "exposeTools": ["mail/*"]},
    }
    assert fields["body"]["observed"]["spawned"] == 2


@pytest.mark.parametrize("lease_id", ["lease-9", "\x1b[2J", "x" * 10_000])
def test_a_lost_lease_is_on_record(lease_id: str) -> None:
    requester = Requester("alice", "principal", lease_id=lease_id)
    body = receipt_of(envelope_from(CHILD), requester, observed_child(), ruleset_of())["body"]
    shown = lease_id if lease_id == "lease-9" else ""
    assert body["lease"] == {"lease_id": shown, "task_id": None, "number": None, "authority": None}
    assert body["reason_code"] == "LEASE_LOST"


def test_nothing_of_a_payload_or_of_another_tenant_is_kept() -> None:
    envelope = envelope_from(CHILD, {"payload": {"canary": "c4n4ry"}, "tenant_id": "other-tenant"})
    requester = Requester("alice", "principal", is_tenants=False)
    text = json.dumps(receipt_of(envelope, requester, observed_child(), ruleset_of()))
    assert "c4n4ry" not in text
    assert "other-tenant" not in text


def test_the_largest_receipt_is_one() -> None:
    """Every name as long as it may be: the body of a receipt has its limit, and no decision may meet it."""
    name = "é" * 100
    surface = {"principals": ["*"], "capabilities": {"allow": ["*"]}, "rateLimits": []}
    envelope = envelope_from(
        CHILD,
        {
            "surface_id": "public",
            "payload_kind": name,
            "target": name,
            "artifact_bytes": 2**53 - 1,
            "causality": {"capability_id": name, "task_id": name},
        },
    )
    observation = observed_child(parent=parent(recent=(name,) * 64, depth=1023, budget=2**53 - 1))
    fields = receipt_of(envelope, ALICE, observation, ruleset_of(surface=surface))
    assert fields["body"]["outcome"] == "DENY"


CASES: dict[str, tuple[Envelope, Requester, Observed, Ruleset | None]] = {
    "root": (envelope_from(ROOT), ALICE, observed_root(), ruleset_of()),
    "child": (envelope_from(CHILD, {"causality": {"task_id": "mine"}}), ALICE, observed_child(), ruleset_of()),
    "query": (envelope_from(CHILD, {"payload_kind": "query"}), ALICE, observed_child(), ruleset_of()),
    "free": (envelope_from(ROOT, {"payload_kind": "lease", "causality": ABSENT}), ALICE, observed_root(), ruleset_of()),
    "call": (tool_call(CHILD), ALICE, observed_child(), ruleset_of()),
    "lease": (
        envelope_from(CHILD),
        Requester("team-w", "worker", lease_id="lease-1"),
        observed_child(lease=lease(spawned=2)),
        ruleset_of(),
    ),
    "lost": (envelope_from(CHILD), Requester("team-w", "worker", lease_id="x"), observed_child(), ruleset_of()),
    "foreign": (
        envelope_from(CHILD),
        Requester("alice", "principal", is_tenants=False),
        observed_child(),
        ruleset_of(),
    ),
    "admitted": (envelope_from(ROOT), ALICE, observed_root(task_admitted=True, task_root_id="root-1"), ruleset_of()),
    "elsewhere": (envelope_from(ROOT), ALICE, observed_root(task_root_id="root-2"), ruleset_of()),
    "known": (envelope_from(ROOT), ALICE, observed_root(task_root_id="root-1"), ruleset_of()),
    "nothing": (envelope_from(ROOT, {"payload": ABSENT, "payload_kind": ABSENT}), ALICE, observed_root(), ruleset_of()),
    "policy": (envelope_from(ROOT), ALICE, Observed(at=1), None),
    **{
        reason: (envelope_from(sent_members(changes)), ALICE, observed_child(**seen), ruleset_of())
        for reason, (changes, seen) in REFUSALS.items()
    },
}


@pytest.mark.invariant("INV-105")
@pytest.mark.parametrize("case", CASES)
def test_a_receipt_is_enough_to_decide_again(case: str) -> None:
    """And says afterwards what the decision said: a repeated request is answered from it."""
    envelope, requester, observed, ruleset = CASES[case]
    decision = decide(envelope, requester, ruleset, observed)
    recorded = read_admission(json.dumps(receipt_of(envelope, requester, observed, ruleset)))
    assert differences(recorded.decision, decision) == ()
    assert recorded.decision.recent == decision.recent
    again = decide(
        recorded.envelope, recorded.requester, ruleset, recorded.observed, rule_results=recorded.rule_results
    )
    assert differences(recorded.decision, again) == ()
    assert again.rate_tats == decision.rate_tats
    assert recorded.admitted == admitted_task(envelope, decision, RECEIPT)
    assert (recorded.policy_revision, recorded.receipt_id) == (7, RECEIPT)


@pytest.mark.parametrize("case", CASES)
def test_a_decision_is_answered_as_its_receipt_says(case: str) -> None:
    """The first answer is not read from the receipt, a repeated one is: both are the same bytes."""
    envelope, requester, observed, ruleset = CASES[case]
    decision = decide(envelope, requester, ruleset, observed)
    form = json.dumps(receipt_of(envelope, requester, observed, ruleset))
    made = made_admission(envelope, requester, decision, observed, ruleset, receipt_id=RECEIPT, policy_revision=7)
    stored = StoredDecision(RECEIPT, datetime(2026, 1, 1, tzinfo=UTC), form)
    first, repeated = (
        decision_response(stored, admission, NOTHING_FORWARDED, replayed=False)
        for admission in (made, read_admission(form))
    )
    assert first == repeated
    assert (made.admitted, made.decision.targets) == (
        read_admission(form).admitted,
        read_admission(form).decision.targets,
    )


def test_a_difference_is_named() -> None:
    envelope, requester, observed, ruleset = CASES["child"]
    recorded = read_admission(json.dumps(receipt_of(envelope, requester, observed, ruleset)))
    other = decide(envelope, requester, ruleset, observed_child(descendants=100))
    assert differences(recorded.decision, other)[:3] == ("outcome", "reason_code", "detail")


def test_what_an_admission_adds_to_its_tree() -> None:
    ruleset = ruleset_of()
    child = admitted_task(envelope_from(CHILD), decide(envelope_from(CHILD), ALICE, ruleset, observed_child()), RECEIPT)
    assert child is not None
    assert (child.task_id, child.root_task_id, child.parent_task_id) == (RECEIPT, "root-1", "parent-1")
    assert (child.depth, child.budget, child.begins, child.capability_id) == (3, 9, True, "doc.read")
    call = admitted_task(tool_call(CHILD), decide(tool_call(CHILD), ALICE, ruleset, observed_child()), RECEIPT)
    assert call is not None
    assert (call.begins, call.capability_id, call.root_task_id) == (False, "doc.read", "root-1")
    denied = decide(envelope_from(CHILD), ALICE, ruleset, observed_child(descendants=100))
    assert admitted_task(envelope_from(CHILD), denied, RECEIPT) is None
