"""The promises of a history of InterroGate's: what is about decisions, beside what every gate promises (promises.py)."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds, FaultFigures, broken_of_any_gate, figures_of_any_gate


@dataclass(frozen=True, slots=True)
class StoredAdmission:
    """An admission receipt. `key`: the task that was asked for, which is the request's idempotency key too."""

    receipt_id: str
    client: str
    key: str
    outcome: str


def lost(history: RequestHistory) -> Iterator[str]:
    """I1: every decision that was answered is in the ledger, for the same principal and task, as it was answered."""
    stored = {admission.receipt_id: admission for admission in history.stored}
    for call in _decisions(history):
        admission = stored.get(call.answer["receipt_id"])
        if admission is None:
            yield f"{call.key}: answered as {call.answer['receipt_id']}, and not stored"
        elif (admission.client, admission.key) != (call.client, call.key):
            yield f"{call.key}: stored for {admission.client} and {admission.key}, not for {call.client}"
        elif admission.outcome != call.answer["outcome"]:
            yield f"{call.key}: answered {call.answer['outcome']}, stored {admission.outcome}"


def duplicate(history: RequestHistory) -> Iterator[str]:
    """I2: one receipt for each request, however often it was sent, and the same one in every answer."""
    receipts = Counter((admission.client, admission.key) for admission in history.stored)
    for (client, key), count in receipts.items():
        if count > 1:
            yield f"{client} {key}: {count} receipts"
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in _decisions(history):
        answers[call.client, call.key].add(call.answer["receipt_id"])
    for (client, key), ids in answers.items():
        if len(ids) > 1:
            yield f"{client} {key}: answered by {len(ids)} receipts"


def foreign(history: RequestHistory) -> Iterator[str]:
    """I7: nobody is answered with another tenant's decision."""
    owners = {admission.receipt_id: admission.client.partition("/")[0] for admission in history.stored}
    for call in _decisions(history):
        owner = owners.get(call.answer["receipt_id"], call.tenant)
        if owner != call.tenant:
            yield f"{call.key}: {call.tenant} was answered with a decision of {owner}"


def broken(history: RequestHistory, bounds: Bounds) -> dict[str, list[str]]:
    """What broke each promise; a promise that held is not in it."""
    own = {"I1": lost(history), "I2": duplicate(history), "I7": foreign(history)}
    return broken_of_any_gate(history, bounds, own)


def figures(history: RequestHistory) -> FaultFigures:
    heard = {call.answer["receipt_id"] for call in _decisions(history) if not call.answer["replayed"]}
    return figures_of_any_gate(
        history,
        acked=len(_decisions(history)),
        lost=len(list(lost(history))),
        duplicate=len(list(duplicate(history))),
        unacked=sum(admission.receipt_id not in heard for admission in history.stored),
        replayed=sum(call.answer["replayed"] for call in _decisions(history)),
    )


def _decisions(history: RequestHistory) -> list[RecordedCall]:
    return [call for call in history.calls if call.operation == "evaluate" and "receipt_id" in call.answer]
