"""The story of a task, from its receipts alone: their causal order, why each was written, and what is missing.

Receipts are mappings, as the ledger sends them. Everything here is pure: `legivellum explain` reads them over HTTP, the
ledger's console from its database, and both tell the same story.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from legivellum.receipts.chain import ChainFollower

_RENEWED: Final = timedelta(days=1)
_ENDS: Final = frozenset({"complete", "escalate"})
_LEASE_ENDS: Final = _ENDS | {"queued", "expired", "revoked", "reassigned"}

ReceiptDocument = Mapping[str, Any]


@dataclass(slots=True)
class TaskStory:
    """The receipts of one tree, in the order of their causes. `open_with`: custodians by obligation."""

    receipts: list[ReceiptDocument]
    open_with: Mapping[str, str] = field(default_factory=dict)
    dangling: Sequence[str] = ()
    """Causes that the ledger does not have."""

    @property
    def gaps(self) -> list[str]:
        gaps = [f"the cause {cause} is not in the ledger" for cause in self.dangling]
        gaps += [f"the chain is broken before {receipt_id}" for receipt_id in chain_breaks(self.receipts)]
        return gaps + [f"the lease {number} of {task} has no end" for task, number in endless_leases(self.receipts)]


class TaskStep(NamedTuple):
    """The receipts of one task as one line. `open_with` is None where the task waits for nobody; `end` is its last
    receipt that ends or moves custody.
    """

    task_id: str
    receipts: Sequence[ReceiptDocument]
    open_with: str | None
    end: ReceiptDocument | None

    @property
    def state(self) -> str:
        if self.open_with is not None:
            return f"open with {self.open_with}"
        return "-" if self.end is None else str(self.end["status"])

    @property
    def leases(self) -> int:
        return sum(receipt["phase"] == "lease_issued" for receipt in self.receipts)


def cause_of(receipt: ReceiptDocument) -> str | None:
    cause = receipt.get("caused_by_receipt_id")
    return None if cause in {None, "", "NA"} else str(cause)


def in_causal_order(receipts: Sequence[ReceiptDocument]) -> list[ReceiptDocument]:
    """Each behind its cause, and where causes leave it open by the ledger's time. Cycles are broken by time."""
    by_time = sorted(receipts, key=lambda receipt: (receipt["stored_at"], receipt["receipt_id"]))
    here = {receipt["receipt_id"] for receipt in by_time}
    effects: defaultdict[str, list[ReceiptDocument]] = defaultdict(list)
    for receipt in by_time:
        if (cause := cause_of(receipt)) in here:
            effects[str(cause)].append(receipt)
    ordered: dict[str, ReceiptDocument] = {}
    for receipt in by_time:
        waiting = [receipt] if cause_of(receipt) not in here else []
        while waiting:
            item = waiting.pop()
            if item["receipt_id"] not in ordered:
                ordered[item["receipt_id"]] = item
                waiting += reversed(effects[item["receipt_id"]])
    return [*ordered.values(), *(receipt for receipt in by_time if receipt["receipt_id"] not in ordered)]


def chain_breaks(receipts: Iterable[ReceiptDocument]) -> list[str]:
    """Receipts that do not follow the receipt before them in their chain: one was removed, altered or put in between.

    `receipts` hold a chain from its beginning on. Those without a place in a chain are left out.
    """
    chained = sorted(
        (item for item in receipts if "chain_sha256" in item),
        key=lambda item: (item["root_task_id"], item["position"]),
    )
    followers: defaultdict[str, ChainFollower] = defaultdict(ChainFollower)
    return [
        str(receipt["receipt_id"])
        for receipt in chained
        if followers[receipt["root_task_id"]].defect(receipt) is not None
    ]


def endless_leases(receipts: Iterable[ReceiptDocument], now: datetime | None = None) -> list[tuple[str, int]]:
    """Tasks and numbers of leases whose time is over and whose end nobody recorded."""
    # Renewals leave no receipt: a lease may live long behind the time that its receipt names.
    moment = ((now or datetime.now(UTC)) - _RENEWED).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    leased: dict[str, tuple[int, str]] = {}
    for receipt in sorted(receipts, key=lambda receipt: str(receipt["stored_at"])):
        task = str(receipt["task_id"])
        if receipt["phase"] == "lease_issued":
            body = receipt.get("body") or {}
            leased[task] = (int(receipt.get("attempt") or 0), str(body.get("expires_at") or ""))
        elif receipt["phase"] in _LEASE_ENDS and receipt["emitter"] == "svc:asyncgate":
            leased.pop(task, None)
    return [(task, number) for task, (number, expires_at) in leased.items() if expires_at < moment]


def task_steps(story: TaskStory) -> list[TaskStep]:
    """The story by task, in the order in which they were begun."""
    by_task: defaultdict[str, list[ReceiptDocument]] = defaultdict(list)
    for receipt in story.receipts:
        by_task[str(receipt["task_id"])].append(receipt)
    steps = []
    for task, receipts in by_task.items():
        ends = [receipt for receipt in receipts if receipt["kind"] == "obligation" and receipt["phase"] in _ENDS]
        custodians = [custodian for item, custodian in story.open_with.items() if _is_of(item, task)]
        last = max(ends, key=lambda receipt: str(receipt["stored_at"]), default=None)
        steps.append(TaskStep(task, receipts, custodians[0] if custodians else None, last))
    return steps


def _is_of(obligation: str, task: str) -> bool:
    return obligation == task or obligation.startswith(f"{task}:")


class Usage(NamedTuple):
    calls: int
    tokens: int


def total_usage(receipts: Iterable[ReceiptDocument]) -> Usage:
    """Calls and tokens of usages, as far as they are counts."""
    calls = tokens = 0
    for receipt in receipts:
        usage = (receipt.get("metadata") or {}).get("usage")
        if isinstance(usage, Mapping):
            calls += _count(usage.get("calls"))
            tokens += _count(usage.get("prompt_tokens")) + _count(usage.get("completion_tokens"))
    return Usage(calls, tokens)


def cost(receipts: Iterable[ReceiptDocument]) -> str:
    """Calls and tokens as words; `-` where nothing was reported."""
    calls, tokens = total_usage(receipts)
    return f"{calls:,} calls, {tokens:,} tokens" if calls or tokens else "-"


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0


def why(receipt: ReceiptDocument, receipts: Sequence[ReceiptDocument]) -> str:
    """What the receipt says of its reason: needs, rule and counters, approver, outcome."""
    body = receipt.get("body") if isinstance(receipt.get("body"), Mapping) else {}
    assert isinstance(body, Mapping)
    metadata = receipt.get("metadata") or {}
    phase = receipt["phase"]
    if receipt["kind"] == "admission" and phase in {"accepted", "rejected"}:
        return _admission(body)
    if phase == "lease_issued":
        names = {item["receipt_id"]: item["task_id"] for item in receipts}
        needs = ", ".join(str(names.get(need, need)) for need in body.get("evidence") or ())
        return f"lease {receipt.get('attempt')} to {receipt['recipient_ai']}{f', needs {needs}' if needs else ''}"
    if receipt["kind"] == "artifact":
        return f"{body.get('role')}, {receipt.get('artifact_size_bytes')} bytes"
    if phase == "escalate":
        return f"{receipt.get('escalation_reason')}, to {receipt['recipient_ai']}"
    if phase == "complete":
        parts = (receipt["status"], metadata.get("reason"), metadata.get("plan_digest"))
        return ", ".join(str(part) for part in parts if part)
    return f"for {receipt['recipient_ai']}" if phase == "accepted" and receipt["kind"] == "obligation" else ""


def _admission(body: Mapping[str, Any]) -> str:
    derived = body.get("derived") if isinstance(body.get("derived"), Mapping) else {}
    observed = body.get("observed") if isinstance(body.get("observed"), Mapping) else {}
    assert isinstance(derived, Mapping)
    assert isinstance(observed, Mapping)
    profile = f"{body.get('policy_profile_id')}/{body.get('surface_id')}"
    if body.get("outcome") == "ALLOW":
        return f"admitted by {profile}, depth {derived.get('depth')}, descendants {observed.get('descendants')}"
    return f"{body.get('reason_code')} by {profile}: {body.get('detail')}"
