"""The database of InterroGate: observe and record, each one statement for a whole batch (IG-01)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from interrogate.observation import Observed

RecordOutcome = Literal["STORED", "REPLAYED", "MOVED", "POLICY_BEHIND", "KEY_CONFLICT", "REFUSED"]
"""STORED: now. REPLAYED: it was decided before, see `stored`. MOVED: a mark changed, nothing is stored: ask
again. POLICY_BEHIND: a newer revision was used already (IG-06). KEY_CONFLICT: the key belongs to another envelope.
REFUSED: the ledger refused the receipt, which is a bug of this gate."""


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision that is in the ledger: what a replay answers."""

    receipt_id: str
    stored_at: datetime
    body: str
    """The canonical receipt."""


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
    task_id: str | None
    parent_task_id: str | None
    capability_id: str | None
    caused_by_receipt_id: str | None
    rate_keys: tuple[str, ...]
    """Keys of the rates that match, as `ruleset` writes them; unique within the tenant."""
    lease_id: str | None


@dataclass(frozen=True, slots=True)
class ObservedRequest:
    """The answer to a question. `replay`: this request was decided before; `conflict`: its key is another request's."""

    observed: Observed
    replay: StoredDecision | None = None
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class AdmittedTask:
    """The row of an admitted task, from which its children's lineage is derived."""

    task_id: str
    root_task_id: str
    parent_task_id: str | None
    depth: int
    budget: int | None
    recent: tuple[str, ...]
    counts: bool
    """Whether it is a descendant (a tool call counts for repeats only)."""


@dataclass(frozen=True, slots=True)
class Record:
    """A decision to store, with the marks under which it was made."""

    request: ObservationRequest
    observed: Observed
    body: str
    """The canonical admission receipt (`legivellum.receipts.receipt.examine`)."""
    policy_hash: str | None
    policy_revision: int
    ruleset: str | None
    """The canonical ruleset; stored with the first decision under its hash, so that replay needs no MetaGate."""
    admitted: AdmittedTask | None
    """None: DENY, or a kind without causality."""
    rate_tats: tuple[int, ...] | None
    spawns_under_lease: bool
    forwards: tuple[str, ...]
    """Targets to be called after the commit: `pending` rows."""


@dataclass(frozen=True, slots=True)
class Recorded:
    outcome: RecordOutcome
    stored: StoredDecision | None
    """Of STORED and REPLAYED."""
    detail: str = ""
