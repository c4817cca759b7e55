"""Of any request, any policy and any observation: one decision, one reason, and a receipt from which it follows again."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.interrogate.requests import CAUSE, NOW

from interrogate.admission_receipt import admission_receipt, admitted_task, differences, read_admission
from interrogate.decide import decide, decide_shadow, explain
from interrogate.decision import AdmissionOutcome, Decision, ReasonCode
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope, read_envelope
from interrogate.observation import Observed, ObservedLease, ParentTask, Requester
from interrogate.ruleset import Ruleset
from legivellum.http.problems import RequestRefused
from metagate_crds.models import PolicyProfileSpec

TASKS = st.sampled_from(["root-1", "root-2", "parent-1", "task-1"])
CAPABILITIES = st.sampled_from(["doc.read", "doc.delete", "mail.send", "other", "é"])
NAMES = st.sampled_from(["alice", "team-w", "bob"])
SMALL = st.integers(-1, 7)
BUDGETS = st.one_of(st.none(), SMALL, st.just(2**53 - 1))
GLOBS = st.lists(st.sampled_from(["*", "doc.*", "doc.read", "mail.send", "alice", "team-*"]), unique=True, max_size=4)
KINDS = st.sampled_from(["plan_request", "work_order", "lease", "query", "tool_call", "unheard of"])
CLAIMS: dict[str, st.SearchStrategy[Any]] = {
    "root_task_id": TASKS,
    "parent_task_id": st.none() | TASKS,
    "caused_by_receipt_id": st.none() | st.just(CAUSE),
    "spawn_depth": st.none() | SMALL,
    "capability_id": CAPABILITIES,
    "recursion_budget_remaining": SMALL | st.just(2**53 - 1),
    "task_id": TASKS,
}
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "payload_kind": KINDS,
    "payload": st.sampled_from([None, "x", {"text": "read"}, [1, 2], {}]),
    "causality": st.fixed_dictionaries({}, optional=CLAIMS) | st.fixed_dictionaries(CLAIMS),
    "target": st.sampled_from(["delegate", "docs", "none"]),
    "artifact_bytes": st.sampled_from([0, 1000, 1001]),
}
RATE = st.fixed_dictionaries(
    {"requests": st.integers(1, 50), "per": st.sampled_from(["1ms", "1s", "1h"])}, optional={"burst": st.integers(1, 9)}
)


@st.composite
def envelopes(draw: st.DrawFn) -> Envelope:
    members = draw(st.fixed_dictionaries(MEMBERS) | st.fixed_dictionaries({}, optional=MEMBERS))
    members |= {
        "tenant_id": "team-a",
        "surface_id": draw(st.sampled_from(["public", "public", "none"])),
        "policy_profile_id": "front-desk",
    }
    payload = json.dumps(members["payload"]).encode() if "payload" in members else b""
    return read_envelope(members, payload, tool=draw(st.sampled_from([None, "mail/send"])))


@st.composite
def rulesets(draw: st.DrawFn) -> Ruleset:
    spec = draw(
        st.fixed_dictionaries(
            {
                "limits": st.fixed_dictionaries(
                    {"maxSpawnDepth": st.integers(0, 6)},
                    optional={
                        "maxTotalDescendants": st.integers(0, 6),
                        "maxRepeatsPerCapability": st.integers(0, 6),
                        "ancestorWindow": st.fixed_dictionaries(
                            {"size": st.integers(1, 64), "maxRepeats": st.integers(0, 3)}
                        ),
                    },
                ),
                "budget": st.fixed_dictionaries({"required": st.booleans()}, optional={"initial": st.integers(0, 6)}),
                "invariants": st.fixed_dictionaries(
                    {},
                    optional={
                        "canSpawn": st.booleans(),
                        "allowedTargets": st.sampled_from([[], ["delegate"], ["*"]]),
                        "maxArtifactBytes": st.just(1000),
                        "rules": st.sampled_from(
                            [
                                [],
                                [
                                    {"name": "a", "cel": "payload.text == 'read'"},
                                    {"name": "b", "cel": "size(payload) > 1"},
                                ],
                            ]
                        ),
                    },
                ),
            }
        )
    )
    surface: dict[str, Any] = {
        "surfaceId": "public",
        "principals": draw(GLOBS),
        "capabilities": {"allow": draw(GLOBS), "deny": draw(GLOBS)},
        "targets": draw(st.sampled_from([[], [{"name": "delegate", "url": "http://delegate/"}]])),
    }
    if draw(st.booleans()):
        surface["rateLimit"] = draw(RATE)
    body = PolicyProfileSpec.model_validate(spec | {"surfaces": [surface]}).declared()
    # What the language is about to bring is given as MetaGate serves it.
    body["surfaces"][0] |= {
        "mayBegin": draw(GLOBS),
        "parentage": draw(st.sampled_from(["Custodian", "Tenant"])),
        "rateLimits": [{"name": "r", "capabilities": draw(GLOBS), **draw(RATE)}] if draw(st.booleans()) else [],
    }
    body["invariants"]["leaseAuthority"] = draw(st.sampled_from(["Required", "Optional"]))
    return Ruleset.from_policy(body, profile="front-desk", policy_hash="0" * 64, revision=7)


REQUESTERS = st.builds(
    Requester,
    NAMES,
    st.sampled_from(["principal", "delegate", "worker", "service", "component", "admin", "observer"]),
    is_tenants=st.booleans(),
    lease_id=st.sampled_from([None, "lease-1", "", "\x00"]),
)
PARENTS = st.builds(
    ParentTask,
    root_task_id=TASKS,
    depth=st.integers(0, 6),
    budget=BUDGETS,
    recent=st.lists(CAPABILITIES, max_size=64).map(tuple),
    admitted_by=st.just(CAUSE),
    custodian=st.none() | NAMES,
    open=st.booleans(),
)
AUTHORITIES = st.dictionaries(
    st.sampled_from(["spawn", "maxDepth", "exposeTools", "sinks"]),
    st.sampled_from([{"max": 3}, {}, 3, True, ["mail/*"], [], "x", None]),
)
LEASES = st.builds(
    ObservedLease,
    lease_id=st.just("lease-1"),
    task_id=TASKS,
    principal_ai=NAMES,
    number=st.integers(1, 9),
    authority=AUTHORITIES,
    spawned=st.integers(0, 4),
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Envelope, Requester, Ruleset | None, Observed]:
    envelope, requester = draw(envelopes()), draw(REQUESTERS)
    ruleset = draw(st.none() | rulesets())
    keys = ruleset.rate_keys_of(envelope, requester.principal_key) if ruleset is not None else ()
    observed = Observed(
        at=NOW,
        version=draw(st.integers(0, 9)),
        descendants=draw(st.integers(0, 7)),
        repeats=draw(st.integers(0, 7)),
        parent=draw(st.none() | PARENTS) if envelope.causality.parent_task_id else None,
        cause_task_id=draw(st.none() | TASKS),
        task_root_id=draw(st.none() | TASKS),
        task_admitted=draw(st.booleans()),
        rate_tats=tuple(draw(st.sampled_from([0, NOW - 1, NOW + 10**6, NOW + 10**12])) for _ in keys),
        lease=draw(st.none() | LEASES) if requester.lease_id == "lease-1" else None,
    )
    return envelope, requester, ruleset, observed


def check(decision: Decision, observed: Observed) -> None:
    if decision.outcome is AdmissionOutcome.ALLOW:
        assert (decision.reason_code, decision.detail, decision.rule, decision.retry_after_ms) == (None,) * 4
        assert decision.rate_tats is not None
        assert all(new > max(old, NOW) for new, old in zip(decision.rate_tats, observed.rate_tats, strict=True))
        assert len(decision.recent) <= 64
        return
    assert isinstance(decision.reason_code, ReasonCode)
    assert 0 < len(decision.detail or "") <= 256
    assert (decision.task_id, decision.recent, decision.targets, decision.spawns_under_lease) == (None, (), (), False)
    assert (decision.retry_after_ms is not None) is (decision.reason_code == "RATE_LIMITED")
    assert (decision.retry_after_ms or 1) >= 1


@pytest.mark.invariant("INV-096", "INV-105", "INV-109", "INV-110")
@settings(max_examples=300, deadline=None)
@given(cases())
def test_every_request_has_one_decision_that_follows_from_its_receipt(
    case: tuple[Envelope, Requester, Ruleset | None, Observed],
) -> None:
    envelope, requester, ruleset, observed = case
    decision = decide(envelope, requester, ruleset, observed)
    check(decision, observed)
    assert decide(envelope, requester, ruleset, observed) == decision

    results = explain(envelope, requester, ruleset, observed)
    assert [result.rule for result in results] == list(range(1, 14))
    failed = [(result.rule, result.reason_code) for result in results if result.passed is False]
    if decision.outcome is AdmissionOutcome.DENY:
        assert failed[0] == (decision.rule, decision.reason_code)
    else:
        assert failed == []

    form = admission_receipt(
        envelope, requester, decision, observed, ruleset, tenant=UUID(int=1), receipt_id=CAUSE, policy_revision=7
    )
    recorded = read_admission(form)
    assert differences(recorded.decision, decision) == ()
    assert recorded.admitted == admitted_task(envelope, decision, CAUSE)
    if envelope.tool is None:
        again = decide(
            recorded.envelope, recorded.requester, ruleset, recorded.observed, rule_results=recorded.rule_results
        )
        assert differences(decision, again) == ()
        assert again.rate_tats == decision.rate_tats
    if ruleset is not None:
        assert decide_shadow(envelope, requester, ruleset, observed) is None


@pytest.mark.invariant("INV-096")
@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_body_breaks_the_parser(raw: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse_envelope(raw)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.invariant("INV-096", "INV-097")
@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {"tenant_id": st.just("a") | JSON, "surface_id": st.just("b") | JSON, "policy_profile_id": st.just("c") | JSON},
        optional={**{name: value | JSON for name, value in MEMBERS.items()}, "more": JSON},
    )
)
def test_any_object_is_an_envelope_that_is_decided_or_refused(members: dict[str, Any]) -> None:
    raw = json.dumps(members).encode()
    try:
        envelope = parse_envelope(raw)
    except RequestRefused:
        return
    assert envelope.payload_bytes in raw
    decision = decide(envelope, Requester("alice", "principal"), None, Observed(at=NOW))
    assert decision.reason_code in {"MISSING_FIELD", "POLICY_NOT_FOUND"}
