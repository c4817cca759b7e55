"""Which requests are decided under locks: those whose root, rate or lease made a decision move lately."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from interrogate.contention import Contention
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope
from interrogate.observation import ObservationRequest, Requester, observation_request

TENANT = uuid4()
ALICE = Requester("alice", "principal")


class ManualClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def envelope(root: str | None = "root", parent: str | None = "root", **changes: Any) -> Envelope:
    made = {
        "tenant_id": "t",
        "surface_id": "public",
        "policy_profile_id": "strict",
        "payload_kind": "query",
        "payload": 1,
        "causality": {
            **({} if root is None else {"root_task_id": root}),
            "parent_task_id": parent,
            "caused_by_receipt_id": None,
            "spawn_depth": None,
        },
    }
    return parse_envelope(json.dumps(made | changes).encode())


def question(of: Envelope, requester: Requester = ALICE, *, rates: tuple[str, ...] = ()) -> ObservationRequest:
    return observation_request(of, requester, tenant=TENANT, receipt_id="r", idempotency_key=None, rate_keys=rates)


def contention(**more: Any) -> tuple[Contention, ManualClock]:
    clock = ManualClock()
    return Contention(seconds=5.0, clock=clock, **more), clock


def test_a_root_is_remembered_for_some_seconds() -> None:
    """Only this root, only in this tenant, for whoever asks; then it is forgotten."""
    memory, clock = contention()
    assert not memory.expected(TENANT, envelope(), ALICE)
    memory.note(question(envelope()))
    assert memory.expected(TENANT, envelope(), replace(ALICE, principal_key="bob"))
    assert not memory.expected(TENANT, envelope("other", "other"), ALICE)
    assert not memory.expected(UUID(int=1), envelope(), ALICE)
    clock.now += 5.0
    assert not memory.expected(TENANT, envelope(), ALICE)


def test_rates_of_a_principal_are_contended_in_every_tree() -> None:
    """A decision that moved under a rate makes its principal's others wait for it, under the same policy; without a rate it does not."""
    memory, _ = contention()
    memory.note(question(envelope()))
    assert not memory.expected(TENANT, envelope("other", "other"), ALICE)
    memory.note(question(envelope(), rates=("rate",)))
    assert memory.expected(TENANT, envelope("other", "other"), ALICE)
    assert not memory.expected(TENANT, envelope("other", "other", policy_profile_id="lax"), ALICE)
    assert not memory.expected(TENANT, envelope("other", "other"), replace(ALICE, principal_key="bob"))


def test_a_lease_is_contended_in_every_tree() -> None:
    memory, _ = contention()
    leased = replace(ALICE, lease_id="lease")
    memory.note(question(envelope(), leased))
    assert memory.expected(TENANT, envelope("other", "other"), leased)
    assert not memory.expected(TENANT, envelope("other", "other"), replace(ALICE, lease_id="another"))


def test_a_request_whose_root_is_still_to_be_found_takes_no_locks() -> None:
    """Locks have one order: that of a root which is only known with the parent would come too late. Without either there is none."""
    memory, _ = contention()
    memory.note(question(envelope(), rates=("rate",)))
    assert not memory.expected(TENANT, envelope(None, "root"), ALICE)
    assert memory.expected(TENANT, envelope(None, None), ALICE)


def test_it_forgets_the_oldest_beyond_its_bound() -> None:
    memory, _ = contention(most=2)
    for root in ("a", "b", "a", "c"):
        memory.note(question(envelope(root, root)))
    assert [root for root in ("a", "b", "c") if memory.expected(TENANT, envelope(root, root), ALICE)] == ["a", "c"]
