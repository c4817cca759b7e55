"""Receipts of the LegiVellum schema v1.x, brought into this ledger's form before they are examined (D-69). Pure.

That schema has 43 fields and requires nearly all of them, with `NA` where there is nothing to say. Two of its fields
have another name here, three belong to the ledger, five have no field of their own and are kept in `body`. The table is
in docs/memorygate/receipts.md. What contradicts itself is a finding: nothing is decided for the emitter (D-07).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from legivellum.receipts.phase_rules import ReceiptFinding

RENAMED: Final = {"source_system": "emitter", "from_principal": "principal_ai"}
KEPT_IN_BODY: Final = ("schema_version", "realtime", "expected_outcome_kind", "expected_artifact_mime", "artifact_refs")
SERVER_TIMES: Final = ("stored_at", "read_at", "archived_at")
EMPTY_AS_NA: Final = (
    "parent_task_id", "caused_by_receipt_id", "dedupe_key", "trust_domain", "task_type", "task_summary", "task_body",
    "outcome_text", "artifact_pointer", "artifact_location", "artifact_mime", "artifact_checksum", "escalation_reason",
    "escalation_to", "created_at", "started_at", "completed_at",
)  # fmt: skip
"""Fields in which that schema writes `NA` for nothing. Elsewhere `NA` stays what it is: a placeholder, and refused."""

_OWN_FIELDS: Final = frozenset({*RENAMED, *KEPT_IN_BODY})


def is_v1(sent: Mapping[str, Any]) -> bool:
    """Whether it has a field that only that schema knows."""
    return not _OWN_FIELDS.isdisjoint(sent)


def converted(sent: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[ReceiptFinding, ...]]:
    """The receipt under this ledger's names, and what contradicts itself in it."""
    findings: list[ReceiptFinding] = []
    version = sent.get("schema_version", "1.0")
    if not isinstance(version, str) or not version.startswith("1."):
        findings.append(ReceiptFinding("schema_version", "must be 1.0 or another 1.x"))
    receipt = {name: value for name, value in sent.items() if name not in _OWN_FIELDS}
    for name in EMPTY_AS_NA:
        if receipt.get(name) == "NA":
            receipt[name] = None
    for name in SERVER_TIMES:
        if name in receipt and receipt[name] in (None, "NA"):
            del receipt[name]
    findings += _rename(sent, receipt)
    findings += _keep_in_body(sent, receipt)
    if receipt.get("artifact_size_bytes") == 0 and receipt.get("artifact_pointer") is None:
        receipt["artifact_size_bytes"] = None
    return receipt, tuple(findings)


def _rename(sent: Mapping[str, Any], receipt: dict[str, Any]) -> Iterator[ReceiptFinding]:
    for name, own_name in RENAMED.items():
        if name not in sent:
            continue
        if own_name in receipt and receipt[own_name] != sent[name]:
            yield ReceiptFinding(name, f"contradicts {own_name}")
        receipt[own_name] = sent[name]


def _keep_in_body(sent: Mapping[str, Any], receipt: dict[str, Any]) -> Iterator[ReceiptFinding]:
    kept = {name: sent[name] for name in KEPT_IN_BODY if sent.get(name) not in (None, "NA")}
    body = receipt.get("body")
    if body is None:
        body = {}
    if not isinstance(body, dict):
        yield ReceiptFinding("body", "must be an object, because fields of schema 1.x are kept in it")
        return
    for name, value in kept.items():
        if name in body and body[name] != value:
            yield ReceiptFinding(name, f"contradicts body.{name}")
    receipt["body"] = {**body, **kept}
