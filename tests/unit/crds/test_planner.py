"""What a change would do, before it is applied (issue: plan)."""

import time
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.crds.strategies import objects, settings_of_worlds, spaces, worlds
from tests.unit.crds.test_speed import crowd
from tests.unit.crds.worlds import BINDING, MANIFEST, PROFILE, api_key, bootable_objects, declared, last_good_of, world

from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.world import World
from metagate_crds.objects import ObjectKey
from metagate_crds.plan.packet_diff import ABSENT, diff_packets
from metagate_crds.plan.planner import PrincipalRef, make_plan
from metagate_crds.plan.proposal import propose_world

many = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
MF = ObjectKey("Manifest", "team", "prod")
PB = ObjectKey("PrincipalBinding", "team", "indexer")
PR = ObjectKey("Principal", "team", "indexer")


def planned(specs, *now, prune=False):
    current = world(*(now or bootable_objects()))
    return make_plan(current, propose_world(current, specs, prune=prune))


def test_nothing_changes_nothing():
    """The same objects again: an empty plan."""
    assert planned({MF: MANIFEST, PB: BINDING}).empty


def test_one_manifest_of_many_is_one_entry():
    """Two thousand Bindings with one Manifest: one effect, every principal in it, the paths with both values."""
    now = world(*crowd(2_000))
    plan = make_plan(now, propose_world(now, {MF: {**MANIFEST, "environment": {"region": "us-1", "new": None}}}))
    [effect] = plan.effects
    assert len(effect.principals) == 2_000
    assert [(item.path, item.before, item.after) for item in effect.differences] == [
        (("environment", "new"), ABSENT, None),
        (("environment", "region"), "eu-1", "us-1"),
    ]
    assert effect.access == ()
    assert plan.objects["changed"] == (MF,)


def test_different_packets_with_equal_differences_are_one_entry():
    """Overrides make their packets differ; what changes about them does not."""
    now = [declared("Profile", "worker", PROFILE), declared("Manifest", "prod", MANIFEST)]
    for number in range(5):
        spec = {**BINDING, "principalRef": {"name": f"p{number}"}, "overrides": {"policy": {"n": number}}}
        now += [
            declared("Principal", f"p{number}", {"apiKeys": [api_key(number)]}),
            declared("PrincipalBinding", f"b{number}", spec),
        ]
    [effect] = planned({MF: {**MANIFEST, "memoryMap": {}}}, *now).effects
    assert len(effect.principals) == 5


def test_who_gains_and_loses_access():
    """Suspended: boots no more. New: boots. Components and keys are named."""
    suspended = planned({PR: {"suspended": True, "apiKeys": [api_key(1)]}})
    [effect] = suspended.effects
    assert ("boots", True, False) in effect.access
    assert ("suspended", False, True) in effect.access
    new = planned(
        {
            ObjectKey("Principal", "team", "new"): {"apiKeys": [api_key(7)]},
            ObjectKey("PrincipalBinding", "team", "new"): {**BINDING, "principalRef": {"name": "new"}},
        }
    )
    [effect] = new.effects
    assert effect.principals == (PrincipalRef("team", "new"),)
    assert effect.before is None
    assert ("boots", ABSENT, True) in effect.access
    narrower = planned({PB: {**BINDING, "components": ["other"]}})
    assert narrower.effects[0].access == (("components", ["indexer_*"], ["other"]),)
    gone = planned({}, prune=True)
    assert gone.effects[0].after is None
    assert len(gone.objects["removed"]) == 5


def test_invalid_conflicting_and_unresolved_are_troubles():
    """And an invalid update leaves the packet as it is (D-20)."""
    broken = planned({MF: {"nonsense": 1}})
    assert [(item.key, item.state) for item in broken.issues] == [(MF, "Invalid")]
    assert broken.effects == ()
    second = ObjectKey("PrincipalBinding", "team", "a-second")
    assert [(item.key, item.state) for item in planned({second: BINDING}).issues] == [(second, "Conflicted")]
    dangling = planned({PB: {**BINDING, "profileRef": {"name": "nobody"}}})
    assert [(item.key, item.state) for item in dangling.issues] == [(PB, "Unresolved")]
    assert ("boots", True, False) in dangling.effects[0].access
    current = world(*(replace(item, spec={"x": 1}) if item.key == MF else item for item in bootable_objects()))
    assert [item.key for item in make_plan(current, propose_world(current, {MF: MANIFEST})).resolved] != []


def test_true_is_not_one():
    """Values differ as JSON does."""
    assert [item.path for item in diff_packets(b'{"a":1,"b":1}', b'{"a":true,"b":1.0}')] == [("a",), ("b",)]
    entry, true = ({**MANIFEST, "environment": {"flag": flag}} for flag in (1, True))
    plan = planned({MF: true}, *(replace(item, spec=entry) if item.key == MF else item for item in bootable_objects()))
    assert plan.objects["changed"] == (MF,)
    assert plan.effects[0].differences[0].path == ("environment", "flag")


@many
@given(worlds(), st.lists(objects(), max_size=6, unique_by=lambda item: item.key), settings_of_worlds, st.booleans())
def test_applying_what_was_planned_gives_what_plan_printed(now, change, chosen, prune):
    """Object by object, as a cluster would tell of them: the same packets, byte for byte, for exactly these principals."""
    current = World(chosen, spaces(), now)
    plan = make_plan(current, propose_world(current, {item.key: item.spec for item in change}, prune=prune))
    served = World(chosen, spaces(), now)
    last_good = dict(compile_world(served, {}).good)
    if prune:
        for key in set(served.objects) - {item.key for item in change}:
            last_good.pop(served.objects[key].uid, None)
            served.remove(key)
    young = max((item.created for item in now), default=None)
    from datetime import timedelta

    for place, item in enumerate(sorted(change, key=lambda item: item.key)):
        known = current.objects.get(item.key)
        if known is None:
            served.put(replace(item, created=(young or item.created) + timedelta(seconds=place + 1)))
        else:
            served.put(replace(known, spec=item.spec, generation=known.generation + 1))
    after = compile_world(served, last_good)
    packets = {
        PrincipalRef(key.namespace, row.values["principal_key"]): row.values["digest"]
        for key, rows in after.rows.items()
        for row in rows
        if row.table == "binding" and row.values["digest"] is not None
    }
    assert dict(plan.after) == packets
    assert all(plan.packets[digest] == after.packets[digest] for digest in packets.values())
    for effect in plan.effects:
        for principal in effect.principals:
            assert (principal in packets) == (effect.after is not None)
    before = {
        PrincipalRef(key.namespace, row.values["principal_key"]): row.values["digest"]
        for key, rows in compile_world(current, {}).rows.items()
        for row in rows
        if row.table == "binding" and row.values["digest"] is not None
    }
    affected = {principal for effect in plan.effects for principal in effect.principals}
    assert {
        principal for principal in before.keys() | packets.keys() if before.get(principal) != packets.get(principal)
    } <= affected


def test_what_an_api_server_fills_in_is_no_change():
    """Specs with and without the defaults of the schema say the same; another value does not."""
    written = declared("Principal", "p", {"suspended": False, "type": "component", "scope": "Namespace"})
    profile = declared("Profile", "worker", {"secretRefs": [{"name": "db", "ref": "DB", "kind": None}]})
    now = world(written, profile)
    filled = {"secretRefs": [{"name": "db", "ref": "DB", "kind": "Env", "required": True}]}
    assert make_plan(now, propose_world(now, {written.key: {}, profile.key: filled})).empty
    assert not make_plan(now, propose_world(now, {written.key: {"suspended": True}})).empty


def test_ten_thousand_bindings_in_seconds():
    """A Manifest that ten thousand Bindings use."""
    now = world(*crowd(10_000))
    specs = {MF: {**MANIFEST, "environment": {"region": "us-1"}}}
    started = time.process_time()
    plan = make_plan(now, propose_world(now, specs))
    assert len(plan.effects[0].principals) == 10_000
    assert time.process_time() - started < 5
    assert last_good_of() == {}
