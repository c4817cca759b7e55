"""Rates by GCRA (IG-11): how many pass at once, when the next may come, and what is spent when."""

from typing import Any

import pytest
from tests.unit.interrogate.requests import ABSENT, ALICE, CHILD, NOW, ROOT, envelope_from, observed_root, ruleset_of

from interrogate.decide import decide
from interrogate.ruleset import RateRule, Ruleset


def limited(*limits: dict[str, Any], general: Any = ABSENT) -> Ruleset:
    if general is not ABSENT:
        general = {"burst": ABSENT, **general}
    return ruleset_of(surface={"rateLimit": general, "rateLimits": list(limits)})


def attempts(ruleset: Ruleset, times: list[int], capability: str = "doc.read") -> list[bool]:
    """Whether a request at each of these times passes, in microseconds from now."""
    envelope = envelope_from(ROOT, {"causality": {"capability_id": capability}})
    keys = ruleset.rate_keys_of(envelope, "alice")
    tats, passed = dict.fromkeys(keys, 0), []
    for time in times:
        decision = decide(envelope, ALICE, ruleset, observed_root(at=NOW + time, rate_tats=tuple(tats.values())))
        passed.append(decision.outcome == "ALLOW")
        if decision.rate_tats is not None:
            tats = dict(zip(keys, decision.rate_tats, strict=True))
    return passed


def test_a_burst_passes_and_then_the_rate() -> None:
    ruleset = limited(general={"requests": 10, "per": "1s", "burst": 3})
    assert attempts(ruleset, [0] * 5) == [True] * 3 + [False] * 2
    assert attempts(ruleset, [0, 0, 0, 99_999, 100_000, 100_000, 199_999, 200_000]) == [
        *[True] * 3,
        False,
        True,
        False,
        False,
        True,
    ]


def test_without_a_burst_as_many_as_the_rate_come_at_once() -> None:
    assert attempts(limited(general={"requests": 100, "per": "1m"}), [0] * 6_400).count(True) == 100


@pytest.mark.parametrize(
    ("requests", "per", "interval"),
    [(3, "1s", 333_334), (7, "1ms", 143), (1, "366h", 366 * 3600 * 10**6), (1000, "1ms", 1)],
)
def test_a_rate_is_never_faster_than_declared(requests: int, per: str, interval: int) -> None:
    assert RateRule.of({"requests": requests, "per": per}).interval == interval


def test_all_rates_that_match_are_spent_or_none() -> None:
    """A request that one of them stops costs nothing of the others."""
    ruleset = limited(
        {"name": "reads", "capabilities": ["doc.*"], "requests": 2, "per": "1s"},
        {"name": "mails", "capabilities": ["mail.send"], "requests": 1, "per": "1s"},
        general={"requests": 3, "per": "1s"},
    )
    envelope = envelope_from(ROOT)
    assert ruleset.rate_keys_of(envelope, "alice") == ("front-desk/public/alice", "front-desk/public/alice/reads")
    mail = envelope_from(ROOT, {"causality": {"capability_id": "mail.send"}})
    assert ruleset.rate_keys_of(mail, "alice") == ("front-desk/public/alice", "front-desk/public/alice/mails")
    assert attempts(ruleset, [0] * 4) == [True, True, False, False]
    stopped = decide(envelope, ALICE, ruleset, observed_root(rate_tats=(0, NOW + 1_000_000)))
    assert (stopped.reason_code, stopped.rate_tats) == ("RATE_LIMITED", None)
    passed = decide(envelope, ALICE, ruleset, observed_root(rate_tats=(0, 0)))
    assert passed.rate_tats == (NOW + 333_334, NOW + 500_000)


def test_the_retry_time_is_that_of_the_slowest() -> None:
    ruleset = limited(
        {"name": "reads", "capabilities": ["*"], "requests": 1, "per": "10s"}, general={"requests": 1, "per": "1s"}
    )
    late = observed_root(rate_tats=(NOW + 1_000_000, NOW + 9_000_001))
    assert decide(envelope_from(ROOT), ALICE, ruleset, late).retry_after_ms == 9_001
    early = observed_root(rate_tats=(NOW + 1, NOW))
    assert decide(envelope_from(ROOT), ALICE, ruleset, early).retry_after_ms == 1
    assert decide(envelope_from(ROOT), ALICE, ruleset, observed_root(rate_tats=(NOW, NOW))).outcome == "ALLOW"


def test_a_token_is_spent_by_whatever_passes_the_rule_of_rates() -> None:
    ruleset = ruleset_of()
    assert decide(envelope_from(ROOT, {"artifact_bytes": 1001}), ALICE, ruleset, observed_root()).rate_tats == (
        NOW + 100_000,
    )
    assert (
        decide(envelope_from(ROOT, {"causality": {"spawn_depth": 7}}), ALICE, ruleset, observed_root()).rate_tats
        is None
    )


def test_a_request_that_names_no_capability_meets_the_general_rate_alone() -> None:
    ruleset = limited(
        {"name": "all", "capabilities": ["*"], "requests": 1, "per": "1h"}, general={"requests": 5, "per": "1s"}
    )
    assert ruleset.rate_keys_of(envelope_from(CHILD, {"payload_kind": "lease", "causality": ABSENT}), "alice") == (
        "front-desk/public/alice",
    )
    assert ruleset.rate_keys("none", "alice", "doc.read") == ()


def test_a_rate_whose_time_is_not_known_is_no_unused_rate() -> None:
    with pytest.raises(ValueError, match="zip"):
        decide(envelope_from(ROOT), ALICE, ruleset_of(), observed_root(rate_tats=()))
