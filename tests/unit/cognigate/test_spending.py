"""What a job may spend: the least of authority and policy, to the call, the token and the second."""

from pathlib import Path
from typing import Any

import pytest

import cognigate
from cognigate.spending import JobLimits, Spending
from legivellum_worker.models import ModelReply, TokenCounts
from legivellum_worker.results import Failed

GRANTED = {"models": ["default", "large"], "calls": 5, "tokens": 1_000, "seconds": 60}
AUTHORITY = {"invokeCognigate": True, "cognition": GRANTED}


class SteppedClock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("policy", "limits"),
    [
        ({}, (("default", "large"), 5, 1_000, 60)),
        ({"calls": 2, "tokens": 9_999, "seconds": 10}, (("default", "large"), 2, 1_000, 10)),
        ({"models": ["large", "other"]}, (("large",), 5, 1_000, 60)),
    ],
)
def test_the_least_counts(policy: dict[str, Any], limits: object) -> None:
    least = JobLimits.of(AUTHORITY, policy)
    assert (least.models, least.calls, least.tokens, least.seconds) == limits


def test_a_policy_that_permits_no_model_denies() -> None:
    with pytest.raises(Failed, match="AUTHORITY_INSUFFICIENT"):
        JobLimits.of(AUTHORITY, {"models": []})


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize(
    ("seconds", "refusal"), [(59, None), (59.999, None), (60, "LIMIT_SECONDS"), (61, "LIMIT_SECONDS")]
)
def test_seconds(seconds: float, refusal: str | None) -> None:
    clock = SteppedClock()
    spending = Spending(JobLimits.of(AUTHORITY, {}), "m", clock)
    clock.now += seconds
    assert spending.refusal(4) == refusal


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize(("prompt_bytes", "refusal"), [(3_996, None), (3_997, "LIMIT_TOKENS"), (4_001, "LIMIT_TOKENS")])
def test_a_question_leaves_room_for_one_token(prompt_bytes: int, refusal: str | None) -> None:
    assert Spending(JobLimits.of(AUTHORITY, {}), "m", SteppedClock()).refusal(prompt_bytes) == refusal


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize(("prompt", "completion", "left"), [(100, 100, 800), (100, 900, 0), (0, 100, 0), (100, 0, 0)])
def test_a_provider_that_reports_too_little_is_not_believed(prompt: int, completion: int, left: int) -> None:
    """1,600 bytes are at least a hundred tokens."""
    spending = Spending(JobLimits.of(AUTHORITY, {}), "m", SteppedClock())
    spending.on_reply(ModelReply("x" * 1_600, "stop", TokenCounts(prompt, completion), "m", "0" * 64), 1_600)
    usage = spending.usage()
    assert 1_000 - usage["prompt_tokens"] - usage["completion_tokens"] == left


def test_a_receipt_has_room_for_a_thousand_calls() -> None:
    spending = Spending(JobLimits.of(AUTHORITY, {}), "m", SteppedClock())
    for _ in range(1_000):
        spending.on_reply(ModelReply("", "stop", TokenCounts(0, 0), "m", "0" * 64), 0)
    spending.tools.update({f"tool.{n}": 1 for n in range(1_000)})
    assert len(str(spending.usage())) < 16_000


def test_it_can_be_read_in_one_sitting() -> None:
    """At most 700 lines that are not empty, docstrings included."""
    files = Path(cognigate.__file__).parent.rglob("*.py")
    assert sum(bool(line.strip()) for file in files for line in file.read_text().splitlines()) < 700
