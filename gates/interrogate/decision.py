"""What was decided about one request, and what storing it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final


class AdmissionOutcome(StrEnum):
    ALLOW = "ALLOW"
    DENY = "DENY"


class ReasonCode(StrEnum):
    """Why a request was denied: a closed list, in the order in which its rules are looked at."""

    MISSING_FIELD = "MISSING_FIELD"
    POLICY_NOT_FOUND = "POLICY_NOT_FOUND"
    SURFACE_NOT_FOUND = "SURFACE_NOT_FOUND"
    CAUSALITY_MISMATCH = "CAUSALITY_MISMATCH"
    UNAUTHORIZED = "UNAUTHORIZED"
    RATE_LIMITED = "RATE_LIMITED"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    DEPTH_EXCEEDED = "DEPTH_EXCEEDED"
    DESCENDANTS_EXCEEDED = "DESCENDANTS_EXCEEDED"
    REPEATS_EXCEEDED = "REPEATS_EXCEEDED"
    ANCESTOR_WINDOW = "ANCESTOR_WINDOW"
    CAPABILITY_DENIED = "CAPABILITY_DENIED"
    LEASE_LOST = "LEASE_LOST"
    LEASE_AUTHORITY = "LEASE_AUTHORITY"
    INVARIANT_VIOLATION = "INVARIANT_VIOLATION"


LONGEST_DETAIL: Final = 256
LONGEST_WINDOW: Final = 64
"""How many capabilities an admitted task keeps: its own and those of its nearest ancestors."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule of the order, for `explain`. Limits and observations are what the rule compared."""

    rule: int
    reason_code: ReasonCode
    passed: bool | None
    """None: it could not be judged."""
    limit: Any = None
    observed: Any = None


@dataclass(frozen=True, slots=True)
class Decision:
    """ALLOW or DENY. `reason_code`, `detail` and `rule` are None for ALLOW."""

    outcome: AdmissionOutcome
    reason_code: ReasonCode | None
    detail: str | None
    """At most 256 characters; never a value of the payload, never a name of another tenant."""
    rule: int | None
    root_task_id: str | None
    """The verified root; None where it could not be verified."""
    parent_task_id: str | None
    task_id: str | None
    """What is admitted, where the request names it; None: DENY, or the id of the receipt names it."""
    depth: int | None
    budget: int | None
    """The derived budget; None: none is counted."""
    budget_remaining: int | None
    """What is left for children of the admitted task."""
    recent: tuple[str, ...] = ()
    """The capability of the admitted task and its nearest ancestors, at most 64, for its children."""
    rate_tats: tuple[int, ...] | None = None
    """The new time of each rate key; None: nothing is spent."""
    spawns_under_lease: bool = False
    rules: Mapping[str, bool] = field(default_factory=dict)
    """The CEL rules that were evaluated, by name."""
    failed_rules: tuple[str, ...] = ()
    """Those that gave neither true nor false, or were refused. They do not hold; the policy needs mending."""
    targets: tuple[str, ...] = ()
    """The names of the targets that the request is for, called or not."""
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AdmittedTask:
    """The row of an admitted task, from which its children's lineage is derived."""

    task_id: str
    root_task_id: str
    parent_task_id: str | None
    depth: int
    budget: int | None
    """What is left for its children."""
    capability_id: str | None
    recent: tuple[str, ...]
    begins: bool
    """False for a lease, query or tool call, which begin no task: the version of the root and the count of the
    capability grow, no other count does, and there is no task to which children could be added."""
