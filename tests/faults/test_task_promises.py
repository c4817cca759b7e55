"""The checker of AsyncGate's histories: a good one keeps every promise, and each promise has one that it rejects."""

from dataclasses import replace
from typing import Any

import pytest
from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds
from tests.faults.task_promises import StoredTaskReceipt, broken, figures

MINTER, WORKER, OTHER = "11111111/minter", "11111111/worker", "22222222/worker"


def call(operation: Any, client: str, key: str, at: float, **answer: Any) -> RecordedCall:
    return RecordedCall(operation, client, key, at, at + 0.01, 200, {"replayed": False, **answer})


def leased(at: float, number: int = 1, *, client: str = WORKER, key: str = "k1", lease_id: str = "L1") -> RecordedCall:
    return call("lease", client, key, at, leases=[{"lease_id": lease_id, "number": number, "task_id": "t1"}])


CALLS = [
    call("enqueue", MINTER, "t1", 0.0, accepted_receipt_id="a1", task_id="t1"),
    leased(0.2),
    RecordedCall("complete", WORKER, "L1", 1.0, 1.4, 503, {"code": "UNAVAILABLE", "retry_after": 2}),
    RecordedCall("complete", WORKER, "L1", 1.5, 1.6, 409, {"code": "LEASE_LOST", "replayed": False}),
    RecordedCall("stranger", MINTER, "no key", 1.1, 1.2, 401, {"code": "CREDENTIAL_MISSING", "replayed": False}),
    leased(2.5, 2, key="k2", lease_id="L2"),
    call("complete", WORKER, "L2", 3.0, receipt_id="c1", task_id="t1"),
]
STORED = [
    StoredTaskReceipt("a1", MINTER, "t1", "accepted"),
    StoredTaskReceipt("q1", MINTER, "t1", "queued"),
    StoredTaskReceipt("l1", WORKER, "t1", "lease_issued", 1, "L1"),
    StoredTaskReceipt("x1", WORKER, "t1", "expired", None, "L1"),
    StoredTaskReceipt("l2", WORKER, "t1", "lease_issued", 2, "L2"),
    StoredTaskReceipt("c1", WORKER, "t1", "complete", 2),
]
GOOD = RequestHistory(
    calls=CALLS,
    stored=STORED,  # type: ignore[arg-type]
    fault=(0.9, 2.0),
    output={"the log": "a request was refused"},
    secrets=["mgk_very_secret"],
)


def calling(*more: RecordedCall) -> RequestHistory:
    return replace(GOOD, calls=[*CALLS, *more])


def storing(*stored: StoredTaskReceipt) -> RequestHistory:
    return replace(GOOD, stored=stored)  # type: ignore[arg-type]


def test_a_good_history_keeps_every_promise() -> None:
    assert broken(GOOD, Bounds()) == {}
    counted = figures(GOOD)
    assert (counted.acked, counted.refused, counted.lost, counted.duplicate) == (4, 1, 0, 0)
    assert (counted.unacked, counted.replayed) == (0, 0)


@pytest.mark.parametrize(
    ("promise", "history"),
    [
        ("I1", storing(*STORED[1:])),
        ("I1", storing(*STORED[:4], replace(STORED[4], lease_id="L9"), STORED[5])),
        ("I1", storing(*STORED[:4], replace(STORED[4], client=OTHER), STORED[5])),
        ("I1", storing(*STORED[:5])),
        ("I1", storing(*STORED[:5], replace(STORED[5], number=1))),
        ("I2", storing(*STORED[:3], *STORED[4:])),
        ("I2", storing(*STORED, replace(STORED[5], receipt_id="c2"))),
        ("I2", storing(*STORED[:4], replace(STORED[4], number=1), STORED[5])),
        ("I2", calling(leased(3.1, 2, key="k2", lease_id="L1"))),
        ("I2", calling(call("complete", WORKER, "L2", 3.1, receipt_id="a1", task_id="t1"))),
        ("I4", calling(replace(leased(3.0, 2, lease_id="L2"), end=4.0))),
        ("I5", replace(GOOD, calls=CALLS[:5])),
        ("I6", calling(replace(leased(3.0, 2, lease_id="L2"), operation="stranger"))),
        ("I6", calling(RecordedCall("lease", WORKER, "k4", 3.1, 3.2, 500, {}))),
        ("I7", calling(leased(3.0, 2, client=OTHER, key="k3", lease_id="L2"))),
        ("I10", replace(GOOD, output={"the log": "key mgk_very_secret"})),
    ],
    ids=[
        "a task lost", "a lease lost", "another holder's", "an end lost", "ended by an old lease", "a lease before the end of the last",
        "two ends", "a number twice", "two leases for a key", "two answers to an end", "late", "never well again", "a lease for a stranger",
        "500", "another tenant's", "a key in the log",
    ],
)  # fmt: skip
def test_a_broken_promise_is_noticed(promise: str, history: RequestHistory) -> None:
    assert promise in broken(history, Bounds())
