"""The receipts that the demo leaves in the ledger, and how a ledger differs from them (CO-01).

Two documents are deposited, a review of them is asked for over MCP, and a plan of four tasks does it. Nothing else may
have happened: one receipt too many is a difference like one that is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Receipt = Mapping[str, Any]
READS: Final = ("read-0", "read-1")
STEPS: Final = (*READS, "merge", "close")
_CLOSE: Final = "P.close"


@dataclass(frozen=True, slots=True, order=True)
class ReceiptLine:
    """What two receipts have in common that say the same of two runs. `P` stands for the plan's id."""

    emitter: str
    kind: str
    phase: str
    task: str
    obligation: str

    def __str__(self) -> str:
        about = self.task if self.task == self.obligation else f"{self.task} ({self.obligation})"
        return f"{self.emitter} {self.kind}/{self.phase} of {about}"


CausedLine = tuple[ReceiptLine, ReceiptLine | None]
"""A receipt and its cause; None: it has none."""


def _lines() -> Iterator[CausedLine]:
    """The table, in the order in which its rows are caused."""
    asked = ReceiptLine("svc:interrogate", "admission", "accepted", "P", "P")
    whole = ReceiptLine("delegate", "obligation", "accepted", "P", "P")
    planning = ReceiptLine("delegate", "obligation", "accepted", "P", "P:planning")
    plan = ReceiptLine("svc:depotgate", "artifact", "stored", "P", "P")
    plan_receipt = ReceiptLine("delegate", "obligation", "complete", "P", "P:planning")
    yield from ((asked, None), (whole, asked), (planning, whole), (plan, planning), (plan_receipt, plan))
    for step in STEPS:
        yield from _dispatched(f"P.{step}", plan_receipt)
    for step in (*READS, "merge"):
        task, lease = f"P.{step}", _lease(f"P.{step}")
        yield ReceiptLine("svc:depotgate", "artifact", "stored", task, task), lease
        yield _complete(task), lease
    yield ReceiptLine("delegate", "obligation", "complete", "P", "P"), _complete("P.merge")
    yield _complete(_CLOSE), _lease(_CLOSE)


def _dispatched(task: str, plan_receipt: ReceiptLine) -> Iterator[CausedLine]:
    """A task from its admission to its lease."""
    admitted = ReceiptLine("svc:interrogate", "admission", "accepted", task, task)
    minted = ReceiptLine("delegate", "obligation", "accepted", task, task)
    acknowledged = ReceiptLine("svc:asyncgate", "obligation", "accepted", task, task)
    queued = ReceiptLine("svc:asyncgate", "lifecycle", "queued", task, task)
    yield from (
        (admitted, plan_receipt),
        (minted, admitted),
        (acknowledged, minted),
        (queued, acknowledged),
        (_lease(task), queued),
    )


def _lease(task: str) -> ReceiptLine:
    return ReceiptLine("svc:asyncgate", "lifecycle", "lease_issued", task, task)


def _complete(task: str) -> ReceiptLine:
    return ReceiptLine("svc:asyncgate", "obligation", "complete", task, task)


EXPECTED: Final[Sequence[CausedLine]] = tuple(_lines())
"""The 33 receipts of the plan's tree; the two inputs are roots of their own."""


def caused_lines(receipts: Iterable[Receipt], plan_id: str) -> list[CausedLine]:
    """The receipts of a tree as lines of the table, in their order."""
    by_id = {str(receipt["receipt_id"]): receipt for receipt in receipts}
    return [(_line(receipt, plan_id), _cause(receipt, by_id, plan_id)) for receipt in by_id.values()]


def _line(receipt: Receipt, plan_id: str) -> ReceiptLine:
    names = (str(receipt[name]) for name in ("emitter", "kind", "phase"))
    ids = (str(receipt[name]).replace(plan_id, "P") for name in ("task_id", "obligation_id"))
    return ReceiptLine(*names, *ids)


def _cause(receipt: Receipt, by_id: Mapping[str, Receipt], plan_id: str) -> ReceiptLine | None:
    cause = str(receipt.get("caused_by_receipt_id") or "NA")
    if cause == "NA":
        return None
    known = by_id.get(cause)
    return ReceiptLine("?", "?", "?", cause, cause) if known is None else _line(known, plan_id)


def differences(receipts: Sequence[Receipt], inputs: Sequence[Receipt], plan_id: str) -> list[str]:
    """What is not as the table has it, a line each. `receipts`: of the plan's tree, `inputs`: those of the inputs."""
    problems = [*_counted(caused_lines(receipts, plan_id)), *_input_problems(inputs, plan_id)]
    return problems or [*_end_problems(receipts, plan_id), *_need_problems(receipts, plan_id)]


def _counted(lines: Sequence[CausedLine]) -> Iterator[str]:
    wanted, there = Counter(EXPECTED), Counter(lines)
    missing, surplus = wanted - there, there - wanted
    for line, cause in missing.elements():
        others = [other for other in surplus if other[0] == line]
        if others:
            surplus.subtract([others[0]])
            surplus = +surplus
            yield f"{line}: is caused by {others[0][1] or 'nothing'}, and not by {cause or 'nothing'}"
        else:
            yield f"{line}: is missing"
    for line, cause in surplus.elements():
        yield f"{line}: is one too many, caused by {cause or 'nothing'}"


def _input_problems(inputs: Sequence[Receipt], plan_id: str) -> Iterator[str]:
    """Each input is one receipt, `artifact/stored`, a root without a cause."""
    for receipt in inputs:
        line, cause = _line(receipt, plan_id), receipt.get("caused_by_receipt_id") or "NA"
        if (line.emitter, line.kind, line.phase, cause) != ("svc:depotgate", "artifact", "stored", "NA"):
            yield f"{line}: is no input that was deposited"
        if receipt.get("root_task_id", receipt["task_id"]) != receipt["task_id"]:
            yield f"{line}: is no root"
    if len(inputs) != len(READS):
        yield f"the inputs have {len(inputs)} receipts, and not {len(READS)}"


def _end_problems(receipts: Sequence[Receipt], plan_id: str) -> Iterator[str]:
    """The end of the plan is a success and names the artifact of the last step."""
    found = {_line(receipt, plan_id): receipt for receipt in receipts}
    end = found[ReceiptLine("delegate", "obligation", "complete", "P", "P")]
    merged = found[ReceiptLine("svc:depotgate", "artifact", "stored", "P.merge", "P.merge")]
    for line, receipt in found.items():
        if line.phase == "complete" and receipt["status"] != "success":
            yield f"{line}: is {receipt['status']}, and not success"
    if end["artifact_pointer"] != merged["artifact_pointer"]:
        yield f"the plan ended with {end['artifact_pointer']}, and not with {merged['artifact_pointer']}"


def _need_problems(receipts: Sequence[Receipt], plan_id: str) -> Iterator[str]:
    """A lease names the ends of what its task needed."""
    found = {_line(receipt, plan_id): receipt for receipt in receipts}
    needs = {"P.merge": [f"P.{step}" for step in READS], _CLOSE: ["P.merge"]}
    for task, needed in needs.items():
        ends = {found[_complete(need)]["receipt_id"] for need in needed}
        if not ends <= _named(found[_lease(task)]["body"]):
            yield f"{_lease(task)}: does not name the ends of {', '.join(needed)}"


def _named(value: Any) -> set[str]:
    """Every text in a body."""
    if isinstance(value, Mapping):
        return set[str]().union(*map(_named, value.values()))
    if isinstance(value, list):
        return set[str]().union(*map(_named, value))
    return {value} if isinstance(value, str) else set()
