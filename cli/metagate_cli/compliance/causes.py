"""Causes that are not in the ledger, and chains that do not hold (INV-120)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from legivellum.base.canonical_json import Uncanonical, canonical
from legivellum.receipts.archive_format import ADDED
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


def altered_body(receipt: Mapping[str, Any]) -> str | None:
    """What is wrong with the body of a receipt, as the ledger answers it; None: it has the digest that is named."""
    body = {name: value for name, value in receipt.items() if name not in ADDED}
    try:
        digest = hashlib.sha256(canonical(body)).hexdigest()
    except Uncanonical:
        return "has a body that cannot be in canonical form"
    return None if digest == receipt["sha256"] else "has a body that was altered"


def chain_broken(receipt: Mapping[str, Any], reason: str) -> ComplianceFinding:
    return ComplianceFinding(FindingCode.CHAIN_BROKEN, str(receipt["task_id"]), reason, str(receipt["receipt_id"]))
