"""A batch is decided as if each of its requests had been stored before the next was observed."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    ALICE,
    CHILD,
    NOW,
    ROOT,
    envelope_from,
    lease,
    observed_child,
    observed_root,
    ruleset_of,
    tool_call,
)

from interrogate.decide import decide
from interrogate.decision import Decision
from interrogate.envelope import Envelope
from interrogate.fold import DecidedBatch
from interrogate.observation import ObservationRequest, Observed, Requester, observation_request
from interrogate.ruleset import Ruleset

TENANT, OTHER = UUID(int=1), UUID(int=2)


class FoldingBatch:
    """Requests of one batch, decided in their order."""

    def __init__(self, ruleset: Ruleset | None = None) -> None:
        self.ruleset = ruleset or ruleset_of()
        self.decided = DecidedBatch()
        self.count = 0

    def ask(
        self,
        envelope: Envelope,
        observed: Observed,
        *,
        requester: Requester = ALICE,
        tenant: UUID = TENANT,
        key: str | None = None,
    ) -> tuple[ObservationRequest, Observed | None]:
        self.count += 1
        request = observation_request(
            envelope,
            requester,
            tenant=tenant,
            receipt_id=f"receipt-{self.count}",
            idempotency_key=key,
            rate_keys=self.ruleset.rate_keys_of(envelope, requester.principal_key),
        )
        return request, self.decided.adjusted(request, observed)

    def decide(self, envelope: Envelope, observed: Observed, **options: Any) -> Decision:
        request, seen = self.ask(envelope, observed, **options)
        assert seen is not None
        decision = decide(envelope, options.get("requester", ALICE), self.ruleset, seen)
        self.decided.add(request, seen, decision, begins=envelope.begins)
        return decision


def unlimited() -> Ruleset:
    return ruleset_of(surface={"rateLimit": ABSENT})


def ask_child(batch: FoldingBatch, **options: Any) -> Observed:
    _, seen = batch.ask(envelope_from(CHILD), observed_child(rate_tats=()), **options)
    assert seen is not None
    return seen


def test_the_next_request_sees_the_counts_of_the_last() -> None:
    batch = FoldingBatch(unlimited())
    batch.decide(envelope_from(CHILD), observed_child(rate_tats=()))
    seen = ask_child(batch)
    assert (seen.version, seen.descendants, seen.repeats) == (7, 6, 3)
    assert seen.parent == observed_child().parent
    # Another capability, another tree and another tenant see what they would have seen.
    _, other = batch.ask(
        envelope_from(CHILD, {"causality": {"capability_id": "mail.send"}}), observed_child(rate_tats=())
    )
    assert other is not None
    assert (other.version, other.descendants, other.repeats) == (7, 6, 2)
    assert ask_child(batch, tenant=OTHER) == observed_child(rate_tats=())
    untouched = observed_root(rate_tats=())
    assert batch.ask(envelope_from(ROOT, {"causality": {"root_task_id": "root-2"}}), untouched)[1] == untouched


def test_of_32_only_as_many_pass_as_the_cap_leaves() -> None:
    batch = FoldingBatch(ruleset_of({"limits": {"maxTotalDescendants": 12}}, surface={"rateLimit": ABSENT}))
    outcomes = [batch.decide(envelope_from(CHILD), observed_child(rate_tats=())).reason_code for _ in range(32)]
    assert outcomes == [None] * 7 + ["DESCENDANTS_EXCEEDED"] * 25


def test_a_denied_request_changes_no_count_but_spends_its_rate() -> None:
    batch = FoldingBatch()
    assert batch.decide(envelope_from(CHILD, {"artifact_bytes": 1001}), observed_child()).outcome == "DENY"
    _, seen = batch.ask(envelope_from(CHILD), observed_child())
    assert seen == observed_child(rate_tats=(NOW + 100_000,))


def test_rates_are_shared_by_key() -> None:
    batch = FoldingBatch()
    reasons = [batch.decide(envelope_from(CHILD), observed_child()).reason_code for _ in range(5)]
    assert reasons == [None, None, None, "RATE_LIMITED", "RATE_LIMITED"]
    team = Requester("team-x", "principal")
    assert batch.decide(envelope_from(ROOT), observed_root(), requester=team).outcome == "ALLOW"
    assert batch.decide(envelope_from(CHILD), observed_child(), tenant=OTHER).outcome == "ALLOW"


def test_what_begins_nothing_counts_for_its_capability_alone() -> None:
    batch = FoldingBatch(unlimited())
    batch.decide(tool_call(CHILD), observed_child(rate_tats=()))
    seen = ask_child(batch)
    assert (seen.version, seen.descendants, seen.repeats) == (7, 5, 3)


def test_a_root_is_no_descendant_of_itself() -> None:
    batch = FoldingBatch(unlimited())
    batch.decide(envelope_from(ROOT), observed_root(rate_tats=()))
    _, seen = batch.ask(
        envelope_from(CHILD, {"payload_kind": "query", "causality": {"parent_task_id": "parent-2"}}),
        observed_child(rate_tats=()),
    )
    assert seen is not None
    assert (seen.version, seen.descendants, seen.repeats) == (7, 5, 3)


def test_spawns_are_counted_under_their_lease() -> None:
    batch = FoldingBatch(unlimited())
    worker = Requester("team-w", "worker", lease_id="lease-1")
    observed = observed_child(rate_tats=(), lease=lease(spawned=3))
    reasons = [batch.decide(envelope_from(CHILD), observed, requester=worker).reason_code for _ in range(4)]
    assert reasons == [None, None, "LEASE_AUTHORITY", "LEASE_AUTHORITY"]
    other = observed_child(rate_tats=(), lease=lease(lease_id="lease-2", spawned=3))
    worker = replace(worker, lease_id="lease-2")
    assert batch.decide(envelope_from(CHILD), other, requester=worker).outcome == "ALLOW"


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"parent_task_id": "mine"}, None),
        ({"parent_task_id": "receipt-2"}, None),
        ({"task_id": "mine"}, None),
        ({"root_task_id": "mine", "parent_task_id": None, "caused_by_receipt_id": None}, None),
        ({}, "key-1"),
    ],
    ids=str,
)
def test_what_depends_on_a_task_of_the_batch_is_observed_again(changes: dict[str, Any], key: str | None) -> None:
    """Who has custody of that task was not asked, and what answers a repeated request is not stored yet."""
    batch = FoldingBatch(unlimited())
    batch.decide(envelope_from(CHILD, {"causality": {"task_id": "mine"}}), observed_child(rate_tats=()), key="key-1")
    batch.decide(envelope_from(CHILD), observed_child(rate_tats=()))
    envelope = envelope_from(CHILD, {"causality": changes})
    assert batch.ask(envelope, observed_child(rate_tats=()), key=key)[1] is None
    assert batch.ask(envelope, observed_child(rate_tats=()), key=key, tenant=OTHER)[1] is not None


def test_a_task_that_was_refused_has_no_children_to_wait_for() -> None:
    batch = FoldingBatch(unlimited())
    refused = envelope_from(CHILD, {"artifact_bytes": 1001, "causality": {"task_id": "mine"}})
    batch.decide(refused, observed_child(rate_tats=()))
    below = envelope_from(CHILD, {"causality": {"parent_task_id": "mine"}})
    assert batch.ask(below, observed_child(rate_tats=()))[1] is not None
    # Whoever asks for the same task is observed again: one decision for a task and a batch.
    assert batch.ask(refused, observed_child(rate_tats=()))[1] is None
