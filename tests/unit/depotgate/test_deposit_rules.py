"""Role x type x lease of a deposit (DP-05)."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from depotgate.artifact import ROLES, LiveLease, Pointer, Role
from depotgate.deposit_rules import may_deposit, within_lease

TYPES = ("principal", "delegate", "worker", "service", "component", "admin", "observer")
WRITES = {
    "plan": {"delegate"},
    "input": {"principal", "delegate"},
    "output": {"worker", "service", "component"},
    "supporting": {"worker", "service", "component"},
}
FULL = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}


def lease_with(authority: Any, task_id: str = "job") -> LiveLease:
    text = authority if authority is None else json.dumps(authority)
    return LiveLease(task_id, task_id, "alice", text, 3, "01ARZ3NDEKTSV4RRFFQ69G5FAV", datetime(2027, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("principal_type", TYPES)
def test_the_matrix_of_types_and_roles(role: Role, principal_type: str) -> None:
    refusal = may_deposit(principal_type, role, leased=role in {"output", "supporting"}, lease_required=True)
    assert (refusal is None) == (principal_type in WRITES[role])
    assert refusal is None or refusal.code == "ROLE_NOT_PERMITTED"


@pytest.mark.parametrize("role", ["output", "supporting"])
def test_work_needs_a_lease_unless_leases_are_optional(role: Role) -> None:
    refusal = may_deposit("worker", role, leased=False, lease_required=True)
    assert refusal is not None
    assert refusal.code == "LEASE_REQUIRED"
    assert may_deposit("worker", role, leased=False, lease_required=False) is None


@pytest.mark.parametrize(("principal_type", "role"), [("delegate", "plan"), ("principal", "input")])
def test_a_lease_gives_no_right_to_plans_and_inputs(principal_type: str, role: Role) -> None:
    refusal = may_deposit(principal_type, role, leased=True, lease_required=True)
    assert refusal is not None
    assert refusal.code == "LEASE_AUTHORITY"


@pytest.mark.parametrize(
    ("authority", "task_id", "right"),
    [
        (FULL, "job", True),
        (FULL, None, True),
        (FULL, "other", False),
        (None, "job", False),
        ({"writeBeyondReceipts": True}, "job", False),
        ({"writeBeyondReceipts": True, "sinks": ["depotgate/supporting"]}, "job", False),
        ({"sinks": ["depotgate/output"]}, "job", False),
        ({"writeBeyondReceipts": True, "sinks": ["depotgate/*"]}, "job", False),
        ({**FULL, "unknown": 1}, "job", False),
    ],
)
def test_a_lease_gives_what_its_authority_says_for_its_own_task(
    authority: Any, task_id: str | None, right: bool
) -> None:
    refusal = within_lease(lease_with(authority), "output", task_id)
    assert (refusal is None) == right
    assert refusal is None or refusal.code == "LEASE_AUTHORITY"


def test_what_is_not_live_is_lost() -> None:
    refusal = within_lease(None, "output", "job")
    assert refusal is not None
    assert refusal.code == "LEASE_LOST"


@pytest.mark.parametrize(
    "text",
    [
        "", "depot:", "depot:01ARZ3NDEKTSV4RRFFQ69G5FAV", f"depot:01ARZ3NDEKTSV4RRFFQ69G5FAV:{'A' * 64}",
        f"depot:01arz3ndektsv4rrffq69g5fav:{'a' * 64}", f"depot:01ARZ3NDEKTSV4RRFFQ69G5FAV:{'a' * 63}",
        f"depot:81ARZ3NDEKTSV4RRFFQ69G5FAV:{'a' * 64}", f"depot:01ARZ3NDEKTSV4RRFFQ69G5FAV:{'a' * 64}\n",
        f"DEPOT:01ARZ3NDEKTSV4RRFFQ69G5FAV:{'a' * 64}",
    ],
)  # fmt: skip
def test_what_is_no_pointer(text: str) -> None:
    assert Pointer.parse(text) is None


def test_a_pointer_is_one_segment_of_97_characters() -> None:
    text = f"depot:01ARZ3NDEKTSV4RRFFQ69G5FAV:{'0a' * 32}"
    assert len(text) == 97
    assert str(Pointer.parse(text)) == text
