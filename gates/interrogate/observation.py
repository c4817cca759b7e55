"""What a decision may look at besides the request: the caller, and what the database knew at one moment.

Everything here is bounded and belongs to one tenant and one tree; nothing is read from the mesh as a whole (INV-106).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from interrogate.envelope import Envelope, value_or_none


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as the credential says."""

    principal_key: str
    type: str
    """The declared type of the principal: principal, delegate, worker, service, component, observer."""
    is_tenants: bool = True
    """Whether `tenant_id` of the envelope is the tenant of the credential."""
    lease_id: str | None = None
    """As shown in `Legivellum-Lease`, whether it is live or not; None: no lease was shown."""


@dataclass(frozen=True, slots=True)
class ParentTask:
    """The admitted task that a request names as its parent."""

    root_task_id: str
    depth: int
    budget: int | None
    """What is left for its children; None: no budget is counted in this tree."""
    recent: tuple[str, ...]
    """Capabilities of the task itself and its nearest ancestors, nearest first, at most 64."""
    admitted_by: str
    """The receipt of its admission."""
    custodian: str | None
    """Who has custody of its obligation in the ledger; None: the ledger has no such obligation."""
    open: bool


@dataclass(frozen=True, slots=True)
class ObservedLease:
    """A live lease of the caller (`asyncgate.live_lease`)."""

    lease_id: str
    task_id: str
    principal_ai: str
    """The principal of the leased task, in whose name the holder acts."""
    number: int
    authority: Mapping[str, Any]
    spawned: int
    """How many requests were admitted under it so far."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of one request's surroundings at `at`. What `record` compares before it stores is marked *mark*."""

    at: int
    """The database's clock, in microseconds since 1970."""
    version: int = 0
    """*Mark*: how many requests were admitted under this root (0: the root is unknown)."""
    descendants: int = 0
    """Admitted tasks of the root but itself."""
    repeats: int = 0
    """Admissions of the requested capability under this root, the root included."""
    parent: ParentTask | None = None
    cause_task_id: str | None = None
    """The task of the receipt that is named as cause; None: no such receipt in this tenant."""
    task_root_id: str | None = None
    """*Mark*: the root under which the ledger knows the task that is to be admitted; None: unknown there."""
    task_admitted: bool = False
    """*Mark*: whether this task was admitted before."""
    rate_tats: tuple[int, ...] = ()
    """*Mark*: for each rate key, in the order they were asked, its theoretical arrival time (µs, 0: none)."""
    lease: ObservedLease | None = None
    """*Mark*. None: none was shown, or it is not live."""
    policy_revision: int = 0
    """*Mark*: the highest revision of the profile that was used (IG-06)."""


@dataclass(frozen=True, slots=True)
class ObservationRequest:
    """What is asked about one request before it is decided. None where the envelope does not say it."""

    tenant: UUID
    principal_key: str
    receipt_id: str
    """Minted once per request: a repeated batch finds its own row."""
    digest: bytes
    idempotency_key: str | None
    profile: str
    root_task_id: str | None
    """The claimed root, whose counts are observed; None: the root of the parent, if there is one."""
    task_id: str | None
    """The task that would be admitted: of a root its root id. None: its id is the receipt's, which is new."""
    parent_task_id: str | None
    capability_id: str | None
    caused_by_receipt_id: str | None
    rate_keys: tuple[str, ...]
    """Keys of the rates that match, as `ruleset` writes them; unique within the tenant."""
    lease_id: str | None


@dataclass(frozen=True, slots=True)
class LeasePlacement:
    """The task of a lease, where it was admitted here: the parent of a call that names none (GW-10)."""

    task_id: str
    root_task_id: str


def leased_parent(envelope: Envelope, observed: Observed) -> str | None:
    """The task of the lease under which a tool is called without a parent: the call counts in its tree.

    None: it is another request, it names its parent, or the task was never admitted here and is in no tree.
    """
    if not envelope.placed_by_lease or observed.lease is None or observed.parent is None:
        return None
    return observed.lease.task_id


def observation_request(
    envelope: Envelope,
    requester: Requester,
    *,
    tenant: UUID,
    receipt_id: str,
    idempotency_key: str | None,
    rate_keys: tuple[str, ...],
    leased: LeasePlacement | None = None,
) -> ObservationRequest:
    """What is asked before this envelope is decided. `tenant` is the requester's own, whatever the envelope names.

    `leased`: of a request that its lease places in a tree.
    """
    causality = envelope.causality
    return ObservationRequest(
        tenant=tenant,
        principal_key=requester.principal_key,
        receipt_id=receipt_id,
        digest=envelope.digest,
        idempotency_key=idempotency_key,
        profile=envelope.policy_profile_id,
        root_task_id=value_or_none(causality.root_task_id) if leased is None else leased.root_task_id,
        task_id=envelope.admitted_task_id,
        parent_task_id=value_or_none(causality.parent_task_id) if leased is None else leased.task_id,
        capability_id=envelope.capability_id,
        caused_by_receipt_id=value_or_none(causality.caused_by_receipt_id),
        rate_keys=rate_keys,
        lease_id=requester.lease_id,
    )
