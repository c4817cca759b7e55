"""What becomes of each item of a statement: values, never exceptions, for many deposits share one commit (D-58)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from depotgate.artifact import Artifact

StoreOutcome = Literal["STORED", "REPLAYED", "ARTIFACT_CONFLICT", "LEASE_LOST", "CAUSE_UNKNOWN", "REFUSED"]
"""REPLAYED: this artifact_id, with the same content. ARTIFACT_CONFLICT: this artifact_id, with other content (§7).
CAUSE_UNKNOWN: the named cause is no receipt of the named task. REFUSED: the ledger refused the receipt, as `detail`
says; it is a bug of this gate."""


@dataclass(frozen=True, slots=True)
class StoreResult:
    """`artifact` is there for STORED and REPLAYED. Unless its `key` is the upload's own, the bytes that were uploaded
    are not needed: after the commit the caller removes them (DP-02).
    """

    name: StoreOutcome
    artifact: Artifact | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RetireResult:
    """An artifact that is retired now, or was before."""

    artifact: Artifact
    freed_key: str | None
    """The blob that no artifact has any more: after the commit the caller removes it (EXT-26)."""
