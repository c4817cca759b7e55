"""The checker of InterroGate's histories: a good one keeps every promise, and each promise has one that it rejects."""

from dataclasses import replace
from typing import Any

import pytest
from tests.faults.admission_promises import StoredAdmission, broken, figures
from tests.faults.history import RecordedCall, RequestHistory
from tests.faults.promises import Bounds

ONE, OTHER = "11111111/a", "22222222/b"


def decided(number: int, *, client: str = ONE, at: float = 0.0, **answer: Any) -> RecordedCall:
    decision = {"outcome": "ALLOW", "receipt_id": f"r{number}", "replayed": False, **answer}
    status = 200 if decision["outcome"] == "ALLOW" else 403
    return RecordedCall("evaluate", client, f"t{number}", at, at + 0.01, status, decision)


def kept(number: int, *, client: str = ONE, **changes: Any) -> StoredAdmission:
    return replace(StoredAdmission(f"r{number}", client, f"t{number}", "ALLOW"), **changes)


GOOD = RequestHistory(
    calls=[
        decided(1),
        decided(2, client=OTHER, outcome="DENY"),
        RecordedCall("evaluate", ONE, "t3", 1.0, 1.4, 503, {"code": "UNAVAILABLE", "retry_after": 2}),
        RecordedCall("stranger", ONE, "no key", 1.1, 1.2, 401, {"code": "CREDENTIAL_MISSING"}),
        decided(3, at=3.0, replayed=True),
    ],
    stored=[kept(1), kept(2, client=OTHER, outcome="DENY"), kept(3)],
    fault=(0.9, 2.0),
    output={"the log": "a request was refused"},
    secrets=["mgk_very_secret"],
)


def test_a_good_history_keeps_every_promise() -> None:
    assert broken(GOOD, Bounds()) == {}
    counted = figures(GOOD)
    assert (counted.acked, counted.refused, counted.lost, counted.duplicate) == (3, 1, 0, 0)
    assert (counted.unacked, counted.replayed) == (1, 1)


@pytest.mark.parametrize(
    ("promise", "history"),
    [
        ("I1", replace(GOOD, stored=GOOD.stored[:2])),
        ("I1", replace(GOOD, stored=[*GOOD.stored[:2], kept(3, outcome="DENY")])),
        ("I1", replace(GOOD, stored=[*GOOD.stored[:2], kept(3, key="t9")])),
        ("I2", replace(GOOD, stored=[*GOOD.stored, kept(3, receipt_id="r9")])),
        ("I2", replace(GOOD, calls=[*GOOD.calls, decided(3, at=3.1, receipt_id="r2")])),
        ("I7", replace(GOOD, calls=[*GOOD.calls, decided(2, at=3.1)])),
        ("I4", replace(GOOD, calls=[*GOOD.calls, replace(decided(1, at=3.0), end=4.0)])),
        ("I5", replace(GOOD, calls=GOOD.calls[:3])),
        ("I6", replace(GOOD, calls=[*GOOD.calls, RecordedCall("evaluate", ONE, "t4", 3.1, 3.2, 500, {})])),
        ("I6", replace(GOOD, calls=[*GOOD.calls, replace(decided(4, at=3.1), operation="stranger")])),
        ("I10", replace(GOOD, output={"the log": "key mgk_very_secret"})),
    ],
    ids=[
        "lost", "stored as another outcome", "stored for another task", "two receipts", "two answers", "another tenant's",
        "late", "never well again", "500", "a decision for a stranger", "a key in the log",
    ],
)  # fmt: skip
def test_a_broken_promise_is_noticed(promise: str, history: RequestHistory) -> None:
    assert promise in broken(history, Bounds())
