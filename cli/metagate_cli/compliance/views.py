"""Whether what gates show is what receipts say (INV-120): custody, held tasks, artifacts, calls of tools."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from metagate_cli.compliance.findings import ComplianceFinding, FindingCode
from metagate_cli.compliance.receipt_facts import RootReceipts

NameOfReceipt = Callable[[str], str | None]
"""`kind/phase task_id` of a receipt of the ledger; None: it has none of that id."""

_END_PHASES: Final[Mapping[str, str]] = {"returned": "complete", "escalated": "escalate", "revoked": "complete"}
"""How AsyncGate names the end of a task, and the phase of the receipt that says so."""


def custody_view(root: RootReceipts, shown: Mapping[str, Mapping[str, Any]]) -> Iterator[ComplianceFinding]:
    """`shown`: what the ledger answers for obligations of this root, by their ids."""
    for obligation_id, view in shown.items():
        record = root.custody[obligation_id]
        told = (record.state, record.custodian if record.state == "open" else None)
        seen = (view["state"], view["custodian"] if view["state"] == "open" else None)
        if told != seen:
            detail = f"is {_custody(*seen)} as the ledger shows {obligation_id}, and {_custody(*told)} by its receipts"
            yield ComplianceFinding(FindingCode.VIEW_WITHOUT_RECEIPT, record.task_id, detail)


def _custody(state: str | None, custodian: str | None) -> str:
    return "unknown" if state is None else f"open with {custodian}" if custodian else f"over ({state})"


def task_view(task: Mapping[str, Any], name_of: NameOfReceipt) -> Iterator[ComplianceFinding]:
    """A task as AsyncGate shows it: its acknowledgement and its end are receipts."""
    task_id = str(task["task_id"])
    if name_of(task["accepted_receipt_id"]) != f"obligation/accepted {task_id}":
        yield _view(task_id, "AsyncGate shows it, and its acknowledgement is no receipt of the ledger")
    ended = task.get("ended")
    if ended is not None:
        name = name_of(ended["receipt_id"])
        if name != f"obligation/{_END_PHASES.get(ended['how'], '')} {task_id}":
            yield _view(task_id, f"AsyncGate shows it as {ended['how']}, and its end is no receipt of the ledger")


def lease_view(task: Mapping[str, Any], leases: frozenset[int]) -> Iterator[ComplianceFinding]:
    """The lease that AsyncGate shows was issued. `leases`: the numbers of those that receipts of the task name."""
    lease = task.get("lease")
    if lease is not None and lease["number"] not in leases:
        yield _view(str(task["task_id"]), f"AsyncGate shows its lease {lease['number']}, which no receipt issued")


def artifact_view(manifest: Mapping[str, Any], name_of: NameOfReceipt) -> Iterator[ComplianceFinding]:
    """An artifact as DepotGate shows it."""
    name = name_of(manifest["receipt_id"])
    if name is None or not name.startswith("artifact/stored "):
        subject = str(manifest.get("task_id") or manifest["pointer"])
        yield _view(subject, f"DepotGate shows {manifest['pointer']}, which no receipt says was stored")


def call_view(call: Mapping[str, Any], name_of: NameOfReceipt) -> Iterator[ComplianceFinding]:
    """A call of a tool as InterroGate shows it: its decision and its outcome."""
    for member, phases in (
        ("admission_receipt_id", ("accepted", "rejected")),
        ("outcome_receipt_id", ("complete", "escalate")),
    ):
        receipt_id = call.get(member)
        if receipt_id is None:
            continue
        name = name_of(receipt_id)
        if name is None or name.partition(" ")[0] not in {f"admission/{phase}" for phase in phases}:
            yield _view(
                str(call.get("task_id") or receipt_id),
                f"InterroGate shows a call of {call.get('tool')}, whose {member} is no receipt",
            )


def _view(task_id: str, detail: str) -> ComplianceFinding:
    return ComplianceFinding(FindingCode.VIEW_WITHOUT_RECEIPT, task_id, detail)
