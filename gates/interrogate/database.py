"""The database of InterroGate: observe and record, each one statement for a whole batch (IG-01)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from interrogate.decision import AdmittedTask
from interrogate.observation import ObservationRequest, Observed

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
class ObservedRequest:
    """The answer to a question. `replay`: this request was decided before; `conflict`: its key is another request's."""

    observed: Observed
    replay: StoredDecision | None = None
    conflict: bool = False


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
    """None: DENY, or a request outside of every tree (a lease, query or tool call without causality)."""
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
