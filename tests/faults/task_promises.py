"""The promises of a history of AsyncGate's: what is about tasks and leases, beside what every gate promises (promises.py)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds, FaultFigures, broken_of_any_gate, figures_of_any_gate

_ENDS: Final = ("complete", "escalate")
_LETTERS: Final = {
    "accepted": "a",
    "queued": "q",
    "lease_issued": "l",
    "reassigned": "r",
    "expired": "x",
} | dict.fromkeys(_ENDS, "e")
_LIFE: Final = re.compile(r"aq(lr?x)*(lr?e?)?")
"""One lease after the other, each over before the next is issued, and one end."""


@dataclass(frozen=True, slots=True)
class StoredTaskReceipt:
    """A receipt of AsyncGate. `client`: whom it is about, the holder or the principal; `number`: of the lease."""

    receipt_id: str
    client: str
    task_id: str
    phase: str
    number: int | None = None
    lease_id: str | None = None

    @property
    def tenant(self) -> str:
        return self.client.partition("/")[0]


def lost(history: RequestHistory) -> Iterator[str]:
    """I1: every task, lease and end that was answered is in the ledger, for the same principal, as it was answered."""
    stored = {receipt.receipt_id: receipt for receipt in _stored(history)}
    leases = {receipt.lease_id: receipt for receipt in _stored(history) if receipt.phase == "lease_issued"}
    for call in _answered(history, "enqueue"):
        receipt = stored.get(call.answer["accepted_receipt_id"])
        if receipt is None or (receipt.client, receipt.task_id) != (call.client, call.key):
            yield f"{call.key}: answered as parked by {call.answer['accepted_receipt_id']}, stored is {receipt}"
    for call, lease in _leases(history):
        receipt = leases.get(lease["lease_id"])
        told = (call.client, lease["task_id"], lease["number"])
        if receipt is None or (receipt.client, receipt.task_id, receipt.number) != told:
            yield f"{call.key}: answered with lease {lease}, stored is {receipt}"
    for call in _answered(history, *_ENDS):
        receipt = stored.get(call.answer["receipt_id"])
        issued = leases.get(call.key)
        if receipt is None or issued is None:
            yield f"{call.key}: answered as ended by {call.answer['receipt_id']}, stored is {receipt}"
        elif (receipt.phase, receipt.client, receipt.number) != (call.operation, call.client, issued.number):
            yield f"{call.key}: {call.client} ended lease {issued.number} by {call.operation}, stored is {receipt}"


def duplicate(history: RequestHistory) -> Iterator[str]:
    """I2: one acknowledgement and one end of a task, one lease after the other, and the same answer to the same request."""
    tasks: dict[str, list[StoredTaskReceipt]] = defaultdict(list)
    for receipt in _stored(history):
        tasks[receipt.task_id].append(receipt)
    for task_id, receipts in tasks.items():
        if not _LIFE.fullmatch("".join(_LETTERS.get(receipt.phase, "?") for receipt in receipts)):
            yield f"{task_id}: {[receipt.phase for receipt in receipts]}"
        numbers = [receipt.number for receipt in receipts if receipt.phase == "lease_issued"]
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"{task_id}: leases {numbers}"
    answers: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for call in _answered(history, "enqueue", *_ENDS):
        answers[call.operation, call.client, call.key].add(
            str(call.answer.get("receipt_id") or call.answer["accepted_receipt_id"])
        )
    for call, lease in _leases(history):
        answers[call.operation, call.client, call.key].add(lease["lease_id"])
    for (operation, client, key), ids in answers.items():
        if len(ids) > 1:
            yield f"{operation} {client} {key}: answered by {len(ids)} receipts"


def foreign(history: RequestHistory) -> Iterator[str]:
    """I7: nobody is given a task of another tenant."""
    owners = {receipt.task_id: receipt.tenant for receipt in _stored(history)}
    for call, lease in _leases(history):
        owner = owners.get(lease["task_id"], call.tenant)
        if owner != call.tenant:
            yield f"{call.key}: {call.tenant} was given a task of {owner}"


def leased_to_strangers(history: RequestHistory) -> Iterator[str]:
    """I6: who may not lease is given none."""
    for call in history.calls:
        if call.operation == "stranger" and call.answer.get("leases"):
            yield f"a stranger ({call.key}) was given {call.answer['leases']}"


def broken(history: RequestHistory, bounds: Bounds) -> dict[str, list[str]]:
    """What broke each promise; a promise that held is not in it."""
    own = {"I1": lost(history), "I2": duplicate(history), "I7": foreign(history)}
    result = broken_of_any_gate(history, bounds, own)
    if strangers := list(leased_to_strangers(history)):
        result["I6"] = [*result.get("I6", []), *strangers]
    return result


def figures(history: RequestHistory) -> FaultFigures:
    acked = [call for call in history.calls if call.operation in {"enqueue", "lease", *_ENDS} and call.acked]
    heard = {call.answer["receipt_id"] for call in _answered(history, *_ENDS) if not call.answer["replayed"]}
    heard |= {
        call.answer["accepted_receipt_id"] for call in _answered(history, "enqueue") if not call.answer["replayed"]
    }
    return figures_of_any_gate(
        history,
        acked=len(acked),
        lost=len(list(lost(history))),
        duplicate=len(list(duplicate(history))),
        unacked=sum(
            receipt.receipt_id not in heard for receipt in _stored(history) if receipt.phase in {"accepted", *_ENDS}
        ),
        replayed=sum(bool(call.answer.get("replayed")) for call in acked),
    )


def _stored(history: RequestHistory) -> Sequence[StoredTaskReceipt]:
    return history.stored  # type: ignore[return-value]


def _answered(history: RequestHistory, *operations: str) -> list[RecordedCall]:
    return [call for call in history.calls if call.operation in operations and call.acked]


def _leases(history: RequestHistory) -> Iterator[tuple[RecordedCall, dict[str, Any]]]:
    for call in _answered(history, "lease"):
        for lease in call.answer["leases"]:
            yield call, lease
