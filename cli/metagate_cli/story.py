"""`legivellum explain`: what happened around a task and why, from receipts alone, and what is open or missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, stop_for
from metagate_cli.gate_addresses import MetaGateUrl, MyKeyFile, MyTokenFile, Packet, TenantGates
from metagate_cli.output import NO_LIMIT, OutputFormat, OutputOption, safe_text, structured, table
from metagate_cli.terminal import FAILURE, Stop, print_note

_LOOKUP: Final = 256
_RENEWED: Final = timedelta(days=1)
_ENDS: Final = frozenset({"complete", "escalate"})
_LEASE_ENDS: Final = _ENDS | {"queued", "expired", "revoked", "reassigned"}

Task = Annotated[str, typer.Argument(metavar="TASK", help="A task or plan: its whole tree is explained.")]
Fold = Annotated[bool, typer.Option("--fold", help="A line for each task instead of each receipt.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of a cluster-wide admin or observer: whose.")]
Receipt = Mapping[str, Any]


@dataclass(slots=True)
class TaskStory:
    """The receipts of one tree, in the order of their causes. `open_with`: custodians by obligation."""

    receipts: list[Receipt]
    open_with: Mapping[str, str] = field(default_factory=dict)
    dangling: Sequence[str] = ()
    """Causes that the ledger does not have."""

    @property
    def gaps(self) -> list[str]:
        gaps = [f"the cause {cause} is not in the ledger" for cause in self.dangling]
        return gaps + [f"the lease {number} of {task} has no end" for task, number in endless_leases(self.receipts)]


def explain(
    task: Task,
    fold: Fold = False,
    url: MetaGateUrl = None,
    key_file: MyKeyFile = None,
    token_file: MyTokenFile = None,
    ca_file: CaFile = None,
    packet: Packet = None,
    tenant: Tenant = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Tell a task's story: who did what and why, what it cost, what is open and with whom.

    Exit code 1 when something is missing.
    """
    ledger = TenantGates(url, key_file, token_file, ca_file, packet).client("memorygate")
    try:
        story = read_story(ledger, task, tenant)
    except ApiError as error:
        raise stop_for(error, task) from error
    if not story.receipts:
        raise Stop(f"{safe_text(task)}: there is no receipt of it", code=FAILURE)
    show_story(story, output, fold=fold)
    if story.gaps:
        raise typer.Exit(FAILURE)


def read_story(ledger: ApiClient, task: str, tenant: str | None = None) -> TaskStory:
    """Raises ApiError, Stop."""
    receipts = in_causal_order(list(ledger.items(f"/receipts/root/{task}", tenant=tenant)))
    known = {receipt["receipt_id"] for receipt in receipts}
    causes = dict.fromkeys(_cause(receipt) for receipt in receipts)
    dangling = [cause for cause in causes if cause and cause not in known and not _exists(ledger, cause, tenant)]
    obligations = list(dict.fromkeys(str(item["obligation_id"]) for item in receipts if item["kind"] == "obligation"))
    open_with = {}
    for start in range(0, len(obligations), _LOOKUP):
        body = {"obligation_ids": obligations[start : start + _LOOKUP]}
        for item in ledger.post("/v1/obligations/lookup", body, tenant=tenant)["items"]:
            if item["state"] == "open":
                open_with[item["obligation_id"]] = item["custodian"]
    return TaskStory(receipts, open_with, dangling)


def _exists(ledger: ApiClient, receipt_id: str, tenant: str | None) -> bool:
    """A cause may be of another tree: what a person asked before."""
    try:
        ledger.get(f"/receipts/{receipt_id}", tenant=tenant)
    except ApiError as error:
        if error.code != "NOT_FOUND":
            raise
        return False
    return True


def _cause(receipt: Receipt) -> str | None:
    cause = receipt.get("caused_by_receipt_id")
    return None if cause in {None, "", "NA"} else str(cause)


def in_causal_order(receipts: Sequence[Receipt]) -> list[Receipt]:
    """Each behind its cause, and where causes leave it open by the ledger's time. Cycles are broken by time."""
    by_time = sorted(receipts, key=lambda receipt: (receipt["stored_at"], receipt["receipt_id"]))
    here = {receipt["receipt_id"] for receipt in by_time}
    effects: defaultdict[str, list[Receipt]] = defaultdict(list)
    for receipt in by_time:
        if (cause := _cause(receipt)) in here:
            effects[str(cause)].append(receipt)
    ordered: dict[str, Receipt] = {}
    for receipt in by_time:
        waiting = [receipt] if _cause(receipt) not in here else []
        while waiting:
            item = waiting.pop()
            if item["receipt_id"] not in ordered:
                ordered[item["receipt_id"]] = item
                waiting += reversed(effects[item["receipt_id"]])
    return [*ordered.values(), *(receipt for receipt in by_time if receipt["receipt_id"] not in ordered)]


def endless_leases(receipts: Iterable[Receipt], now: datetime | None = None) -> list[tuple[str, int]]:
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


def show_story(story: TaskStory, output: OutputFormat, *, fold: bool) -> None:
    if output.structured:
        print(structured(_document(story), output))
        return
    headings = ("TASK", "STATE", "LEASES", "WHY", "COST") if fold else ("TIME", "BY", "WHAT", "TASK", "WHY", "COST")
    rows = folded_rows(story) if fold else [receipt_row(receipt, story.receipts) for receipt in story.receipts]
    print(table(headings, rows, NO_LIMIT if output is OutputFormat.WIDE else None))
    for obligation, custodian in story.open_with.items():
        print(f"open: {safe_text(obligation)} with {safe_text(custodian)}")
    for gap in story.gaps:
        print_note(f"missing: {safe_text(gap)}")


def _document(story: TaskStory) -> dict[str, Any]:
    lines = [
        {
            **{name: receipt[name] for name in ("receipt_id", "stored_at", "emitter", "kind", "phase", "task_id")},
            "obligation_id": receipt["obligation_id"], "caused_by_receipt_id": _cause(receipt),
            "why": why(receipt, story.receipts), "usage": (receipt.get("metadata") or {}).get("usage"),
        }
        for receipt in story.receipts
    ]  # fmt: skip
    return {"receipts": lines, "open": dict(story.open_with), "gaps": story.gaps}


def receipt_row(receipt: Receipt, receipts: Sequence[Receipt]) -> list[str]:
    what = f"{receipt['kind']} {receipt['phase']}"
    cells = (str(receipt["stored_at"])[11:19], receipt["emitter"], what, receipt["obligation_id"])
    return [*map(safe_text, cells), safe_text(why(receipt, receipts) or "-"), cost((receipt,))]


def folded_rows(story: TaskStory) -> list[list[str]]:
    """By task, in the order in which they were begun."""
    by_task: defaultdict[str, list[Receipt]] = defaultdict(list)
    for receipt in story.receipts:
        by_task[str(receipt["task_id"])].append(receipt)
    rows = []
    for task, receipts in by_task.items():
        ends = [receipt for receipt in receipts if receipt["kind"] == "obligation" and receipt["phase"] in _ENDS]
        custodians = [custodian for item, custodian in story.open_with.items() if _is_of(item, task)]
        last = max(ends, key=lambda receipt: str(receipt["stored_at"]), default=None)
        state = f"open with {custodians[0]}" if custodians else "-" if last is None else str(last["status"])
        leases = sum(receipt["phase"] == "lease_issued" for receipt in receipts)
        reason = None if last is None else why(last, story.receipts)
        rows.append([safe_text(task), safe_text(state), str(leases), safe_text(reason or "-"), cost(receipts)])
    return rows


def _is_of(obligation: str, task: str) -> bool:
    return obligation == task or obligation.startswith(f"{task}:")


def cost(receipts: Iterable[Receipt]) -> str:
    """Calls and tokens of usages, as far as they are counts."""
    calls = tokens = 0
    for receipt in receipts:
        usage = (receipt.get("metadata") or {}).get("usage")
        if isinstance(usage, Mapping):
            calls += _count(usage.get("calls"))
            tokens += _count(usage.get("prompt_tokens")) + _count(usage.get("completion_tokens"))
    return f"{calls:,} calls, {tokens:,} tokens" if calls or tokens else "-"


def _count(value: object) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12 else 0


def why(receipt: Receipt, receipts: Sequence[Receipt]) -> str:
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
