"""From what is declared to what is served."""

import copy
import json

import pytest
from tests.unit.crds.worlds import (
    BINDING,
    MANIFEST,
    POLICY,
    PRINCIPAL,
    PROFILE,
    all_messages,
    api_key,
    bootable_objects,
    compiled,
    conditions_of,
    declared,
    last_good_of,
    rows,
    verdict_of,
    world,
)

from metagate_crds import canonical_json, packet, reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.objects import CompileSettings, ObjectKey


def replaced(objects, kind, spec, *, name=None, generation=1):
    return [
        declared(kind, item.key.name, spec, namespace=item.key.namespace, generation=generation)
        if item.key.kind == kind and name in {None, item.key.name}
        else item
        for item in objects
    ]


def served_packet(result, principal="indexer"):
    (digest,) = [row["digest"] for row in rows(result, "binding") if row["principal_key"] == principal]
    return json.loads(result.packets[digest])


def changed(path, value):
    spec = copy.deepcopy({"Profile": PROFILE, "Manifest": MANIFEST}[path[0]])
    spec[path[1]] = value
    return path[0], spec


def test_a_believable_world_is_served_whole():
    """Every row that a component's boot needs, and nothing else."""
    result = compiled(*bootable_objects())
    assert rows(result, "principal") == [
        {
            "tenant": "tenant-team",
            "principal_key": "indexer",
            "type": "component",
            "scope": "Namespace",
            "rights": [],
            "suspended": False,
            "generation": 1,
        }
    ]
    assert rows(result, "subject") == [
        {
            "issuer": "https://cluster.example.com",
            "subject": "system:serviceaccount:team:indexer",
            "tenant": "tenant-team",
            "principal_key": "indexer",
        }
    ]
    ((digest, body),) = result.packets.items()
    assert rows(result, "binding") == [
        {
            "tenant": "tenant-team",
            "principal_key": "indexer",
            "name": "indexer",
            "digest": digest,
            "components": ["indexer_*"],
            "sla_seconds": 60,
            "profile": "worker",
            "manifest": "prod",
            "generation": 1,
        }
    ]
    assert json.loads(body) == {
        "profile": "worker",
        "manifest": "prod",
        "capabilities": {"read": True},
        "policy": {"retries": 3},
        "environment": MANIFEST["environment"],
        "services": MANIFEST["services"],
        "memory_map": MANIFEST["memoryMap"],
        "polling": MANIFEST["polling"],
        "schemas": MANIFEST["schemas"],
        "required_env": [{"name": "db", "ref_kind": "Env", "ref_name": "DB_PASSWORD", "required": True}],
    }
    assert body == canonical_json.canonical(json.loads(body))
    assert {(row["kind"], row["name"], row["path"]) for row in rows(result, "reference")} == {
        ("Principal", "indexer", "spec.principalRef"),
        ("Profile", "worker", "spec.profileRef"),
        ("Manifest", "prod", "spec.manifestRef"),
        ("TokenIssuer", "cluster", "spec.subjects[0].issuer"),
    }
    assert all(verdict.ready for verdict in result.verdicts.values())
    assert set(result.good) == {item.uid for item in bootable_objects()}


def test_every_object_has_a_verdict_and_a_resource_row():
    """Status and the resource table say the same."""
    result = compiled(*bootable_objects())
    resources = {row["owner"]: row for row in rows(result, "resource")}
    assert len(resources) == len(result.verdicts) == 5
    for verdict in result.verdicts.values():
        row = resources[verdict.uid]
        assert row["conditions"] == [
            {"type": item.type, "status": item.status, "reason": item.reason, "message": item.message}
            for item in verdict.conditions
        ]
        assert (row["generation"], row["served_generation"], row["uses"]) == (1, 1, verdict.uses)
        assert row["tenant"] == (None if verdict.key.kind == "TokenIssuer" else "tenant-team")
    assert verdict_of(result, "Manifest", "prod").uses == verdict_of(result, "Profile", "worker").uses == 1


@pytest.mark.invariant("INV-011")
@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("Profile", "capabilities"), {"write": True}, "capabilities"),
        (("Profile", "policy"), {"retries": 9}, "policy"),
        (
            ("Profile", "secretRefs"),
            [{"name": "x", "kind": "File", "ref": "/run/x", "required": False}],
            "required_env",
        ),
        (("Manifest", "environment"), {"region": "us-1"}, "environment"),
        (("Manifest", "services"), {"a": {"endpoint": "http://a"}}, "services"),
        (("Manifest", "memoryMap"), {"long": "disk"}, "memory_map"),
        (("Manifest", "polling"), {"x": {"endpoint": "http://x"}}, "polling"),
        (("Manifest", "schemas"), {"y": {"ref": "urn:y"}}, "schemas"),
    ],
)
def test_each_declared_field_moves_exactly_its_packet_field(path, value, field):
    """Change one field of a Profile or Manifest: one field of the packet follows, and the digest with it."""
    before = compiled(*bootable_objects())
    kind, spec = changed(path, value)
    after = compiled(*replaced(bootable_objects(), kind, spec))
    old, new = served_packet(before), served_packet(after)
    assert {name for name in packet.SHARED_FIELDS if old[name] != new[name]} == {field}
    assert set(before.packets).isdisjoint(after.packets)


@pytest.mark.invariant("INV-011", "INV-015")
@pytest.mark.parametrize(("startup", "seconds"), [({"slaSeconds": 5}, 5), ({"slaSeconds": 86400}, 86400), ({}, 120)])
def test_the_profile_gives_the_deadline(startup, seconds):
    """The SLA is the Profile's, else the installation's; it is no part of the packet's digest."""
    result = compiled(*replaced(bootable_objects(), "Profile", {**PROFILE, "startup": startup}))
    assert rows(result, "binding")[0]["sla_seconds"] == seconds
    assert set(result.packets) == set(compiled(*bootable_objects()).packets)


@pytest.mark.invariant("INV-015")
def test_the_installation_gives_the_default_deadline():
    """DEFAULT_STARTUP_SLA_SECONDS reaches every Profile that says nothing."""
    settings = CompileSettings(cluster_issuer="https://k", default_sla_seconds=7)
    result = compiled(*replaced(bootable_objects(), "Profile", {}), settings=settings)
    assert rows(result, "binding")[0]["sla_seconds"] == 7


@pytest.mark.invariant("INV-010")
def test_overrides_hold_for_their_principal_only():
    """One of two principals on the same Manifest sees the override; everything else is the Manifest's."""
    override = {
        "services": {"memory": {"endpoint": "http://private:1", "auth": None}, "extra": {"endpoint": "http://extra"}},
        "policy": {"retries": None, "strict": True},
        "polling": {"inbox": {"interval": "1m"}},
    }
    result = compiled(
        *bootable_objects(),
        declared("Principal", "special", {}),
        declared(
            "PrincipalBinding", "special", {**BINDING, "principalRef": {"name": "special"}, "overrides": override}
        ),
    )
    plain, special = served_packet(result), served_packet(result, "special")
    assert plain["services"] == MANIFEST["services"]
    assert special["services"] == {
        "memory": {"type": "memorygate", "endpoint": "http://private:1"},
        "mail": MANIFEST["services"]["mail"],
        "extra": {"endpoint": "http://extra"},
    }
    assert special["policy"] == {"strict": True}
    assert special["polling"] == {"inbox": {"endpoint": "http://memory:8001/inbox", "interval": "1m"}}
    assert {name for name in packet.SHARED_FIELDS if plain[name] != special[name]} == {"services", "policy", "polling"}
    body = result.packets[verdict_of(result, "PrincipalBinding", "special").digest]
    assert body == canonical_json.canonical(json.loads(body))


@pytest.mark.invariant("INV-010")
@pytest.mark.parametrize("field", ["deploymentKey", "version", "principalRef", "secretRefs", "startup", "profile"])
def test_identity_is_not_overridden(field):
    """Overrides reach sections of the packet only (D-19)."""
    result = compiled(*replaced(bootable_objects(), "PrincipalBinding", {**BINDING, "overrides": {field: {}}}))
    assert conditions_of(verdict_of(result, "PrincipalBinding", "indexer"))["Accepted"] == (
        "False",
        reasons.NOT_OVERRIDABLE,
    )


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"polling": {"inbox": {"endpoint": None}}}, reasons.MERGE_REFUSED),
        ({"polling": {"new": {"interval": "5s"}}}, reasons.MERGE_REFUSED),
        ({"services": {"memory": {"endpoint": ["x"]}}}, reasons.MERGE_REFUSED),
        ({"services": {"memory": {"auth": {"scheme": None}}}}, reasons.MERGE_REFUSED),
        ({"schemas": {"receipt": {"extra": "x"}}}, reasons.MERGE_REFUSED),
        ({"environment": {f"k{number}": "words " * 100 for number in range(420)}}, None),
    ],
)
def test_the_merged_result_is_looked_at_again(overrides, reason):
    """Valid each, refused together: no packet, and a reason."""
    objects = replaced(bootable_objects(), "PrincipalBinding", {**BINDING, "overrides": overrides})
    if reason is None:
        more = {**MANIFEST, "environment": {f"m{number}": "words " * 100 for number in range(100)}}
        objects, reason = replaced(objects, "Manifest", more), reasons.PACKET_TOO_LARGE
    result = compiled(*objects)
    verdict = verdict_of(result, "PrincipalBinding", "indexer")
    assert conditions_of(verdict)["Accepted"] == ("True", reasons.VALID)
    assert conditions_of(verdict)["Compiled"] == conditions_of(verdict)["Ready"] == ("False", reason)
    assert conditions_of(verdict)["Stalled"] == ("True", reason)
    assert rows(result, "binding")[0]["digest"] is None
    assert result.packets == {}


def test_a_binding_whose_merge_is_refused_keeps_its_last_good_packet():
    """A refused merge is an invalid update like any other (D-20)."""
    before = bootable_objects()
    broken = replaced(
        before,
        "PrincipalBinding",
        {**BINDING, "overrides": {"polling": {"inbox": {"endpoint": None}}}, "components": ["x"]},
        generation=2,
    )
    result = compiled(*broken, last_good=last_good_of(*before))
    verdict = verdict_of(result, "PrincipalBinding", "indexer")
    assert result.packets == compiled(*before).packets
    assert (verdict.served_generation, verdict.generation) == (1, 2)
    assert rows(result, "binding")[0]["components"] == []
    assert rows(result, "binding")[0]["generation"] == 1
    assert verdict.uid not in result.good


def test_the_objects_of_a_last_good_packet_are_watched():
    """A Binding that is served with an earlier version follows what that version refers to."""
    before = [*bootable_objects(), declared("Manifest", "next", MANIFEST)]
    refused = {**BINDING, "manifestRef": {"name": "next"}, "overrides": {"polling": {"inbox": {"endpoint": None}}}}
    space = world(*before)
    last = dict(compile_world(space, {}).good)
    compile_world(space, last, space.put(declared("PrincipalBinding", "indexer", refused, generation=2)))
    affected = space.put(declared("Manifest", "prod", {**MANIFEST, "environment": {"region": "us-1"}}, generation=2))
    result = compile_world(space, last, affected)
    assert served_packet(result)["environment"] == {"region": "us-1"}
    assert (
        verdict_of(result, "Manifest", "prod").uses,
        verdict_of(result, "PrincipalBinding", "indexer").served_generation,
    ) == (0, 1)


@pytest.mark.invariant("INV-009")
def test_the_oldest_of_two_active_bindings_counts():
    """The younger is told who won; when the elder goes, it takes over."""
    younger = declared("PrincipalBinding", "a-younger", {**BINDING, "components": ["*"]}, age=1)
    result = compiled(*bootable_objects(), younger)
    assert [row["name"] for row in rows(result, "binding")] == ["indexer"]
    verdict = verdict_of(result, "PrincipalBinding", "a-younger")
    assert conditions_of(verdict)["Conflicted"] == ("True", reasons.BINDING_CONFLICT)
    assert conditions_of(verdict)["Ready"] == ("False", reasons.BINDING_CONFLICT)
    assert "indexer" in verdict.condition("Conflicted").message
    assert verdict.served_generation is None
    assert verdict_of(result, "PrincipalBinding", "indexer").ready
    space = world(*bootable_objects(), younger)
    compile_world(space, {})
    after = compile_world(space, {}, space.remove(ObjectKey("PrincipalBinding", "team", "indexer")))
    assert verdict_of(after, "PrincipalBinding", "a-younger").ready
    assert after.rows[ObjectKey("PrincipalBinding", "team", "indexer")] == ()


@pytest.mark.invariant("INV-009")
def test_equal_age_is_decided_by_name_and_inactive_bindings_do_not_compete():
    """Creation times have seconds; names break the tie."""
    result = compiled(*bootable_objects(), declared("PrincipalBinding", "a", BINDING))
    assert [row["name"] for row in rows(result, "binding")] == ["a"]
    result = compiled(*bootable_objects(), declared("PrincipalBinding", "a", {**BINDING, "active": False}))
    assert [row["name"] for row in rows(result, "binding")] == ["indexer"]
    assert conditions_of(verdict_of(result, "PrincipalBinding", "a"))["Ready"] == ("True", reasons.INACTIVE)


@pytest.mark.invariant("INV-007", "INV-041")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("Principal", reasons.PRINCIPAL_NOT_FOUND),
        ("Profile", reasons.PROFILE_NOT_FOUND),
        ("Manifest", reasons.MANIFEST_NOT_FOUND),
    ],
)
def test_a_missing_link_is_named_and_gives_no_packet(kind, reason):
    """Resolution is complete or there is nothing to serve."""
    result = compiled(*[item for item in bootable_objects() if item.key.kind != kind])
    verdict = verdict_of(result, "PrincipalBinding", "indexer")
    assert conditions_of(verdict)["ResolvedRefs"] == conditions_of(verdict)["Ready"] == ("False", reason)
    assert f"spec.{kind.lower()}Ref: {kind}" in verdict.condition("ResolvedRefs").message
    if kind != "Principal":
        assert rows(result, "binding")[0]["digest"] is None
        assert result.packets == {}


def test_references_stay_inside_the_namespace():
    """A Principal next door is as good as none."""
    objects = [item for item in bootable_objects() if item.key.kind != "Principal"]
    result = compiled(*objects, declared("Principal", "indexer", {}, namespace="other"))
    assert conditions_of(verdict_of(result, "PrincipalBinding", "indexer"))["ResolvedRefs"] == (
        "False",
        reasons.PRINCIPAL_NOT_FOUND,
    )
    assert verdict_of(result, "Principal", "indexer", "other").uses == 0


def test_a_reference_to_something_never_valid_says_so():
    """Existing is not enough."""
    result = compiled(*replaced(bootable_objects(), "Manifest", {"polling": 1}))
    assert conditions_of(verdict_of(result, "PrincipalBinding", "indexer"))["ResolvedRefs"] == (
        "False",
        reasons.REFERENCE_NOT_VALID,
    )
    assert conditions_of(verdict_of(result, "Manifest", "prod")) == {
        "Ready": ("False", reasons.INVALID_FIELD),
        "Accepted": ("False", reasons.INVALID_FIELD),
        "ResolvedRefs": ("Unknown", reasons.NOT_RESOLVED),
        "Compiled": ("False", reasons.NOTHING_SERVED),
        "Stalled": ("True", reasons.INVALID_FIELD),
    }


@pytest.mark.invariant("INV-018")
def test_the_digest_names_the_packet_and_nothing_else():
    """Principals that see the same share one; each input moves it; what the packet does not hold does not."""
    base = set(compiled(*bootable_objects()).packets)
    shared = compiled(
        *bootable_objects(),
        declared("Principal", "second", {}),
        declared("PrincipalBinding", "second", {**BINDING, "principalRef": {"name": "second"}, "components": []}),
    )
    assert set(shared.packets) == base
    irrelevant = [
        replaced(bootable_objects(), "Principal", {**PRINCIPAL, "apiKeys": [api_key(1)]}),
        replaced(bootable_objects(), "PrincipalBinding", {**BINDING, "components": ["*"], "overrides": {"policy": {}}}),
        replaced(bootable_objects(), "Manifest", {**MANIFEST, "version": 9, "deploymentKey": "blue"}, generation=7),
    ]
    for objects in irrelevant:
        assert set(compiled(*objects).packets) == base
    relevant = [
        replaced(bootable_objects(), "PrincipalBinding", {**BINDING, "overrides": {"policy": {"retries": 4}}}),
        replaced(bootable_objects(), "Profile", {**PROFILE, "secretRefs": []}),
        replaced(bootable_objects(), "Manifest", {**MANIFEST, "environment": {}}),
    ]
    digests = [set(compiled(*objects).packets) for objects in relevant]
    assert all(own.isdisjoint(base) for own in digests)


def test_a_policy_profile_is_served_with_its_hash():
    """The hash is of what is served, defaults included, so a cluster's object and a file agree."""
    spelled = {"limits": {"maxSpawnDepth": 5}, "budget": {"required": False}, "surfaces": []}
    first = rows(compiled(declared("PolicyProfile", "p", POLICY)), "policy_profile")[0]
    second = rows(compiled(declared("PolicyProfile", "p", spelled)), "policy_profile")[0]
    assert first == second
    assert first["policy_hash"] == canonical_json.digest(canonical_json.canonical(first["body"]))
    assert first["body"]["limits"] == {"maxSpawnDepth": 5}


def test_api_keys_are_rows_of_digests():
    """Nothing but the digest, the id, the owner and the end, in UTC."""
    spec = {"apiKeys": [api_key(1), api_key(2, expiresAt="2027-02-01T02:00:00+02:00")]}
    assert rows(compiled(declared("Principal", "p", spec)), "api_key") == [
        {
            "sha256": f"{1:064x}",
            "key_id": f"{1:010d}",
            "tenant": "tenant-team",
            "principal_key": "p",
            "expires_at": None,
        },
        {
            "sha256": f"{2:064x}",
            "key_id": f"{2:010d}",
            "tenant": "tenant-team",
            "principal_key": "p",
            "expires_at": "2027-02-01T00:00:00+00:00",
        },
    ]


@pytest.mark.invariant("INV-041")
def test_deleting_a_binding_takes_it_out_at_once():
    """A deletion is a revocation: no rows, whatever was good before (D-20)."""
    space = world(*bootable_objects())
    compile_world(space, {})
    key = ObjectKey("PrincipalBinding", "team", "indexer")
    result = compile_world(space, last_good_of(*bootable_objects()), space.remove(key))
    assert result.rows[key] == ()
    assert key not in result.verdicts
    assert verdict_of(result, "Manifest", "prod").uses == 0


def test_a_suspended_principal_is_served_as_suspended():
    """Its subjects stay its own, so that it is refused as itself."""
    result = compiled(*replaced(bootable_objects(), "Principal", {**PRINCIPAL, "suspended": True}))
    assert rows(result, "principal")[0]["suspended"] is True
    assert len(rows(result, "subject")) == 1
    assert conditions_of(verdict_of(result, "Principal", "indexer"))["Ready"] == ("True", reasons.SUSPENDED)


def test_objects_of_an_unknown_namespace_have_no_tenant():
    """Nothing is served to nobody; when the namespace appears, everything is."""
    space = world(*bootable_objects())
    space.remove_namespace("team")
    result = compile_world(space, {})
    assert rows(result, "binding") == rows(result, "principal") == []
    assert conditions_of(verdict_of(result, "Manifest", "prod"))["Ready"] == ("False", reasons.NAMESPACE_UNKNOWN)
    assert set(result.good) == {"uid-TokenIssuer--cluster"}
    again = compile_world(space, {}, space.put_namespace(world().namespaces["team"]))
    assert all(verdict.ready for verdict in again.verdicts.values())


def test_messages_are_bounded_and_say_how_much_is_missing():
    """A status is no place for a hundred kilobytes."""
    spec = {"environment": {f"key-{number:03d}-{'x' * 40}": {"deploy": 1} for number in range(150)}}
    message = verdict_of(compiled(declared("Manifest", "m", spec)), "Manifest", "m").condition("Accepted").message
    assert len(message) <= 4000
    assert message.endswith("more")


def test_a_row_knows_its_content():
    """Equal rows have equal content, whatever the order of their values."""
    first, second = compiled(*bootable_objects()), compiled(*reversed(bootable_objects()))
    for key, own_rows in first.rows.items():
        assert [row.content for row in own_rows] == [row.content for row in second.rows[key]]
    assert all_messages(first)


def test_putting_the_same_again_affects_nobody():
    """A resync that finds nothing new costs nothing."""
    space = world(*bootable_objects())
    assert all(space.put(item) == frozenset() for item in bootable_objects())
    assert space.remove(ObjectKey("Manifest", "team", "unknown")) == frozenset()
