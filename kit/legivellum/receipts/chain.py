"""The chain in which the ledger keeps receipts, and how anybody checks it: pure, so an archive needs no ledger.

Every root task has a chain: each receipt's link hashes the link before it, the receipt's digest, its id, position and
time. A receipt is wrong when its body does not hash to its digest, when its columns say something else than its body,
when it does not follow its predecessor, or when a predecessor is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from legivellum.base.canonical_json import Uncanonical, canonical

_COLUMNS = (
    ("receipt_id", "receipt_id"),
    ("kind", "kind"),
    ("phase", "phase"),
    ("task_id", "task_id"),
    ("obligation_id", "obligation_id"),
    ("caused_by", "caused_by_receipt_id"),
    ("tenant", "tenant_id"),
)


@dataclass(frozen=True, slots=True)
class ChainedReceipt:
    """One receipt with its place in its chain: from the database, or from an archive."""

    tenant: str
    root_task_id: str
    position: int
    receipt_id: str
    stored_at: datetime
    body: str
    digest: bytes
    previous: bytes
    chain: bytes
    signature: str | None
    columns: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Defect:
    """The first thing that is wrong."""

    tenant: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"tenant {self.tenant}, {self.place}: {self.reason}"


@dataclass(slots=True)
class ChainVerdict:
    receipts: int = 0
    roots: int = 0
    bad: Defect | None = None


def link(previous: bytes, digest: bytes, receipt_id: str, position: int, stored_at: datetime) -> bytes:
    """`memorygate.link` of the database, in Python: an archive is checked without one."""
    tail = f"{receipt_id}/{position}/{microseconds(stored_at)}".encode()
    return hashlib.sha256(previous + digest + tail).digest()


def chain_seed(tenant: str, root_task_id: str) -> bytes:
    """What the first receipt of a chain follows."""
    return hashlib.sha256(f"{tenant}/{root_task_id}".encode()).digest()


class ChainVerifier:
    """Follows the chains. Fed with receipts ordered by tenant, root and position.

    `whole`: every chain begins at its first receipt; an archive of one month begins anywhere.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self._whole = whole
        self._root: tuple[str, str] | None = None
        self._position = 0
        self._chain = b""
        self.verdict = ChainVerdict()

    def check(self, receipt: ChainedReceipt) -> Defect | None:
        """What is wrong with this receipt, or None."""
        root = (receipt.tenant, receipt.root_task_id)
        is_first = root != self._root
        if is_first:
            self.verdict.roots += 1
        self.verdict.receipts += 1
        reason = _own_defect(receipt) or self._defect_in_chain(receipt, is_first=is_first)
        self._root, self._position, self._chain = root, receipt.position, receipt.chain
        if reason is None:
            return None
        self.verdict.bad = Defect(receipt.tenant, f"receipt {receipt.receipt_id}", reason)
        return self.verdict.bad

    def _defect_in_chain(self, receipt: ChainedReceipt, *, is_first: bool) -> str | None:
        if is_first and receipt.position == 1 and receipt.previous != chain_seed(receipt.tenant, receipt.root_task_id):
            return "it does not begin its chain"
        if self._whole and receipt.position != (1 if is_first else self._position + 1):
            return "a receipt before it is missing"
        if not is_first and receipt.position == self._position + 1 and receipt.previous != self._chain:
            return "it does not follow the receipt before it"
        if (
            link(receipt.previous, receipt.digest, receipt.receipt_id, receipt.position, receipt.stored_at)
            != receipt.chain
        ):
            return "its place in the chain was altered"
        return None


class ChainFollower:
    """Follows the chain of one root, from its first receipt on, in receipts as the ledger answers them over HTTP."""

    def __init__(self) -> None:
        self._position = 0
        self._chain: bytes | None = None

    def follows(self, receipt: Mapping[str, Any]) -> bool:
        """Whether it is the next receipt of the chain."""
        return bool(receipt["position"] == self._position + 1)

    def defect(self, receipt: Mapping[str, Any]) -> str | None:
        """What is wrong with the place of the next receipt, by the digest that it names; None: it holds."""
        reason = self._defect(receipt)
        self._position, self._chain = int(receipt["position"]), bytes.fromhex(receipt["chain_sha256"])
        return reason

    def _defect(self, receipt: Mapping[str, Any]) -> str | None:
        if not self.follows(receipt):
            return f"is number {receipt['position']} of its chain and follows number {self._position}"
        previous = self._chain or chain_seed(receipt["tenant_id"], receipt["root_task_id"])
        digest, stored_at = bytes.fromhex(receipt["sha256"]), datetime.fromisoformat(receipt["stored_at"])
        chain = link(previous, digest, str(receipt["receipt_id"]), receipt["position"], stored_at)
        return None if chain.hex() == receipt["chain_sha256"] else "does not follow the receipt before it"


def _own_defect(receipt: ChainedReceipt) -> str | None:
    """What a receipt shows by itself."""
    if hashlib.sha256(receipt.body.encode()).digest() != receipt.digest:
        return "its body was altered"
    try:
        body = json.loads(receipt.body)
        if canonical(body, round_trip=True) != receipt.body.encode():
            return "its body is not in canonical form"
    except (ValueError, Uncanonical):
        return "its body is not JSON"
    for column, field in _COLUMNS:
        if column in receipt.columns and receipt.columns[column] != body.get(field):
            return f"its column {column} says something else than its body"
    return None


def microseconds(moment: datetime) -> int:
    """Since 1970, exactly: a float would lose the last digits."""
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
