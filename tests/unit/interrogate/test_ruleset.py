"""A PolicyProfile as it is decided by: globs, CEL rules, targets, and a shadow that only compares."""

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.interrogate.requests import (
    ABSENT,
    ALICE,
    CHILD,
    NOW,
    POLICY,
    ROOT,
    decide_child,
    decide_root,
    envelope_from,
    observed_child,
    observed_root,
    ruleset_of,
)

from interrogate.decide import decide, decide_shadow, decide_under, unjudged_rules
from interrogate.observation import Requester
from interrogate.ruleset import GlobSet, Ruleset
from metagate_crds.compile.normalized import NormalizedPolicy, normalize
from metagate_crds.models import PolicyProfileSpec


def with_rules(*sources: str, **message: str) -> Ruleset:
    rules = [{"name": f"rule-{number}", "cel": source} | message for number, source in enumerate(sources)]
    return ruleset_of({"invariants": {"rules": rules}})


@pytest.mark.parametrize(
    ("patterns", "names", "others"),
    [
        ([], [], ["a", ""]),
        (["*"], ["a", "", "*"], []),
        (["doc.*", "mail"], ["doc.", "doc.read", "mail"], ["doc", "mail.x", "xdoc."]),
        (["a*b"], ["a*b"], ["ab", "axb"]),
        (["*a"], ["*a"], ["a", "ba"]),
    ],
)
def test_a_glob_is_a_name_or_a_prefix(patterns: list[str], names: list[str], others: list[str]) -> None:
    matching = GlobSet.of(patterns)
    assert all(map(matching.matches, names))
    assert not any(map(matching.matches, others))


def test_the_body_is_that_of_the_hash() -> None:
    """What is stored beside a decision is what MetaGate computed the digest of."""
    policy = normalize(PolicyProfileSpec.model_validate(POLICY))
    assert isinstance(policy, NormalizedPolicy)
    ruleset = Ruleset.from_policy(policy.body, profile="front-desk", policy_hash=policy.policy_hash, revision=1)
    assert hashlib.sha256(ruleset.canonical_body.encode()).hexdigest() == policy.policy_hash


def test_a_profile_of_nothing_but_its_depth() -> None:
    body = PolicyProfileSpec.model_validate({"limits": {"maxSpawnDepth": 0}}).declared()
    ruleset = Ruleset.from_policy(body, profile="p", policy_hash="0" * 64, revision=1)
    assert decide(envelope_from(ROOT), ALICE, ruleset, observed_root()).reason_code == "SURFACE_NOT_FOUND"


def test_only_http_targets_that_are_to_be_called_are_called() -> None:
    targets = [
        {"name": "plain", "url": "http://a/"},
        {"name": "named", "url": "http://a/", "forward": False},
        {"name": "tools", "url": "http://a/mcp", "kind": "Mcp", "timeoutMs": 7, "audience": "a"},
    ]
    surface = ruleset_of({"invariants": {"allowedTargets": ABSENT}}, surface={"targets": targets}).surfaces["public"]
    assert [name for name, target in surface.targets.items() if target.is_called] == ["plain"]
    assert surface.open_targets == ("plain", "named", "tools")
    assert (surface.targets["tools"].timeout_ms, surface.targets["tools"].audience) == (7, "a")


@pytest.mark.invariant("INV-103")
@pytest.mark.parametrize(
    ("source", "holds"),
    [
        ("payload.text == 'read'", True),
        ("payload.text == 'write'", False),
        ("size(payload.text) < 100", True),
        ("request.surface == 'public' && request.payload_kind == 'plan_request'", True),
        ("request.capability_id.startsWith('doc.')", True),
        ("request.target == null && request.artifact_bytes == null", True),
        ("caller.principal_key == 'alice' && caller.type == 'principal'", True),
        ("observed.depth == 3 && observed.descendants == 5 && observed.repeats == 2 && observed.budget == 10", True),
        # failing, or no boolean
        ("payload.missing == 1", False),
        ("payload.text", False),
        ("1", False),
        ("1 / 0 == 1", False),
    ],
)
def test_a_rule_must_be_true(source: str, holds: bool) -> None:
    decision = decide_child(ruleset=with_rules(source))
    assert decision.reason_code == (None if holds else "INVARIANT_VIOLATION")
    assert decision.rules == {"rule-0": holds}
    # False is an answer of the rule; to give none is a mistake in it.
    is_answer = source.startswith(("payload.text ==", "size(", "request.", "caller.", "observed."))
    assert decision.failed_rules == (() if is_answer else ("rule-0",))


def test_a_rejection_tells_the_message_of_the_first_rule_that_fails() -> None:
    decision = decide_child(
        ruleset=with_rules("true", "1 > 2", "payload.text == 'x'", message="too large " + "x" * 500)
    )
    assert decision.rules == {"rule-0": True, "rule-1": False, "rule-2": False}
    assert decision.detail == ("too large " + "x" * 500)[:256]
    assert decide_child(ruleset=with_rules("false")).detail == "the rule rule-0 does not hold"
    canary = envelope_from(CHILD, {"payload": {"canary": "c4n4ry"}})
    refused = decide(canary, ALICE, with_rules("payload.canary < 7"), observed_child())
    assert "c4n4ry" not in (refused.detail or "")


def test_a_rule_that_is_refused_lets_nothing_pass() -> None:
    """Declared before rules were bounded: the profile is served, and its rule holds for no request."""
    for source in ("payload.matches('(a+)+$')", "not cel at all (", "secret.value == 1"):
        decision = decide_child(ruleset=with_rules(source))
        assert (decision.reason_code, decision.failed_rules) == ("INVARIANT_VIOLATION", ("rule-0",))


def test_a_payload_of_too_many_values_fails_only_rules_that_read_it() -> None:
    large = envelope_from(CHILD, {"payload": list(range(3_000))})
    assert decide(large, ALICE, with_rules("size(payload) > 1"), observed_child()).reason_code == "INVARIANT_VIOLATION"
    assert decide(large, ALICE, with_rules("request.surface == 'public'"), observed_child()).outcome == "ALLOW"


def test_results_of_rules_may_be_given_where_the_payload_is_not_at_hand() -> None:
    ruleset = with_rules("payload.text == 'read'", "payload.text == 'write'")
    for results, expected in (
        ({"rule-0": True, "rule-1": True}, None),
        ({"rule-0": True, "rule-1": False}, "INVARIANT_VIOLATION"),
        # A rule that was not there then is not known to hold.
        ({"rule-0": True}, "INVARIANT_VIOLATION"),
    ):
        decision = decide(envelope_from(CHILD), ALICE, ruleset, observed_child(), rule_results=results)
        assert decision.reason_code == expected


def test_another_policy_is_tried_without_the_payload() -> None:
    """Rules that read it are taken as recorded if they are the same, and to hold if they are not: nobody can say."""
    then = with_rules("payload.text == 'write'", "size(payload.text) < 9")
    recorded = {"rule-0": False, "rule-1": True}
    gone, observed = envelope_from(CHILD, {"payload": None}), observed_child()

    def tried(*sources: str) -> Any:
        other = with_rules(*sources)
        return decide_under(other, gone, ALICE, then, observed, rule_results=recorded).rules, unjudged_rules(
            other, then
        )

    assert tried("payload.text == 'write'") == ({"rule-0": False}, set())
    assert tried("payload.text == 'x'") == ({"rule-0": True}, {"rule-0"})
    assert tried("caller.type == 'worker'", "size(payload.text) < 9") == ({"rule-0": False, "rule-1": True}, set())
    assert tried("request.surface == 'public'") == ({"rule-0": True}, set())
    # Denied by an earlier rule, it was not evaluated at all.
    unreached = decide_under(then, gone, ALICE, then, observed, rule_results={})
    assert (unreached.outcome, unreached.rules) == ("ALLOW", {"rule-0": True, "rule-1": True})


def shadowed(changes: Any, **surface: Any) -> Ruleset:
    body = {"limits": {}, "shadow": {"policyProfileRef": {"name": "strict"}}}
    other = ruleset_of(changes, surface=surface or None)
    ruleset = ruleset_of(body)
    assert ruleset.shadow_profile == "strict"
    return replace(ruleset, shadow=other)


def test_a_shadow_decides_beside_and_changes_nothing() -> None:
    ruleset = shadowed({"limits": {"maxSpawnDepth": 1}})
    assert decide(envelope_from(CHILD), ALICE, ruleset, observed_child()).outcome == "ALLOW"
    shadow = decide_shadow(envelope_from(CHILD), ALICE, ruleset, observed_child())
    assert shadow is not None
    assert (shadow.outcome, shadow.reason_code) == ("DENY", "DEPTH_EXCEEDED")
    assert decide_shadow(envelope_from(CHILD), ALICE, ruleset_of(), observed_child()) is None


def test_a_shadow_compares_rates_of_the_same_name() -> None:
    """It was never counted by its own: what only it limits passes, what it does not limit is not asked."""
    spent = observed_child(rate_tats=(NOW + 150_000,))
    faster = shadowed({}, rateLimit={"requests": 10, "per": "1s", "burst": 2})
    shadow = decide_shadow(envelope_from(CHILD), ALICE, faster, spent)
    assert shadow is not None
    assert shadow.reason_code == "RATE_LIMITED"
    assert decide(envelope_from(CHILD), ALICE, faster, spent).outcome == "ALLOW"
    without = shadowed({}, rateLimit=ABSENT)
    assert (shadow := decide_shadow(envelope_from(CHILD), ALICE, without, spent)) is not None
    assert shadow.outcome == "ALLOW"
    more = shadowed({}, rateLimits=[{"name": "reads", "capabilities": ["*"], "requests": 1, "per": "1h"}])
    assert (shadow := decide_shadow(envelope_from(CHILD), ALICE, more, spent)) is not None
    assert shadow.outcome == "ALLOW"


def test_another_policy_may_be_tried_on_what_was_observed() -> None:
    stricter = ruleset_of({"limits": {"maxTotalDescendants": 5}})
    envelope, observed = envelope_from(CHILD), observed_child()
    assert decide_under(stricter, envelope, ALICE, ruleset_of(), observed).reason_code == "DESCENDANTS_EXCEEDED"
    lacking = observed_child(rate_tats=())
    assert decide_under(ruleset_of(), envelope, ALICE, None, lacking).outcome == "ALLOW"
    stranger = Requester("bob", "principal")
    assert (
        decide_under(ruleset_of(), envelope_from(ROOT), stranger, None, observed_root()).reason_code == "UNAUTHORIZED"
    )


def test_a_request_may_name_no_target() -> None:
    nothing = ruleset_of(surface={"targets": []})
    assert decide_root(ruleset=nothing).targets == ()
    assert decide_root({"target": "docs"}, ruleset=nothing).reason_code == "LEASE_AUTHORITY"
