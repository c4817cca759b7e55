"""The promises of a history of DepotGate's: what is about artifacts, beside what every gate promises (promises.py)."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds, FaultFigures, broken_of_any_gate, figures_of_any_gate


@dataclass(frozen=True, slots=True)
class StoredDeposit:
    """A receipt `artifact/stored`. `digest`: of the bytes that lie in the store under its key; None: there are none."""

    receipt_id: str
    client: str
    pointer: str
    digest: str | None

    @property
    def tenant(self) -> str:
        return self.client.partition("/")[0]

    @property
    def artifact_id(self) -> str:
        return self.pointer.split(":")[1]

    @property
    def sha256(self) -> str:
        return self.pointer.split(":")[2]


def lost(history: RequestHistory) -> Iterator[str]:
    """I1: every answered deposit has its receipt, for the same depositor; every receipt has its bytes; reads are whole."""
    stored = {receipt.receipt_id: receipt for receipt in _stored(history)}
    for call in _answered(history, "deposit"):
        receipt = stored.get(call.answer["receipt_id"])
        if receipt is None or (receipt.client, receipt.pointer) != (call.client, call.answer["pointer"]):
            yield f"{call.key}: answered as {call.answer}, stored is {receipt}"
    for receipt in _stored(history):
        if receipt.digest != receipt.sha256:
            yield f"{receipt.pointer}: its bytes are {receipt.digest}"
    digests = {receipt.artifact_id: receipt.sha256 for receipt in _stored(history)}
    for call in _answered(history, "read"):
        if call.answer["sha256"] != digests.get(call.key):
            yield f"{call.key}: read {call.answer['sha256']}, stored is {digests.get(call.key)}"


def duplicate(history: RequestHistory) -> Iterator[str]:
    """I2: one receipt of an artifact, and the same answer to each repetition of its deposit."""
    for artifact_id, number in Counter(receipt.artifact_id for receipt in _stored(history)).items():
        if number > 1:
            yield f"{artifact_id}: {number} receipts"
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in _answered(history, "deposit"):
        answers[call.client, call.key].add(call.answer["receipt_id"])
    for (client, key), ids in answers.items():
        if len(ids) > 1:
            yield f"deposit {client} {key}: answered by {len(ids)} receipts"


def foreign(history: RequestHistory) -> Iterator[str]:
    """I7: nobody is shown an artifact of another tenant."""
    owners = {receipt.pointer: receipt.tenant for receipt in _stored(history)}
    for call in _answered(history, "manifests"):
        for pointer in call.answer["pointers"]:
            if owners.get(pointer, call.tenant) != call.tenant:
                yield f"{call.tenant} was shown {pointer} of {owners[pointer]}"


def taken_from_strangers(history: RequestHistory) -> Iterator[str]:
    """I6: from who may not deposit nothing is taken."""
    for call in history.calls:
        if call.operation == "stranger" and call.answer.get("pointer"):
            yield f"from a stranger ({call.key}) {call.answer['pointer']} was taken"


def broken(history: RequestHistory, bounds: Bounds) -> dict[str, list[str]]:
    """What broke each promise; a promise that held is not in it."""
    own = {"I1": lost(history), "I2": duplicate(history), "I7": foreign(history)}
    result = broken_of_any_gate(history, bounds, own)
    if strangers := list(taken_from_strangers(history)):
        result["I6"] = [*result.get("I6", []), *strangers]
    return result


def figures(history: RequestHistory) -> FaultFigures:
    acked = [call for call in history.calls if call.operation in {"deposit", "read"} and call.acked]
    heard = {call.answer["receipt_id"] for call in _answered(history, "deposit") if not call.answer["replayed"]}
    return figures_of_any_gate(
        history,
        acked=len(acked),
        lost=len(list(lost(history))),
        duplicate=len(list(duplicate(history))),
        unacked=sum(receipt.receipt_id not in heard for receipt in _stored(history)),
        replayed=sum(bool(call.answer.get("replayed")) for call in acked),
    )


def _stored(history: RequestHistory) -> Sequence[StoredDeposit]:
    return history.stored  # type: ignore[return-value]


def _answered(history: RequestHistory, *operations: str) -> list[RecordedCall]:
    return [call for call in history.calls if call.operation in operations and call.acked]
