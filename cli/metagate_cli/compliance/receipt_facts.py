"""What the rules read of receipts: few members each, so that a hundred thousand receipts fit into memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from sys import intern
from typing import Any, Final

from legivellum.receipts.rights import CUSTODIAL, GATE_PREFIX
from metagate_crds.authority import NOTHING, Authority, parse_authority

ASYNCGATE: Final = "svc:asyncgate"
INTERROGATE: Final = "svc:interrogate"
DEPOTGATE: Final = "svc:depotgate"
PLAN_RUN: Final = "plan.run"
PLANNING: Final = "plan"
CLOSE_STEP: Final = "close"

_BODY_MEMBERS: Final = frozenset({
    "authority", "depth", "derived", "lease", "lease_id",
    "lease_number", "minter", "policy_hash", "policy_profile_id", "role", "steps", "terms",
    "tool", "waits_for", "what",
})  # fmt: skip
"""The members of bodies that a rule reads; the others are dropped, and with them what makes receipts large."""
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    receipt_id: str
    emitter: str
    kind: str
    phase: str
    task_id: str
    obligation_id: str
    principal_ai: str
    recipient_ai: str
    status: str
    stored_at: datetime
    position: int
    cause: str | None
    parent: str | None
    task_type: str | None
    attempt: int | None
    body: Mapping[str, Any]
    usage: Mapping[str, Any] | None

    @property
    def what(self) -> str:
        return f"{self.kind}/{self.phase}"

    @property
    def by_gate(self) -> bool:
        return self.emitter.startswith(GATE_PREFIX)


def receipt_facts(receipt: Mapping[str, Any]) -> ReceiptFacts:
    """Of a receipt as the ledger answers it. Raises KeyError, TypeError or ValueError for what is none."""
    body, metadata = mapping(receipt.get("body")), mapping(receipt.get("metadata"))
    kept = {name: body[name] for name in body.keys() & _BODY_MEMBERS}
    usage = metadata.get("usage")
    attempt = receipt.get("attempt")
    return ReceiptFacts(
        receipt_id=receipt["receipt_id"],
        # A ledger has few different names of these: each is kept once.
        emitter=intern(receipt["emitter"]),
        kind=intern(receipt["kind"]),
        phase=intern(receipt["phase"]),
        task_id=intern(receipt["task_id"]),
        obligation_id=intern(receipt["obligation_id"]),
        principal_ai=intern(receipt["principal_ai"]),
        recipient_ai=intern(str(receipt.get("recipient_ai"))),
        status=intern(str(receipt.get("status"))),
        stored_at=datetime.fromisoformat(receipt["stored_at"]),
        position=int(receipt["position"]),
        cause=text_or_none(receipt.get("caused_by_receipt_id")),
        parent=text_or_none(receipt.get("parent_task_id")),
        task_type=text_or_none(receipt.get("task_type")),
        attempt=attempt if isinstance(attempt, int) else None,
        body=kept or _NOTHING,
        usage=usage if isinstance(usage, Mapping) and receipt["phase"] == "complete" else None,
    )


def mapping(value: object) -> Mapping[str, Any]:
    """An object, or an empty one: emitters may write any JSON into a body."""
    return value if isinstance(value, Mapping) else _NOTHING


def text_or_none(value: object) -> str | None:
    return None if value in {None, "", "NA"} else str(value)


@dataclass(frozen=True, slots=True)
class PolicyLimits:
    """What a PolicyProfile permits of a tree of requests; None: no limit."""

    policy_hash: str
    depth: int | None
    descendants: int | None


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What is known of the tenant besides its receipts. Rules that need what is not known are silent."""

    now: datetime
    types: Mapping[str, str] = field(default_factory=dict)
    """Types of principals by their names."""
    policies: Mapping[str, PolicyLimits] = field(default_factory=dict)
    """By the names of PolicyProfiles."""
    unattended: timedelta = timedelta(days=3)
    """How long an obligation may be open with nobody."""


@dataclass(slots=True)
class CustodyRecord:
    """One obligation, as the receipts of its task tell it."""

    obligation_id: str
    task_id: str
    opened: ReceiptFacts | None = None
    custodian: str | None = None
    custody_since: datetime | None = None
    end: ReceiptFacts | None = None

    @property
    def state(self) -> str | None:
        """As the ledger says it: `open`, or how it ended; None: nobody opened it."""
        if self.opened is None:
            return None
        return "open" if self.end is None else self.end.status

    @property
    def escalated(self) -> bool:
        return self.opened is not None and self.custodian != self.opened.recipient_ai


@dataclass
class RootReceipts:
    """The receipts of one root, in the order of its chain."""

    root_task_id: str
    receipts: Sequence[ReceiptFacts]

    @cached_property
    def by_id(self) -> Mapping[str, ReceiptFacts]:
        return {receipt.receipt_id: receipt for receipt in self.receipts}

    @cached_property
    def by_task(self) -> Mapping[str, Sequence[ReceiptFacts]]:
        tasks: defaultdict[str, list[ReceiptFacts]] = defaultdict(list)
        for receipt in self.receipts:
            tasks[receipt.task_id].append(receipt)
        return tasks

    @cached_property
    def custody(self) -> Mapping[str, CustodyRecord]:
        """Obligations by their ids. What repeats or contradicts an earlier receipt changes nothing, as there."""
        records: dict[str, CustodyRecord] = {}
        for receipt in self.receipts:
            if receipt.kind != "obligation":
                continue
            record = records.setdefault(receipt.obligation_id, CustodyRecord(receipt.obligation_id, receipt.task_id))
            if receipt.phase == "accepted" and record.opened is None:
                record.opened = receipt
                record.custodian, record.custody_since = receipt.recipient_ai, receipt.stored_at
            elif receipt.phase == "escalate" and record.end is None:
                record.custodian, record.custody_since = receipt.recipient_ai, receipt.stored_at
            elif receipt.phase == "complete" and record.end is None:
                record.end = receipt
        return records

    @cached_property
    def acknowledged(self) -> Mapping[str, ReceiptFacts]:
        """AsyncGate's acknowledgement of each task that it took."""
        return {
            receipt.task_id: receipt
            for receipt in reversed(self.receipts)
            if receipt.emitter == ASYNCGATE and receipt.what == "obligation/accepted"
        }

    def authority(self, task_id: str) -> Authority:
        """What the task may do beyond itself; what cannot be read is denied."""
        acknowledgement = self.acknowledged.get(task_id)
        return NOTHING if acknowledgement is None else authority_of(acknowledgement.body.get("authority"))

    def cause_of(self, receipt: ReceiptFacts) -> ReceiptFacts | None:
        """Its cause, where that is of the same root."""
        return None if receipt.cause is None else self.by_id.get(receipt.cause)


def authority_of(value: object) -> Authority:
    parsed = parse_authority(value)
    return parsed if isinstance(parsed, Authority) else NOTHING


def is_custodial(receipt: ReceiptFacts) -> bool:
    return receipt.kind in CUSTODIAL
