"""A task's story, read from the ledger's own database: as `legivellum explain` reads it over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from legivellum.receipts.story import ReceiptDocument, TaskStory, cause_of
from memorygate.ledger import START, MemoryGateDatabase, Stored
from memorygate.rendering import render_receipt

MOST_RECEIPTS: Final = 2_000
"""Receipts of one story that a page reads; `legivellum explain` reads all."""
MOST_PAGES: Final = 6
"""Pages of the ledger, of a mebibyte each, that are read for them."""
_LOOKED_UP: Final = 256


@dataclass(frozen=True, slots=True)
class ReadStory:
    """`elsewhere`: causes that are receipts of another tree, with its root. `complete`: no receipt was left out."""

    root_task_id: str
    story: TaskStory
    elsewhere: dict[str, str]
    complete: bool


async def read_story(ledger: MemoryGateDatabase, tenant: UUID, task_id: str) -> ReadStory | None:
    """None when the tenant has no such task."""
    stored, complete = await _receipts(ledger, tenant, task_id)
    if not stored:
        return None
    # By the ledger's time, in which pages come: the picture has time downwards, and arrows for the causes.
    receipts: list[ReceiptDocument] = [json.loads(render_receipt(receipt)) for receipt in stored]
    elsewhere, dangling = await _other_causes(ledger, tenant, receipts)
    story = TaskStory(receipts, await _open_obligations(ledger, tenant, receipts), dangling)
    return ReadStory(stored[0].root_task_id, story, elsewhere, complete)


async def _receipts(ledger: MemoryGateDatabase, tenant: UUID, task_id: str) -> tuple[list[Stored], bool]:
    receipts: list[Stored] = []
    after = START[0]
    for _ in range(MOST_PAGES):
        page = await ledger.root(tenant, task_id, after=after, most=MOST_RECEIPTS - len(receipts))
        receipts += page.items
        if not page.more:
            return receipts, True
        if len(receipts) >= MOST_RECEIPTS:
            break
        after = receipts[-1].stored_at
    return receipts, False


async def _other_causes(
    ledger: MemoryGateDatabase, tenant: UUID, receipts: Sequence[ReceiptDocument]
) -> tuple[dict[str, str], list[str]]:
    """Causes outside of these receipts: those of other trees, and those that are nowhere."""
    known = {receipt["receipt_id"] for receipt in receipts}
    wanted = list(dict.fromkeys(cause for receipt in receipts if (cause := cause_of(receipt)) and cause not in known))
    there: dict[str, str] = {}
    for start in range(0, len(wanted), _LOOKED_UP):
        others = await ledger.receipts(tenant, wanted[start : start + _LOOKED_UP])
        there |= {receipt.receipt_id: receipt.root_task_id for receipt in others}
    return there, [cause for cause in wanted if cause not in there]


async def _open_obligations(
    ledger: MemoryGateDatabase, tenant: UUID, receipts: Sequence[ReceiptDocument]
) -> dict[str, str]:
    """Custodians of what is open, by obligation."""
    names = list(dict.fromkeys(str(item["obligation_id"]) for item in receipts if item["kind"] == "obligation"))
    open_with: dict[str, str] = {}
    for start in range(0, len(names), _LOOKED_UP):
        some = names[start : start + _LOOKED_UP]
        for name, custody in zip(some, await ledger.custody(tenant, some), strict=True):
            if custody.state == "open" and custody.custodian is not None:
                open_with[name] = custody.custodian
    return open_with


def is_named(receipt: ReceiptDocument, principal: str) -> bool:
    """Whether a receipt is the principal's: it emitted, owns or was given what the receipt tells."""
    names: tuple[Any, ...] = (receipt["emitter"], receipt["principal_ai"], receipt.get("recipient_ai"))
    return principal in names
