"""What admission warns of when the neighbours of an object are known."""

from dataclasses import replace

from tests.unit.crds.worlds import MANIFEST, PROFILE, SETTINGS, bootable_objects, declared

from metagate_operator.cluster.admission.reference_checker import STAND_INS, reference_warnings

SERVICE = {"endpoint": "http://mail:25", "auth": {"scheme": "basic", "secretRef": "mail"}}


def test_a_secret_that_the_profile_does_not_name_is_warned_of() -> None:
    """By the path in the Manifest and the name of the Profile, so that somebody can mend it."""
    issuer, principal, profile, _, binding = bootable_objects()
    manifest = declared("Manifest", "prod", {**MANIFEST, "services": {"mail": SERVICE}})
    (warning,) = reference_warnings(binding, [issuer, principal, profile, manifest], SETTINGS)
    assert "spec.services.mail.auth.secretRef of Manifest prod" in warning
    assert "spec.secretRefs of Profile worker" in warning
    complete = declared("Profile", "worker", {**PROFILE, "secretRefs": [{"name": "mail", "ref": "MAIL"}]})
    assert reference_warnings(binding, [issuer, principal, complete, manifest], SETTINGS) == ()


def test_a_stand_in_says_nothing_of_secrets() -> None:
    """Of a Profile that is served in an earlier version nobody here knows the secretRefs."""
    issuer, principal, profile, _, binding = bootable_objects()
    manifest = declared("Manifest", "prod", {**MANIFEST, "services": {"mail": SERVICE}})
    standing = replace(profile, spec=STAND_INS["Profile"])
    assert reference_warnings(binding, [issuer, principal, standing, manifest], SETTINGS) == ()


POLICY = {
    "limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 10},
    "surfaces": [{"surfaceId": "public", "escalateTo": "on-call"}],
    "shadow": {"policyProfileRef": {"name": "next"}},
}


def test_what_a_policy_profile_names_is_warned_of() -> None:
    """Each reference that does not resolve by its path, and a tree that nothing bounds."""
    policy = declared("PolicyProfile", "p", POLICY)
    missing = reference_warnings(policy, [], SETTINGS)
    assert [warning.split(":")[0] for warning in missing] == [
        "spec.shadow.policyProfileRef",
        "spec.surfaces[0].escalateTo",
    ]
    there = [declared("Principal", "on-call", {}), declared("PolicyProfile", "next", {"limits": {"maxSpawnDepth": 1}})]
    assert reference_warnings(policy, there, SETTINGS) == ()
    unbounded = declared("PolicyProfile", "p", {**POLICY, "limits": {"maxSpawnDepth": 5}})
    (warning,) = reference_warnings(unbounded, there, SETTINGS)
    assert warning.startswith("spec.limits.maxTotalDescendants")


def test_a_shadow_that_is_served_in_an_earlier_version_resolves() -> None:
    """And the warning about the object itself is not lost beside its stand-in."""
    unbounded = declared("PolicyProfile", "p", {**POLICY, "limits": {"maxSpawnDepth": 5}})
    standing = replace(declared("PolicyProfile", "next", {}), spec=STAND_INS["PolicyProfile"])
    (warning,) = reference_warnings(unbounded, [declared("Principal", "on-call", {}), standing], SETTINGS)
    assert warning.startswith("spec.limits.maxTotalDescendants")


def test_what_a_template_includes_is_not_judged_by_what_was_not_looked_up() -> None:
    """Only the template's own Principals were: what an included one names is that one's warning."""
    step = {"id": "own", "capability": "x", "job": {}}
    inner = declared(
        "PlanTemplate",
        "inner",
        {"capability": "inner", "steps": [step], "escalation": [{"on": ["failure"], "to": "on-call"}]},
    )
    including = {
        "capability": "outer",
        "escalation": [],
        "steps": [{"id": "more", "plan": {"templateRef": {"name": "inner"}}}],
    }
    outer = declared("PlanTemplate", "outer", including)
    assert reference_warnings(outer, [inner], SETTINGS) == ()
    (warning,) = reference_warnings(outer, [], SETTINGS)
    assert warning.startswith("spec.steps[0].plan.templateRef: PlanTemplate inner does not exist")
