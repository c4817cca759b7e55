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
