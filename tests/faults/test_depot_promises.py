"""The checker of DepotGate's histories: a good one keeps every promise, and each promise has one that it rejects."""

from dataclasses import replace
from typing import Any

import pytest
from tests.faults.depot_promises import StoredDeposit, broken, figures
from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds

ALICE, BOB = "11111111/alice", "22222222/bob"
SHA = "a" * 64
POINTER, OTHERS = f"depot:A1:{SHA}", f"depot:B1:{'b' * 64}"


def call(operation: Any, client: str, key: str, at: float, **answer: Any) -> RecordedCall:
    return RecordedCall(operation, client, key, at, at + 0.01, 200, {"replayed": False, **answer})


DEPOSIT = call("deposit", ALICE, "A1", 0.0, receipt_id="r1", pointer=POINTER, artifact_id="A1", sha256=SHA)
READ = call("read", ALICE, "A1", 2.5, sha256=SHA)
CALLS = [
    DEPOSIT,
    RecordedCall("deposit", BOB, "B1", 1.0, 1.4, 503, {"code": "UNAVAILABLE", "retry_after": 2}),
    RecordedCall("stranger", BOB, "no key", 1.1, 1.2, 401, {"code": "CREDENTIAL_MISSING", "replayed": False}),
    READ,
    call("deposit", BOB, "B1", 2.6, receipt_id="r2", pointer=OTHERS, artifact_id="B1", sha256="b" * 64),
    call("manifests", ALICE, "", 3.0, pointers=[POINTER]),
]
STORED = [StoredDeposit("r1", ALICE, POINTER, SHA), StoredDeposit("r2", BOB, OTHERS, "b" * 64)]
GOOD = RequestHistory(
    calls=CALLS,
    stored=STORED,  # type: ignore[arg-type]
    fault=(0.9, 2.0),
    output={"the log": "a request was refused"},
    secrets=["mgk_very_secret"],
)


def calling(*more: RecordedCall) -> RequestHistory:
    return replace(GOOD, calls=[*CALLS, *more])


def storing(*stored: StoredDeposit) -> RequestHistory:
    return replace(GOOD, stored=stored)  # type: ignore[arg-type]


def test_a_good_history_keeps_every_promise() -> None:
    assert broken(GOOD, Bounds()) == {}
    counted = figures(GOOD)
    assert (counted.acked, counted.refused, counted.lost, counted.duplicate) == (3, 1, 0, 0)
    assert (counted.unacked, counted.replayed) == (0, 0)


@pytest.mark.parametrize(
    ("promise", "history"),
    [
        ("I1", storing(STORED[1])),
        ("I1", storing(replace(STORED[0], client=BOB), STORED[1])),
        ("I1", storing(replace(STORED[0], digest=None), STORED[1])),
        ("I1", storing(replace(STORED[0], digest="c" * 64), STORED[1])),
        ("I1", calling(replace(READ, answer={"sha256": "c" * 64}))),
        ("I2", storing(*STORED, replace(STORED[0], receipt_id="r3"))),
        ("I2", calling(replace(DEPOSIT, start=3.0, end=3.1, answer={**DEPOSIT.answer, "receipt_id": "r2"}))),
        ("I4", calling(replace(READ, start=3.0, end=4.0))),
        ("I6", calling(replace(DEPOSIT, operation="stranger"))),
        ("I7", calling(call("manifests", ALICE, "", 3.1, pointers=[OTHERS]))),
        ("I10", replace(GOOD, output={"the log": "key mgk_very_secret"})),
    ],
    ids=[
        "a receipt lost", "another depositor's", "no bytes", "other bytes", "a read of other bytes", "two receipts",
        "two answers", "late", "taken from a stranger", "another tenant's", "a key in the log",
    ],
)  # fmt: skip
def test_a_broken_promise_is_noticed(promise: str, history: RequestHistory) -> None:
    assert promise in broken(history, Bounds())
