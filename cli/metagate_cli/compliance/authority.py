"""Whether work stayed within the authority of its task (INV-124): models, tools, sinks, counts, spawning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import (
    ASYNCGATE,
    DEPOTGATE,
    INTERROGATE,
    ReceiptFacts,
    RootReceipts,
    TenantFacts,
    authority_of,
    mapping,
)
from metagate_crds.authority import Authority, Cognition, exceeded

_SECONDS_GRACE: Final = 10.0
"""An end is written after the clock of the work was read: so much more than granted is no finding."""
_LEASED_ROLES: Final = frozenset({"output", "supporting"})


def usage_beyond_authority(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """What the end of a task says that it used: model, tools, calls, tokens, seconds."""
    for receipt in root.receipts:
        if receipt.emitter != ASYNCGATE or receipt.what != "obligation/complete" or receipt.usage is None:
            continue
        authority = root.authority(receipt.task_id)
        for code, detail in (*_model(receipt.usage, authority), *_tools(receipt.usage, authority)):
            yield ComplianceFinding(code, receipt.task_id, detail, receipt.receipt_id)
        for detail in _counts(receipt.usage, authority.cognition or Cognition()):
            yield ComplianceFinding(FindingCode.USAGE_EXCEEDED, receipt.task_id, detail, receipt.receipt_id)


def _model(usage: Mapping[str, Any], authority: Authority) -> Iterator[tuple[FindingCode, str]]:
    models = () if authority.cognition is None else authority.cognition.models
    # An authority names aliases of the Manifest. Where the alias was not written down, the model alone proves nothing
    # against an authority that grants some model.
    alias = usage.get("alias")
    granted = alias in models if alias is not None else bool(models)
    if not granted and usage.get("model") is not None and (_number(usage.get("calls")) or _tokens(usage)):
        name = usage["model"] if alias is None else f"{usage['model']} as {alias}"
        yield FindingCode.MODEL_NOT_GRANTED, f"used the model {name}; its authority has {', '.join(models) or 'none'}"


def _tools(usage: Mapping[str, Any], authority: Authority) -> Iterator[tuple[FindingCode, str]]:
    for tool, calls in mapping(usage.get("tools")).items():
        if _number(calls) and not is_exposed(tool, authority):
            yield FindingCode.TOOL_NOT_GRANTED, f"used the tool {tool}, which its authority does not grant"


def is_exposed(tool: str, authority: Authority) -> bool:
    return any(fnmatchcase(tool, glob) for glob in authority.exposeTools)


def _counts(usage: Mapping[str, Any], granted: Cognition) -> Iterator[str]:
    for name, used, most, grace in (
        ("calls", _number(usage.get("calls")), granted.calls, 0.0),
        ("tokens", _tokens(usage), granted.tokens, 0.0),
        ("seconds", _number(usage.get("seconds")), granted.seconds, _SECONDS_GRACE),
    ):
        if used > grace + (most or 0):
            yield f"used {used:g} {name}; its authority grants {most or 0}"


def _tokens(usage: Mapping[str, Any]) -> float:
    return _number(usage.get("prompt_tokens")) + _number(usage.get("completion_tokens"))


def _number(value: object) -> float:
    """Workers write usages: what is no count is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0.0


def calls_beyond_authority(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """A tool that was called under a lease is one that the lease exposes."""
    for receipt in _admissions(root):
        lease, tool = mapping(receipt.body.get("lease")), mapping(receipt.body.get("tool"))
        if not tool or lease.get("task_id") is None:
            continue
        # The name of a Problemata holds no dot: leases write the tool behind a slash.
        name = str(tool.get("exposed_name")).replace(".", "/", 1)
        if not is_exposed(name, _authority_under(root, lease)):
            detail = f"called the tool {name}, which its authority does not grant"
            yield ComplianceFinding(FindingCode.TOOL_NOT_GRANTED, str(lease["task_id"]), detail, receipt.receipt_id)


def deposits_beyond_authority(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """What a worker deposits goes to a sink of its task, under a lease of it."""
    for receipt in root.receipts:
        role = receipt.body.get("role")
        if receipt.emitter != DEPOTGATE or receipt.phase != "stored" or role not in _LEASED_ROLES:
            continue
        if receipt.task_id not in root.acknowledged:
            continue  # No task of AsyncGate: where leases are not required, anybody's work is deposited without one.
        authority = root.authority(receipt.task_id)
        if receipt.body.get("lease_number") is None:
            reason = f"has {role} that was deposited without a lease"
        elif not authority.writeBeyondReceipts:
            reason = f"has {role}; its authority has no writeBeyondReceipts"
        elif f"depotgate/{role}" not in authority.sinks:
            reason = f"has {role}; its authority has no sink depotgate/{role}"
        else:
            continue
        yield ComplianceFinding(FindingCode.SINK_NOT_GRANTED, receipt.task_id, reason, receipt.receipt_id)


def spawned_beyond_authority(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """INV-127: requests that were admitted under a lease, by number and depth."""
    spawned: Counter[str] = Counter()
    for receipt in _admissions(root):
        lease, derived = mapping(receipt.body.get("lease")), mapping(receipt.body.get("derived"))
        if lease.get("task_id") is None or receipt.parent != lease["task_id"]:
            continue  # A tool call stays in its task: it spawns nothing.
        authority = _authority_under(root, lease)
        spawned[str(lease.get("lease_id"))] += 1
        most = 0 if authority.spawn is None else authority.spawn.max
        if spawned[str(lease.get("lease_id"))] > most:
            detail = f"spawned {receipt.task_id}; its authority grants {most} in all"
            yield ComplianceFinding(FindingCode.DESCENDANTS_EXCEEDED, str(lease["task_id"]), detail, receipt.receipt_id)
        depth = derived.get("depth")
        if isinstance(depth, int) and depth > (authority.maxDepth or 0):
            detail = f"has depth {depth}; the authority of {lease['task_id']} grants {authority.maxDepth or 0}"
            yield ComplianceFinding(FindingCode.DEPTH_EXCEEDED, receipt.task_id, detail, receipt.receipt_id)


def grown_authority(root: RootReceipts, _tenant: TenantFacts) -> Iterator[ComplianceFinding]:
    """A task that another task spawned carries no more than that one."""
    for task_id, acknowledgement in root.acknowledged.items():
        parent = _parent_of(root, task_id, acknowledgement)
        if parent is None:
            continue
        member = exceeded(authority_of(acknowledgement.body.get("authority")), root.authority(parent))
        if member is not None:
            detail = f"carries {member} beyond that of {parent}, which spawned it"
            yield ComplianceFinding(FindingCode.AUTHORITY_GREW, task_id, detail, acknowledgement.receipt_id)


def _parent_of(root: RootReceipts, task_id: str, acknowledgement: ReceiptFacts) -> str | None:
    """The task of AsyncGate below which this one hangs; None: it hangs below none."""
    record = root.custody.get(task_id)
    opened = None if record is None else record.opened
    parent = acknowledgement.parent or (None if opened is None else opened.parent)
    return parent if parent in root.acknowledged else None


def _authority_under(root: RootReceipts, lease: Mapping[str, Any]) -> Authority:
    """As AsyncGate's own receipt says it; the admission's copy only where the task is of another root."""
    task_id = str(lease["task_id"])
    return root.authority(task_id) if task_id in root.acknowledged else authority_of(lease.get("authority"))


def _admissions(root: RootReceipts) -> Iterator[ReceiptFacts]:
    for receipt in root.receipts:
        if receipt.emitter == INTERROGATE and receipt.what == "admission/accepted":
            yield receipt
