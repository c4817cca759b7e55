"""What holds in every world."""

import json
import random

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.unit.crds.strategies import (
    CANARY,
    KIND_NAMES,
    NAMESPACES,
    VALID,
    broken,
    objects,
    settings_of_worlds,
    spaces,
    worlds,
)

from metagate_crds import canonical_json, packet, reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.world import World
from metagate_crds.rules.forbidden_keys import holds_forbidden_key
from metagate_crds.validation import validate

many = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
some = settings(many, max_examples=40)


def answer(result):
    """Everything that compiling says, comparable."""
    return (
        {key: [(row.table, row.key, row.values) for row in rows] for key, rows in result.rows.items()},
        dict(result.verdicts),
        dict(result.good),
        dict(result.packets),
    )


def of_keys(result, keys):
    rows, verdicts, good, _ = answer(result)
    uids = {verdicts[key].uid for key in keys if key in verdicts}
    return (
        {key: rows.get(key, []) for key in keys},
        {key: verdicts[key] for key in keys if key in verdicts},
        {uid: item for uid, item in good.items() if uid in uids},
    )


@many
@given(st.sampled_from(KIND_NAMES).flatmap(lambda kind: st.tuples(st.just(kind), VALID[kind])))
def test_valid_specs_are_valid(kind_and_spec):
    """The strategies speak the language, or the other properties would prove nothing."""
    kind, spec = kind_and_spec
    assert validate(kind, spec) == ()


@many
@given(st.sampled_from(KIND_NAMES).flatmap(lambda kind: st.tuples(st.just(kind), broken(kind))))
def test_findings_are_sorted_documented_and_quote_nothing(kind_and_spec):
    """Of whatever is wrong."""
    kind, spec = kind_and_spec
    findings = validate(kind, spec)
    assert findings
    assert list(findings) == sorted(set(findings))
    assert all(item.reason in reasons.REASONS and item.path.startswith("spec") for item in findings)
    assert CANARY not in str(findings)


@pytest.mark.invariant("INV-032", "INV-018")
@many
@given(worlds(), settings_of_worlds)
def test_no_packet_holds_a_forbidden_key(objects, how):
    """Nor anything but its ten canonical fields; its digest is its own."""
    result = compile_world(World(how, spaces(), objects), {})
    for digest, body in result.packets.items():
        assert packet.check_body(body, digest) is None
        assert not holds_forbidden_key(json.loads(body))
        assert canonical_json.canonical(json.loads(body)) == body
    digests = {row.values["digest"] for rows in result.rows.values() for row in rows if row.table == "binding"}
    assert digests - {None} == set(result.packets)


@pytest.mark.invariant("INV-018")
@many
@given(worlds(), settings_of_worlds, st.randoms(use_true_random=False))
def test_the_order_of_objects_does_not_matter(objects, how, chance):
    """Equal worlds give equal rows, verdicts and packets, whatever came first."""
    shuffled = random.Random(chance.random()).sample(objects, len(objects))
    assert answer(compile_world(World(how, spaces(), objects), {})) == answer(
        compile_world(World(how, spaces(), shuffled), {})
    )


@pytest.mark.invariant("INV-009")
@many
@given(worlds(), settings_of_worlds)
def test_what_may_exist_once_exists_once(objects, how):
    """No two rows of a table share a key, whoever declared them."""
    result = compile_world(World(how, spaces(), objects), {})
    keys = [(row.table, row.key) for rows in result.rows.values() for row in rows]
    assert len(keys) == len(set(keys))


@many
@given(worlds(), settings_of_worlds)
def test_every_object_gets_a_verdict_that_adds_up(objects, how):
    """Four conditions always, summed up in Ready; messages are documented, bounded and quote nothing."""
    result = compile_world(World(how, spaces(), objects), {})
    assert set(result.verdicts) == set(result.rows) == {item.key for item in objects}
    for verdict in result.verdicts.values():
        output = {item.type: item for item in verdict.conditions}
        assert list(output)[:4] == [reasons.READY, reasons.ACCEPTED, reasons.RESOLVED_REFS, reasons.COMPILED]
        assert len(output) == len(verdict.conditions)
        assert set(output) <= set(reasons.CONDITIONS)
        assert {item.reason for item in verdict.conditions} <= set(reasons.REASONS)
        sound = all(output[name].status == "True" for name in list(output)[1:4]) and reasons.CONFLICTED not in output
        assert verdict.ready is sound
        assert (output[reasons.ACCEPTED].status == "True") is (not validate_of(verdict, objects, how))
        assert all(CANARY not in item.message and len(item.message) <= 4000 for item in verdict.conditions)


def validate_of(verdict, objects, how):
    (item,) = [item for item in objects if item.key == verdict.key]
    findings = validate(item.key.kind, item.spec, namespace=item.key.namespace, system_namespace=how.system_namespace)
    reserved = how.jwt_issuer and isinstance(item.spec, dict) and item.spec.get("issuer") == how.jwt_issuer
    return findings or (item.key.kind == "TokenIssuer" and reserved)


@many
@given(worlds(), settings_of_worlds)
def test_a_broken_world_gives_nobody_more_than_the_last_good_one(before, how):
    """With everything broken, what is served is at most what was served (D-33)."""
    good = compile_world(World(how, spaces(), before), {})
    ruined = [
        type(item)(
            item.key,
            item.uid,
            2,
            item.created,
            {**(item.spec or {}), "nonsense": 1} if isinstance(item.spec, dict) else None,
        )
        for item in before
    ]
    result = compile_world(World(how, spaces(), ruined), good.good)
    old = {(row.table, row.key): row.values for rows in good.rows.values() for row in rows if row.table != "resource"}
    for rows in result.rows.values():
        for row in rows:
            if row.table != "resource":
                assert row.values == old.get((row.table, row.key)), row
    assert set(result.packets) <= set(good.packets)
    assert result.good == {}


@st.composite
def histories(draw):
    """A world and what happens to it."""
    return draw(worlds()), draw(
        st.lists(
            st.one_of(
                objects(generations=(2, 9), wrong=3),
                st.tuples(st.just("remove"), st.integers(0, 20)),
                st.tuples(st.just("leave"), st.sampled_from(NAMESPACES)),
                st.tuples(st.just("enter"), st.sampled_from(NAMESPACES)),
            ),
            max_size=8,
        )
    )


@some
@given(histories(), settings_of_worlds)
def test_compiling_what_changed_is_compiling_everything(history, how):
    """After every change: the closure compiled alone equals the full run, and outside of it nothing moved."""
    start, changes = history
    space = World(how, spaces(), start)
    last = dict(compile_world(space, {}).good)
    known = compile_world(space, last)
    for change in changes:
        note(str(change))
        if not isinstance(change, tuple):
            affected = space.put(change)
        elif change[0] == "remove":
            keys = sorted(space.objects)
            if not keys:
                continue
            affected = space.remove(keys[change[1] % len(keys)])
        elif change[0] == "leave":
            affected = space.remove_namespace(change[1])
        else:
            affected = space.put_namespace(spaces(change[1])[0])
        part = compile_world(space, last, affected)
        fresh = compile_world(World(how, space.namespaces.values(), space.objects.values()), last)
        assert of_keys(part, affected) == of_keys(fresh, affected)
        assert set(part.packets) <= set(fresh.packets)
        elsewhere = set(fresh.verdicts) - affected
        assert of_keys(known, elsewhere) == of_keys(fresh, elsewhere)
        last |= part.good
        for uid in [uid for uid in last if uid not in {item.uid for item in space.objects.values()}]:
            del last[uid]
        known = compile_world(World(how, space.namespaces.values(), space.objects.values()), last)
