"""Who may deposit what (DP-05). Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from depotgate.artifact import LiveLease, Role
from metagate_crds.authority import Authority, parse_authority

RefusalCode = Literal["ROLE_NOT_PERMITTED", "LEASE_REQUIRED", "LEASE_LOST", "LEASE_AUTHORITY"]

DEPOSITORS: Final[Mapping[Role, frozenset[str]]] = {
    "plan": frozenset({"delegate"}),
    "input": frozenset({"principal", "delegate"}),
    "output": frozenset({"worker", "service", "component"}),
    "supporting": frozenset({"worker", "service", "component"}),
}
"""The types of principals that may deposit an artifact of each role; `admin` and `observer` read."""

LEASED_ROLES: Final[frozenset[Role]] = frozenset({"output", "supporting"})
"""What is deposited as work on a task: under a live lease of it."""


@dataclass(frozen=True, slots=True)
class DepositRefusal:
    code: RefusalCode
    detail: str


def may_deposit(principal_type: str, role: Role, *, leased: bool, lease_required: bool) -> DepositRefusal | None:
    """What can be refused without asking for the lease. `leased`: the caller names one."""
    if principal_type not in DEPOSITORS[role]:
        permitted = " or ".join(sorted(DEPOSITORS[role]))
        return DepositRefusal(
            "ROLE_NOT_PERMITTED", f"an artifact of role {role} comes from a {permitted}, not a {principal_type}"
        )
    if role not in LEASED_ROLES:
        return DepositRefusal("LEASE_AUTHORITY", f"no lease gives the right to deposit role {role}") if leased else None
    if lease_required and not leased:
        return DepositRefusal(
            "LEASE_REQUIRED", f"an artifact of role {role} needs the lease of its task: Legivellum-Lease"
        )
    return None


def within_lease(lease: LiveLease | None, role: Role, task_id: str | None) -> DepositRefusal | None:
    """Whether the lease that was named, if it is live, lets its holder deposit this. `task_id` None: the lease's."""
    if lease is None:
        return DepositRefusal("LEASE_LOST", "the lease is not live, or not the caller's")
    if task_id not in {None, lease.task_id}:
        return DepositRefusal("LEASE_AUTHORITY", "the lease is of another task")
    authority = _authority(lease)
    if not authority.writeBeyondReceipts:
        return DepositRefusal("LEASE_AUTHORITY", "the lease's authority has no writeBeyondReceipts")
    if f"depotgate/{role}" not in authority.sinks:
        return DepositRefusal("LEASE_AUTHORITY", f"the lease's authority has no sink depotgate/{role}")
    return None


def _authority(lease: LiveLease) -> Authority:
    """What is absent is denied, and so is what cannot be read."""
    parsed = parse_authority(json.loads(lease.authority)) if lease.authority is not None else ()
    return parsed if isinstance(parsed, Authority) else Authority()
