"""The checker itself: a good history keeps every promise, and each promise has histories that it must reject."""

from dataclasses import replace
from typing import Any

import pytest
from tests.faults.history import BROKEN, HUNG, RecordedCall, RequestHistory, Sample, StoredSession
from tests.faults.promises import Bounds, broken, figures

ONE, OTHER = "11111111/a", "22222222/b"


def booted(number: int, *, client: str = ONE, at: float = 0.0, revision: int = 1, **answer: Any) -> RecordedCall:
    fields = {
        "startup_id": f"s{number}",
        "digest": f"d{revision}",
        "revision": revision,
        "compiled_at": 1_000.0 + revision,
        "marks": [revision, revision],
        "whole": True,
        "tenants": [client.partition("/")[0]],
        **answer,
    }
    return RecordedCall("bootstrap", client, f"k{number}", at, at + 0.01, 200, fields)


def reported(number: int, *, at: float = 0.1, operation: str = "ready", **answer: Any) -> RecordedCall:
    fields = {"startup_id": f"s{number}", "acknowledged_at": "t1", "late": False, **answer}
    return RecordedCall(operation, ONE, f"s{number}", at, at + 0.01, 200, fields)


def kept(number: int, *, client: str = ONE, **changes: Any) -> StoredSession:
    return replace(StoredSession(f"s{number}", client, f"k{number}", "d1", "OPEN", 120.0, None, None), **changes)


READY = {"status": "READY", "acknowledged_at": 10.0, "late": False}
GOOD = RequestHistory(
    calls=[
        booted(1),
        reported(1),
        booted(2, client=OTHER, at=0.2),
        RecordedCall("bootstrap", ONE, "k3", 1.0, 1.45, 503, {"code": "UNAVAILABLE", "retry_after": 2}),
        RecordedCall("stranger", ONE, "no key", 1.1, 1.2, 401, {"code": "CREDENTIAL_MISSING"}),
        booted(3, at=3.0, replayed=True),
        RecordedCall("list", ONE, "", 3.5, 3.6, 200, {"tenants": ["11111111"], "startups": ["s1", "s3"]}),
    ],
    stored=[kept(1, **READY), kept(2, client=OTHER), kept(3)],
    fault=(0.9, 2.0),
    samples=[Sample(0.0, 100, 8, 40), Sample(1.0, 120, 8, 40)],
    output={"the log": "a request was refused"},
    secrets=["mgk_very_secret"],
)


def with_calls(*calls: RecordedCall, **changes: Any) -> RequestHistory:
    return replace(GOOD, calls=[*GOOD.calls, *calls], **changes)


def test_a_good_history_keeps_every_promise() -> None:
    """Refusals in time, a replay, a stranger turned away: nothing is broken, and the figures count what happened."""
    assert broken(GOOD) == {}
    result = figures(GOOD)
    assert (result.acked, result.refused, result.replayed, result.lost, result.unacked) == (5, 1, 1, 0, 0)
    assert result.worst == 0.45
    assert result.recovery == 0.0


@pytest.mark.parametrize(
    ("promise", "history"),
    [
        ("I1", with_calls(booted(4, at=4.0))),
        ("I1", with_calls(booted(4, at=4.0), stored=[*GOOD.stored, kept(4, client=OTHER)])),
        ("I1", with_calls(booted(4, at=4.0), stored=[*GOOD.stored, kept(4, component="k9")])),
        ("I1", with_calls(booted(4, at=4.0), stored=[*GOOD.stored, kept(4, digest="d7")])),
        ("I2", replace(GOOD, stored=[*GOOD.stored, kept(4, component="k3")])),
        ("I2", with_calls(replace(booted(5, at=4.0), key="k3"), stored=[*GOOD.stored, kept(5)])),
        ("I3", with_calls(booted(4, at=4.0, marks=[1, 2]), stored=[*GOOD.stored, kept(4)])),
        ("I3", with_calls(booted(4, at=4.0, whole=False), stored=[*GOOD.stored, kept(4)])),
        ("I3", with_calls(booted(4, at=4.0, digest="d2"), stored=[*GOOD.stored, kept(4, digest="d2")])),
        (
            "I3",
            with_calls(
                booted(4, at=4.0, revision=2), booted(5, at=4.5), stored=[*GOOD.stored, kept(4, digest="d2"), kept(5)]
            ),
        ),
        ("I4", with_calls(replace(booted(3, at=4.0), end=4.7))),
        ("I4", with_calls(RecordedCall("ready", ONE, "s1", 4.0, 9.0, HUNG))),
        ("I4", with_calls(RecordedCall("ready", ONE, "s1", 4.0, 4.1, BROKEN))),
        ("I4", with_calls(RecordedCall("ready", ONE, "s1", 1.0, 1.1, 503, {"code": "UNAVAILABLE", "retry_after": 0}))),
        ("I5", replace(GOOD, calls=GOOD.calls[:5])),
        ("I5", with_calls(*[RecordedCall("ready", ONE, "s1", 2.1 + n / 10, 2.2 + n / 10, 503, {"retry_after": 1}) for n in range(70)])),
        ("I6", with_calls(RecordedCall("bootstrap", ONE, "k1", 4.0, 4.1, 500))),
        ("I6", with_calls(RecordedCall("stranger", ONE, "no key", 4.0, 4.1, 200))),
        ("I7", with_calls(booted(3, at=4.0, tenants=["22222222"]))),
        ("I7", with_calls(RecordedCall("list", ONE, "", 4.0, 4.1, 200, {"tenants": ["11111111"], "startups": ["s2"]}))),
        ("I8", with_calls(reported(1, at=4.0, acknowledged_at="t2"))),
        ("I8", with_calls(reported(1, at=4.0, operation="failed"))),
        ("I8", with_calls(reported(1, at=4.0, late=True))),
        ("I8", with_calls(reported(7, at=4.0))),
        ("I8", replace(GOOD, stored=[*GOOD.stored, kept(4, **(READY | {"acknowledged_at": 121.0}))])),
        ("I9", with_calls(booted(3, at=4.0, compiled_at=None))),
        ("I10", replace(GOOD, output={"the log": "key mgk_very_secret was refused"})),
        ("I11", replace(GOOD, samples=[*GOOD.samples, Sample(2.0, 100 + (200 << 20), 8, 40)])),
        ("I11", replace(GOOD, samples=[*GOOD.samples, Sample(2.0, 100, 80, 40)])),
        ("I11", replace(GOOD, samples=[*GOOD.samples, Sample(2.0, 100, 8, 4_000)])),
    ],
)  # fmt: skip
def test_a_bad_history_is_rejected(promise: str, history: RequestHistory) -> None:
    """Each of these breaks the promise it is for."""
    assert promise in broken(history), broken(history)


def test_what_the_machine_took_is_not_the_gates() -> None:
    """A late answer is in time when the machine stood still for the difference; a hanging one never is."""
    late = replace(booted(3, at=4.0), end=5.2)
    assert "I4" in broken(with_calls(late))
    assert broken(with_calls(replace(late, stall=0.8))) == {}
    assert "I4" in broken(with_calls(RecordedCall("ready", ONE, "s1", 4.0, 9.0, HUNG, stall=5.0)))


def test_a_row_may_say_what_its_fault_makes_impossible() -> None:
    """Connections break when somebody kills what they led to; only a row that says so may have them."""
    history = with_calls(RecordedCall("ready", ONE, "s1", 1.0, 1.1, BROKEN))
    assert broken(history, Bounds(breaks=True)) == {}


def test_recovery_is_the_time_after_which_nearly_all_succeed() -> None:
    """The last failure but for one in a hundred decides."""
    bad = [RecordedCall("ready", ONE, "s1", 2.0 + n / 10, 2.05 + n / 10, 503, {"retry_after": 1}) for n in range(20)]
    good = [reported(1, at=4.0 + n / 100) for n in range(300)]
    assert 1.5 <= figures(with_calls(*bad, *good)).recovery <= 2.1
