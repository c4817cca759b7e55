"""What a finding advises: the field that was meant, an example of what is wanted, and where a key belongs."""

import hashlib

import pytest
from tests.unit.crds.worlds import (
    BINDING,
    MANIFEST,
    PRINCIPAL,
    PROFILE,
    bootable_objects,
    compiled,
    conditions_of,
    declared,
    verdict_of,
    world,
)

from metagate_crds import reasons
from metagate_crds.objects import ObjectKey
from metagate_crds.plan.planner import make_plan
from metagate_crds.plan.proposal import propose_world
from metagate_crds.validation import validate

KEY = "mgk_4f9k2m1q0z_" + "aB3" * 12


def messages(kind, spec):
    return [f"{finding.path}: {finding.message}" for finding in validate(kind, spec)]


@pytest.mark.parametrize(
    ("kind", "spec", "meant"),
    [
        ("Manifest", {"enviroment": {}}, "environment"),
        ("Manifest", {"environments": {}}, "environment"),
        ("Manifest", {"env": {}}, "environment"),
        ("Manifest", {"memory_map": {}}, "memoryMap"),
        ("Manifest", {"memorymap": {}}, "memoryMap"),
        ("Manifest", {"service": {}}, "services"),
        ("Manifest", {"services": {"mail": {"endpoint": "x", "meta": {}}}}, "metadata"),
        ("Manifest", {"services": {"mail": {"endpoint": "x", "auth": {"scheme": "a", "secretref": "b"}}}}, "secretRef"),
        ("Manifest", {"polling": {"inbox": {"endpoint": "x", "intervall": "5s"}}}, "interval"),
        ("Profile", {"capability": {}}, "capabilities"),
        ("Profile", {"startup": {"sla_seconds": 5}}, "slaSeconds"),
        ("Profile", {"secretRefs": [{"name": "a", "ref": "A", "requird": True}]}, "required"),
        ("Principal", {"suspend": True}, "suspended"),
        ("Principal", {"subjects": [{"service_account": {"name": "a"}}]}, "serviceAccount"),
        ("PrincipalBinding", {**BINDING, "component": []}, "components"),
        ("PrincipalBinding", {**BINDING, "overrides": {"memory-map": {}}}, "memoryMap"),
        ("TokenIssuer", {"issuer": "x", "audience": ["a"], "jwks": {"source": "Cluster"}}, "audiences"),
        ("PolicyProfile", {"limits": {"maxSpawnDepth": 1, "ancestorwindow": {}}}, "ancestorWindow"),
    ],
)
def test_an_unknown_key_names_the_field_that_was_meant(kind, spec, meant):
    """Misspelled, in another case, singular, shortened: at every depth."""
    assert any(message.endswith(f"did you mean `{meant}`?") for message in messages(kind, spec)), messages(kind, spec)


def test_a_field_in_the_wrong_place_names_the_right_one():
    """`slaSeconds` belongs under startup."""
    assert messages("Profile", {"slaSeconds": 5}) == [
        "spec.slaSeconds: is not a field of Profile: `spec.startup` has a field of this name"
    ]


def test_what_resembles_nothing_gets_no_suggestion():
    """A suggestion that is wrong is worse than none; and the key is not repeated in the message."""
    (finding,) = validate("Manifest", {"zzz": 1})
    assert finding.message == "is not a field of Manifest"


@pytest.mark.parametrize(
    "spec",
    [
        {"apiKeys": [KEY]},
        {"apiKeys": [{"key": KEY}]},
        {"apiKeys": [{"id": "4f9k2m1q0z", "sha256": KEY}]},
        {"apiKeys": [{"id": KEY, "sha256": "0" * 64}]},
        {"apiKeys": {"laptop": KEY}},
        {"apiKeys": KEY},
    ],
)
def test_a_pasted_api_key_is_answered_with_what_to_declare(spec):
    """Its digest, made by `metagate keys create`; a secretRef is no place for it. The key is not repeated."""
    advice = messages("Principal", {**PRINCIPAL, **spec})
    assert any("`metagate keys create`" in message and "must be replaced" in message for message in advice), advice
    assert not any("secretRef" in message for message in advice)
    assert KEY not in str(advice)


def test_a_digest_in_another_form_is_answered_with_the_form():
    """Upper case, base64, or of another algorithm."""
    for digest in ("A" * 64, hashlib.sha1(b"x").hexdigest(), "sha256:" + "0" * 64):
        (message,) = messages("Principal", {"apiKeys": [{"id": "4f9k2m1q0z", "sha256": digest}]})
        assert "64 lower-case hexadecimal digits" in message
        assert "`metagate keys create`" in message


@pytest.mark.parametrize("interval", ["5 seconds", "5", "soon", "", "1d", "5S", "-5s", "5.5s", 5, 5.0, True, ["5s"]])
def test_what_is_no_duration_is_answered_with_examples(interval):
    """Whatever was written, and in every field that is a duration; no regular expression is shown."""
    (polling,) = messages("Manifest", {"polling": {"inbox": {"endpoint": "x", "interval": interval}}})
    assert polling.endswith("must be a duration as text, like 250ms, 5s, 1m30s or 1h")
    issuer = {"issuer": "x", "audiences": ["a"], "jwks": {"source": "Cluster"}, "maxTokenLifetime": interval}
    assert messages("TokenIssuer", issuer) == ["spec.maxTokenLifetime: " + polling.partition(": ")[2]]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("PrincipalBinding", {**BINDING, "profileRef": {"name": "My Profile"}}),
        ("Manifest", {"deploymentKey": "eu production"}),
        ("Manifest", {"services": {"a": {"endpoint": "http://a b"}}}),
        ("Manifest", {"services": {"a": {"endpoint": ""}}}),
        ("Manifest", {"schemas": {"a": {"ref": "a b"}}}),
        ("Principal", {"subjects": [{"serviceAccount": {"name": "Indexer"}}]}),
        ("Principal", {"apiKeys": [{"id": "short", "sha256": "0" * 64}]}),
    ],
)
def test_texts_are_answered_with_an_example_and_never_with_a_pattern(kind, spec):
    """A regular expression is no advice."""
    advice = messages(kind, spec)
    assert advice
    assert all("like " in message or "`metagate keys create`" in message for message in advice), advice
    assert not any("pattern" in message or "[" in message.partition(": ")[2] for message in advice), advice


SERVICE = {"endpoint": "http://memory:8001", "auth": {"scheme": "bearer", "secretRef": "memory-token"}}
UNDECLARED = (
    "spec.profileRef: spec.services.memory.auth.secretRef of Manifest prod, overrides included, names no entry of"
    " spec.secretRefs of Profile worker"
)


def warning(*objects):
    condition = verdict_of(compiled(*objects), "PrincipalBinding", "indexer").condition(reasons.WARNING)
    return None if condition is None else (condition.status, condition.reason, condition.message)


@pytest.mark.parametrize("entry", ["team/indexer", "indexer@node", "-indexer", "indexer_", "_*"])
def test_a_component_that_nobody_can_be_is_a_warning(entry):
    """D-65: it permits nobody, and what stands beside it is served as before; a Binding of an earlier release stays valid."""
    *others, _ = bootable_objects()
    binding = declared("PrincipalBinding", "indexer", {**BINDING, "components": ["indexer_*", entry]})
    result = compiled(*others, binding)
    verdict = verdict_of(result, "PrincipalBinding", "indexer")
    assert verdict.ready
    assert conditions_of(verdict)["Warning"] == ("True", reasons.COMPONENT_NOT_POSSIBLE)
    assert "no component_key can be" in warning(*others, binding)[2]
    assert warning(*others, declared("PrincipalBinding", "indexer", BINDING)) is None


def test_a_secret_that_the_profile_does_not_name_is_a_warning():
    """The packet is served: the component starts, and cannot call that service."""
    manifest = declared("Manifest", "prod", {**MANIFEST, "services": {"memory": SERVICE}})
    issuer, principal, profile, _, binding = bootable_objects()
    result = compiled(issuer, principal, profile, manifest, binding)
    verdict = verdict_of(result, "PrincipalBinding", "indexer")
    assert verdict.ready
    assert verdict.digest in result.packets
    assert conditions_of(verdict)["Warning"] == ("True", reasons.SECRET_REF_NOT_DECLARED)
    assert warning(issuer, principal, profile, manifest, binding)[2] == UNDECLARED
    named = declared("Profile", "worker", {**PROFILE, "secretRefs": [{"name": "memory-token", "ref": "TOKEN"}]})
    assert warning(issuer, principal, named, manifest, binding) is None


def test_overrides_bring_and_remove_the_warning():
    """What counts is the merged service."""
    issuer, principal, profile, manifest, _ = bootable_objects()

    def bound(services):
        return declared("PrincipalBinding", "indexer", {**BINDING, "overrides": {"services": services}})

    assert warning(issuer, principal, profile, manifest, bound({"memory": SERVICE}))[2] == UNDECLARED
    broken = declared("Manifest", "prod", {**MANIFEST, "services": {"memory": SERVICE}})
    assert warning(issuer, principal, profile, broken, bound({"memory": {"auth": None}})) is None
    assert warning(issuer, principal, profile, broken, bound({"memory": {"auth": {"secretRef": "db"}}})) is None
    assert warning(issuer, principal, profile, broken, bound({"memory": None})) is None


def test_only_what_is_served_is_warned_about():
    """An inactive Binding gives no packet."""
    issuer, principal, profile, _, _ = bootable_objects()
    manifest = declared("Manifest", "prod", {**MANIFEST, "services": {"memory": SERVICE}})
    inactive = declared("PrincipalBinding", "indexer", {**BINDING, "active": False})
    assert warning(issuer, principal, profile, manifest, inactive) is None


def test_a_broken_manifest_is_one_issue_of_a_plan():
    """Not one for each of the Bindings that wait for it; what else they miss is still told."""
    bindings = {
        ObjectKey("PrincipalBinding", "team", f"b{number}"): {**BINDING, "principalRef": {"name": f"p{number}"}}
        for number in range(50)
    }
    principals = {ObjectKey("Principal", "team", f"p{number}"): {"type": "component"} for number in range(50)}
    objects = {
        **bindings,
        **principals,
        ObjectKey("Profile", "team", "worker"): PROFILE,
        ObjectKey("Manifest", "team", "prod"): {"services": {"a": {}}},
    }
    plan = make_plan(world(), propose_world(world(), objects))
    assert [(issue.key.kind, issue.state) for issue in plan.issues] == [("Manifest", "Invalid")]
    del objects[ObjectKey("Profile", "team", "worker")]
    plan = make_plan(world(), propose_world(world(), objects))
    assert {issue.key.kind for issue in plan.issues} == {"Manifest", "PrincipalBinding"}
    assert all("Profile worker does not exist" in issue.message for issue in plan.issues if issue.state == "Unresolved")
