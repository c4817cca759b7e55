"""Causes that are not in the ledger, and chains that do not hold (INV-120)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from legivellum.base.canonical_json import Uncanonical, canonical
from legivellum.receipts.archive_format import ADDED
from legivellum.receipts.chain import chain_seed, link
from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import RootReceipts


def cause_unknown(root: RootReceipts, exists: Callable[[str], bool]) -> Iterator[ComplianceFinding]:
    """`exists`: whether the ledger has a receipt of another root."""
    for receipt in root.receipts:
        cause = root.cause_of(receipt)
        if receipt.cause is None:
            continue
        if cause is not None and cause.position >= receipt.position:
            detail = f"names the cause {receipt.cause}, which came later"
        elif cause is None and not exists(receipt.cause):
            detail = f"names the cause {receipt.cause}, which is not in the ledger"
        else:
            continue
        yield ComplianceFinding(FindingCode.CAUSE_UNKNOWN, receipt.task_id, detail, receipt.receipt_id)


class ChainFollower:
    """Follows the chain of one root, from its first receipt on, as they are read."""

    def __init__(self) -> None:
        self._position = 0
        self._chain: bytes | None = None

    def follows(self, receipt: Mapping[str, Any]) -> bool:
        """Whether it is the next receipt of the chain."""
        return bool(receipt["position"] == self._position + 1)

    def check(self, receipt: Mapping[str, Any]) -> str | None:
        """What is wrong with the next receipt; None: it holds."""
        reason = self._defect(receipt)
        self._position = int(receipt["position"])
        self._chain = bytes.fromhex(receipt["chain_sha256"])
        return reason

    def _defect(self, receipt: Mapping[str, Any]) -> str | None:
        if not self.follows(receipt):
            return f"is number {receipt['position']} of its chain and follows number {self._position}"
        body = {name: value for name, value in receipt.items() if name not in ADDED}
        try:
            digest = hashlib.sha256(canonical(body)).digest()
        except Uncanonical:
            return "has a body that cannot be in canonical form"
        if digest.hex() != receipt["sha256"]:
            return "has a body that was altered"
        previous = self._chain or chain_seed(receipt["tenant_id"], receipt["root_task_id"])
        stored_at = datetime.fromisoformat(receipt["stored_at"])
        if (
            link(previous, digest, receipt["receipt_id"], receipt["position"], stored_at).hex()
            != receipt["chain_sha256"]
        ):
            return "does not follow the receipt before it"
        return None


def chain_broken(receipt: Mapping[str, Any], reason: str) -> ComplianceFinding:
    return ComplianceFinding(FindingCode.CHAIN_BROKEN, str(receipt["task_id"]), reason, str(receipt["receipt_id"]))
