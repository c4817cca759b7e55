"""The format of the ledger's archives: JSON lines, pure. A head that says what it is, a line for each receipt with
everything that its chain needs, a foot with the count and the sha256 of all lines before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from legivellum.base.canonical_json import canonical
from legivellum.receipts.chain import ChainedReceipt, ChainVerdict, ChainVerifier, Defect, chain_seed

FORMAT: Final = "memorygate-archive/1"
ADDED: Final = frozenset({"stored_at", "sha256", "root_task_id", "position", "chain_sha256", "signature"})
"""What the ledger adds to a receipt that it answers: the rest is what the emitter sent, and what is hashed."""


class ArchiveUnreadable(Exception):  # noqa: N818 - what the file is
    """The file is not a whole archive."""


def encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def receipt_line(receipt: ChainedReceipt) -> dict[str, Any]:
    return {
        "tenant": receipt.tenant,
        "root": receipt.root_task_id,
        "position": receipt.position,
        "receipt_id": receipt.receipt_id,
        "stored_at": receipt.stored_at.astimezone(UTC).isoformat(),
        "previous": receipt.previous.hex(),
        "chain": receipt.chain.hex(),
        "sha256": receipt.digest.hex(),
        "signature": receipt.signature,
        "body": receipt.body,
    }


def verify_lines(lines: Iterable[bytes], name: str) -> ChainVerdict:
    """Every line and every chain. Raises ArchiveUnreadable, with `name` in it, for what is cut off or no archive."""
    verifier = ChainVerifier(whole=False)
    digest = hashlib.sha256()
    foot: dict[str, Any] | None = None
    for number, line in enumerate(lines):
        value = _decoded(name, line)
        if number == 0:
            if value.get("format") != FORMAT:
                raise ArchiveUnreadable(f"{name}: is not an archive of the ledger")
        elif "receipts" in value:
            foot = value
            if value != {"receipts": verifier.verdict.receipts, "sha256": digest.hexdigest()}:
                verifier.verdict.bad = verifier.verdict.bad or Defect(
                    "-", "the foot", "does not fit the lines before it"
                )
        elif foot is not None:
            raise ArchiveUnreadable(f"{name}: goes on after its foot")
        elif verifier.check(_receipt(name, value)) is not None:
            return verifier.verdict
        digest.update(line)
    if foot is None:
        raise ArchiveUnreadable(f"{name}: was cut off")
    return verifier.verdict


def archived_receipts(lines: Iterable[bytes], name: str) -> Iterator[ChainedReceipt]:
    """The receipts of an archive that `verify_lines` found whole. Raises ArchiveUnreadable."""
    for line in lines:
        value = _decoded(name, line)
        if "format" not in value and "receipts" not in value:
            yield _receipt(name, value)


def answered_receipts(lines: Iterable[bytes], name: str) -> list[ChainedReceipt]:
    """Receipts as the ledger answers them over HTTP, one a line, in any order; in the order of their chains.

    What the ledger adds to a receipt says everything but the chain before it, which the receipt before it has. Raises
    ArchiveUnreadable.
    """
    values = [_decoded(name, line) for line in lines if line.strip()]
    try:
        values.sort(key=lambda value: (value["tenant_id"], value["root_task_id"], value["position"]))
        receipts: list[ChainedReceipt] = []
        for value in values:
            receipts.append(_answered(value, receipts[-1] if receipts else None))
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveUnreadable(f"{name}: a line is not a receipt as the ledger answers it") from error
    return receipts


def _answered(value: Mapping[str, Any], before: ChainedReceipt | None) -> ChainedReceipt:
    tenant, root, signature = value["tenant_id"], value["root_task_id"], value.get("signature")
    follows = before is not None and (before.tenant, before.root_task_id) == (tenant, root)
    return ChainedReceipt(
        tenant=tenant,
        root_task_id=root,
        position=value["position"],
        receipt_id=value["receipt_id"],
        stored_at=datetime.fromisoformat(value["stored_at"]),
        body=canonical({member: item for member, item in value.items() if member not in ADDED}).decode(),
        digest=bytes.fromhex(value["sha256"]),
        previous=before.chain if follows and before is not None else chain_seed(tenant, root),
        chain=bytes.fromhex(value["chain_sha256"]),
        signature=None if signature is None else f"{signature['key_id']}:{signature['value']}",
        columns={"receipt_id": value["receipt_id"], "tenant": tenant},
    )


def _decoded(name: str, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ArchiveUnreadable(f"{name}: a line is not a JSON object")
    return value


def _receipt(name: str, value: dict[str, Any]) -> ChainedReceipt:
    try:
        return ChainedReceipt(
            tenant=value["tenant"],
            root_task_id=value["root"],
            position=value["position"],
            receipt_id=value["receipt_id"],
            stored_at=datetime.fromisoformat(value["stored_at"]),
            body=value["body"],
            digest=bytes.fromhex(value["sha256"]),
            previous=bytes.fromhex(value["previous"]),
            chain=bytes.fromhex(value["chain"]),
            signature=value["signature"],
            columns={"receipt_id": value["receipt_id"], "tenant": value["tenant"]},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArchiveUnreadable(f"{name}: a line is not a receipt") from error
