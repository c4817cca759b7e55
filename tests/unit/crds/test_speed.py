"""Loose bounds that catch a wrong order of growth, not a slow machine."""

import time

from tests.unit.crds.worlds import BINDING, MANIFEST, PROFILE, api_key, declared, world

from metagate_crds.compile.compiler import compile_world

MANY = 2_000


def crowd(count):
    yield declared("Profile", "worker", PROFILE)
    yield declared("Manifest", "prod", MANIFEST)
    for number in range(count):
        yield declared("Principal", f"p{number}", {"apiKeys": [api_key(number)]}, age=number)
        yield declared(
            "PrincipalBinding", f"b{number}", {**BINDING, "principalRef": {"name": f"p{number}"}}, age=number
        )


def test_thousands_of_bindings_share_one_packet_and_one_change_is_small():
    """Compiling a change looks at the change, whatever the size of the world."""
    started = time.process_time()
    space = world(*crowd(MANY))
    full = compile_world(space, {})
    assert time.process_time() - started < 6
    assert len(full.packets) == 1
    assert all(verdict.ready for verdict in full.verdicts.values())
    changed = declared(
        "PrincipalBinding", "b7", {**BINDING, "principalRef": {"name": "p7"}, "components": ["x"]}, generation=2, age=7
    )
    affected = space.put(changed)
    assert len(affected) == 4
    started = time.process_time()
    for _ in range(20):
        compile_world(space, {}, affected)
    assert time.process_time() - started < 0.4


def test_a_changed_manifest_affects_its_users_and_nobody_else():
    """All of them at once, with one new packet."""
    space = world(*crowd(50), declared("Manifest", "spare", MANIFEST))
    affected = space.put(declared("Manifest", "prod", {**MANIFEST, "environment": {"region": "us-1"}}, generation=2))
    assert len(affected) == 51
    assert len(compile_world(space, {}, affected).packets) == 1
    assert space.put(declared("Manifest", "spare", {}, generation=2)) == {("Manifest", "team", "spare")}
