"""Broken updates: the last good version is served, less what the update takes away (D-20, D-33)."""

import pytest
from tests.unit.crds.worlds import (
    BINDING,
    MANIFEST,
    PRINCIPAL,
    PROFILE,
    api_key,
    bootable_objects,
    compiled,
    conditions_of,
    declared,
    external_issuer,
    last_good_of,
    rows,
    verdict_of,
    world,
)

from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world

BROKEN = {"nonsense": 1}


def updated(kind, name, before, after, **more):
    """What is served when `before` was good and `after` is what stands there now."""
    first = declared(kind, name, before, **more)
    second = declared(kind, name, {**after, **BROKEN}, generation=2, **more)
    others = [item for item in bootable_objects() if item.key != first.key]
    result = compiled(*others, second, last_good=last_good_of(first))
    assert conditions_of(verdict_of(result, kind, name))["Accepted"][0] == "False"
    return result


@pytest.mark.invariant("INV-007")
@pytest.mark.parametrize(
    ("kind", "name", "spec", "table"),
    [
        ("Principal", "indexer", PRINCIPAL, "principal"),
        ("Profile", "worker", PROFILE, "profile"),
        ("Manifest", "prod", MANIFEST, "manifest"),
        ("PrincipalBinding", "indexer", BINDING, "binding"),
    ],
)
def test_a_broken_update_changes_nothing_that_is_served(kind, name, spec, table):
    """Rows and packets stay as they were, and the verdict says which generation they are of."""
    before = compiled(*bootable_objects())
    result = updated(kind, name, spec, {**spec})
    assert rows(result, table) == rows(before, table)
    assert result.packets == before.packets
    verdict = verdict_of(result, kind, name)
    assert (verdict.generation, verdict.served_generation) == (2, 1)
    assert conditions_of(verdict)["Compiled"] == ("False", reasons.LAST_GOOD_SERVED)
    assert conditions_of(verdict)["Ready"] == ("False", reasons.UNKNOWN_FIELD)
    assert conditions_of(verdict)["Stalled"] == ("True", reasons.UNKNOWN_FIELD)
    assert verdict.uid not in result.good


@pytest.mark.parametrize("spec", [None, [], "x", 7])
def test_an_unreadable_spec_takes_nothing_away(spec):
    """Garbage is no statement."""
    first = declared("PrincipalBinding", "indexer", BINDING)
    second = declared("PrincipalBinding", "indexer", spec, generation=2)
    others = [item for item in bootable_objects() if item.key != first.key]
    result = compiled(*others, second, last_good=last_good_of(first))
    assert result.packets == compiled(*bootable_objects()).packets


def test_without_a_last_good_version_nothing_is_served():
    """And one of another incarnation of the object is not its last good."""
    second = declared("Manifest", "prod", BROKEN, generation=2, uid="another")
    others = [item for item in bootable_objects() if item.key.kind != "Manifest"]
    result = compiled(*others, second, last_good=last_good_of(*bootable_objects()))
    assert rows(result, "manifest") == []
    assert verdict_of(result, "Manifest", "prod").served_generation is None


def test_a_last_good_version_is_checked_like_any_other():
    """The database is no authority on rules, which may have become stricter since."""
    poisoned = declared("Manifest", "prod", {"environment": {"deploy": 1}})
    now = declared("Manifest", "prod", BROKEN, generation=2)
    result = compiled(now, last_good=last_good_of(poisoned))
    assert rows(result, "manifest") == []


@pytest.mark.parametrize(("value", "suspended"), [(True, True), ("true", True), (False, False), (None, False)])
def test_a_suspension_takes_effect_in_a_broken_update(value, suspended):
    """Whatever is not plainly false suspends."""
    result = updated("Principal", "indexer", PRINCIPAL, {**PRINCIPAL, "suspended": value})
    assert rows(result, "principal")[0]["suspended"] is suspended


def test_a_suspension_is_not_lifted_by_a_broken_update():
    """Nobody gains from a broken spec."""
    result = updated("Principal", "indexer", {**PRINCIPAL, "suspended": True}, PRINCIPAL)
    assert rows(result, "principal")[0]["suspended"] is True


def test_removed_keys_and_subjects_go_and_new_ones_do_not_come():
    """The intersection of both versions, key by key."""
    before = {
        "subjects": [{"serviceAccount": {"name": "a"}}, {"serviceAccount": {"name": "b"}}],
        "apiKeys": [api_key(1), api_key(2)],
    }
    after = {
        "subjects": [{"serviceAccount": {"name": "b"}}, {"serviceAccount": {"name": "c"}}, 7],
        "apiKeys": [api_key(2), api_key(3), "x"],
    }
    result = updated("Principal", "indexer", before, after)
    assert [row["subject"] for row in rows(result, "subject")] == ["system:serviceaccount:team:b"]
    assert [row["key_id"] for row in rows(result, "api_key")] == [f"{2:010d}"]


def test_absent_lists_are_empty_and_unreadable_ones_say_nothing():
    """Deleting `apiKeys:` revokes; a slip that makes it text does not lock out a fleet."""
    before = {**PRINCIPAL, "apiKeys": [api_key(1)]}
    gone = updated("Principal", "indexer", before, {"type": "component"})
    assert rows(gone, "api_key") == rows(gone, "subject") == []
    slip = updated("Principal", "indexer", before, {"apiKeys": "x", "subjects": {"a": 1}})
    assert len(rows(slip, "api_key")) == len(rows(slip, "subject")) == 1


@pytest.mark.parametrize(
    ("before", "after", "served"),
    [
        (None, "2027-01-01T00:00:00Z", "2027-01-01T00:00:00+00:00"),
        ("2028-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z", "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T00:00:00Z", None, "2027-01-01T00:00:00+00:00"),
        ("2027-01-01T00:00:00Z", "soon", "2027-01-01T00:00:00+00:00"),
        (None, "soon", None),
    ],
)
def test_an_earlier_expiry_takes_effect_and_a_later_one_does_not(before, after, served):
    """The earliest end that either version gives."""

    def keyed(end):
        return {"apiKeys": [api_key(1, **({"expiresAt": end} if end else {}))]}

    result = updated("Principal", "indexer", keyed(before), keyed(after))
    assert rows(result, "api_key")[0]["expires_at"] == served


@pytest.mark.parametrize(
    ("before", "after", "served"),
    [
        ("admin", "observer", "observer"),
        ("admin", "component", "component"),
        ("admin", "delegate", "component"),
        ("delegate", "principal", "principal"),
        ("principal", "delegate", "principal"),
        ("observer", "admin", "observer"),
        ("component", "admin", "component"),
        ("worker", "component", "component"),
        ("admin", "emperor", "admin"),
        ("admin", None, "admin"),
        ("admin", ["x"], "admin"),
    ],
)
def test_a_demotion_takes_effect_and_a_promotion_does_not(before, after, served):
    """Types are compared by what they may do."""
    result = updated("Principal", "indexer", {"type": before}, {"type": after})
    assert rows(result, "principal")[0]["type"] == served


def test_scope_and_rights_are_taken_away_and_not_given():
    """In the system namespace, where they may be had at all."""
    high = {"scope": "Cluster", "rights": ["witness"]}
    for before, after, served in (
        (high, {}, ("Namespace", [])),
        ({}, high, ("Namespace", [])),
        (high, high, ("Cluster", ["witness"])),
    ):
        first = declared("Principal", "p", before, namespace="metagate-system")
        second = declared("Principal", "p", {**after, **BROKEN}, generation=2, namespace="metagate-system")
        row = rows(compiled(second, last_good=last_good_of(first)), "principal")[0]
        assert (row["scope"], row["rights"]) == served


@pytest.mark.parametrize(("value", "count"), [(False, 0), ("no", 0), (True, 1), (None, 1)])
def test_deactivation_takes_effect_in_a_broken_update(value, count):
    """Whatever is not plainly true deactivates."""
    result = updated("PrincipalBinding", "indexer", BINDING, {**BINDING, "active": value})
    assert len(rows(result, "binding")) == count


@pytest.mark.parametrize(
    ("before", "after", "served"),
    [
        (["a", "b"], ["b", "c"], ["b"]),
        (["a*"], ["ab", "b"], ["ab"]),
        (["ab*"], ["a*"], ["ab*"]),
        (["*"], ["x*"], ["x*"]),
        (["a"], [], []),
        (["a"], "a", ["a"]),
        (["a*", "b"], ["*"], ["a*", "b"]),
    ],
)
def test_components_are_those_that_both_versions_permit(before, after, served):
    """Narrowing a glob narrows; widening one does not widen."""
    result = updated("PrincipalBinding", "indexer", {**BINDING, "components": before}, {**BINDING, "components": after})
    assert rows(result, "binding")[0]["components"] == served


def test_an_issuer_loses_what_a_broken_update_removes():
    """Namespaces, audiences and algorithms are intersected."""
    before = external_issuer(
        audiences=["a", "b"],
        algorithms=["RS256", "ES256"],
        namespaces=["team", "other"],
        subjectPattern="{namespace}:*",
    )
    before["audiences"] = ["a", "b"]
    after = {**before, "audiences": ["b", "c"], "algorithms": ["ES256", "none"], "namespaces": ["other", "third"]}
    subject = {"subjects": [{"issuer": "https://idp.example.com", "subject": "team:x"}]}
    first = declared("TokenIssuer", "idp", before)
    second = declared("TokenIssuer", "idp", {**after, **BROKEN}, generation=2)
    result = compiled(second, declared("Principal", "p", subject), last_good=last_good_of(first))
    (row,) = rows(result, "issuer")
    assert (row["audiences"], row["algorithms"]) == (["b"], ["ES256"])
    assert conditions_of(verdict_of(result, "Principal", "p"))["ResolvedRefs"] == (
        "False",
        reasons.ISSUER_NOT_ADMITTING,
    )
    assert rows(result, "subject") == []


def test_a_removed_inline_key_is_removed_in_a_broken_update():
    """A key that leaked must not stay believed because of a typo beside it."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    keys = [{**jwk, "kid": "one"}, {**jwk, "kid": "two"}]

    def issuer(keys, **more):
        jwks = {"source": "Inline", "inline": {"keys": keys}}
        return {"issuer": "x", "audiences": ["a"], "algorithms": ["EdDSA"], "jwks": jwks, **more}

    first = declared("TokenIssuer", "idp", issuer(keys))
    second = declared("TokenIssuer", "idp", issuer(keys[1:], **BROKEN), generation=2)
    assert [row["kid"] for row in rows(compiled(first), "issuer_key")] == ["one", "two"]
    assert [row["kid"] for row in rows(compiled(second, last_good=last_good_of(first)), "issuer_key")] == ["two"]


def test_a_repaired_object_is_served_again():
    """Putting a valid version ends the last good one's reign."""
    space = world(*bootable_objects())
    last = dict(compile_world(space, {}).good)
    broken = declared("Manifest", "prod", BROKEN, generation=2)
    result = compile_world(space, last, space.put(broken))
    assert verdict_of(result, "Manifest", "prod").served_generation == 1
    fixed = declared("Manifest", "prod", {**MANIFEST, "environment": {"region": "us-1"}}, generation=3)
    result = compile_world(space, last, space.put(fixed))
    assert verdict_of(result, "Manifest", "prod").served_generation == 3
    assert verdict_of(result, "PrincipalBinding", "indexer").ready
    assert result.good[fixed.uid] is fixed


def test_users_are_counted_by_what_is_served():
    """A broken Binding still uses what its last good version refers to."""
    elsewhere = {**BINDING, "manifestRef": {"name": "gone"}, **BROKEN}
    result = updated("PrincipalBinding", "indexer", BINDING, elsewhere)
    assert verdict_of(result, "Manifest", "prod").uses == 1
