"""Where each leaf of a packet comes from (issue: explain)."""

import copy
import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from tests.unit.crds.strategies import VALID
from tests.unit.crds.worlds import BINDING, MANIFEST, PROFILE, SETTINGS, compiled, declared, verdict_of

from metagate_crds.compile.compiler import compile_world
from metagate_crds.compile.world import World
from metagate_crds.objects import Namespace
from metagate_crds.plan.explanation import NotReproducibleError, explain_packet
from metagate_crds.plan.packet_diff import iterate_leaves

OVERRIDES = {
    "policy": {"retries": 9, "deep": {"more": [1, {"x": None}]}},
    "services": {"mail": None, "memory": {"endpoint": "http://other:1", "auth": None}},
    "environment": {"region": None},
}
many = settings(
    deadline=None,
    max_examples=100,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def three(profile=PROFILE, manifest=MANIFEST, binding=BINDING):
    return (
        declared("PrincipalBinding", "indexer", binding),
        declared("Profile", binding["profileRef"]["name"], profile),
        declared("Manifest", binding["manifestRef"]["name"], manifest),
    )


def of_path(explanation, *path):
    [leaf] = [leaf for leaf in explanation.leaves if leaf.path == path]
    return leaf


def test_each_leaf_names_its_layer():
    """Profile, Manifest, override, Binding; a removed member leaves no leaf, an emptied section is the override's."""
    explanation = explain_packet(*three(binding={**BINDING, "overrides": OVERRIDES}), SETTINGS)
    assert of_path(explanation, "capabilities", "read").layer == "profile"
    assert of_path(explanation, "policy", "retries").layer == "override"
    assert of_path(explanation, "policy", "deep", "more", 1, "x").origin == (
        "overrides", "policy", "deep", "more", 1, "x"
    )  # fmt: skip
    assert of_path(explanation, "services", "memory", "endpoint").layer == "override"
    assert of_path(explanation, "services", "memory", "type").layer == "manifest"
    assert of_path(explanation, "environment").layer == "override"
    assert of_path(explanation, "memory_map", "short").origin == ("memoryMap", "short")
    assert of_path(explanation, "profile").layer == of_path(explanation, "manifest").layer == "binding"
    assert of_path(explanation, "required_env", 0, "ref_name").origin == ("secretRefs", 0, "ref")
    assert not of_path(explanation, "required_env", 0, "ref_kind").declared
    assert not any(leaf.path[:2] == ("services", "mail") for leaf in explanation.leaves)


def test_the_body_is_the_compilers_to_the_byte():
    """What is rebuilt is what was compiled in a whole world."""
    objects = three(binding={**BINDING, "overrides": OVERRIDES})
    whole = compiled(declared("Principal", "indexer", {}), *objects)
    digest = verdict_of(whole, "PrincipalBinding", "indexer").digest
    explanation = explain_packet(*objects, SETTINGS)
    assert (explanation.digest, explanation.body) == (digest, whole.packets[digest])
    assert [(leaf.path, leaf.value) for leaf in explanation.leaves] == list(
        iterate_leaves(json.loads(explanation.body))
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": {"environment": {"deploy": "canary-value"}}},
        {"profile": None},
        {"binding": {**BINDING, "overrides": {"polling": {"inbox": {"endpoint": 7}}}}},
        {"binding": {**BINDING, "active": False}},
    ],
)
def test_what_cannot_be_made_again_is_said(changes):
    """Never guessed; and the message quotes no declared value."""
    with pytest.raises(NotReproducibleError) as refused:
        explain_packet(*three(**changes), SETTINGS)
    assert "canary" not in str(refused.value)


def placed(spec, origin, value):
    """The spec with another value there; parents that were left out are made."""
    if not origin:
        return value
    step, *rest = origin
    if isinstance(step, int):
        made = list(spec or [{}])
        made += [{}] * (step + 1 - len(made))
        made[step] = placed(made[step], rest, value)
        return made
    made = dict(spec or {})
    made[step] = placed(made.get(step), rest, value)
    return made


def other(leaf):
    """Something else that is valid at this place."""
    if leaf.origin[-2:-1] == ("profileRef",) or leaf.origin[-2:-1] == ("manifestRef",):
        return "elsewhere"
    where = leaf.path[-1]
    if leaf.path[0] == "required_env":
        return {"ref_kind": "File", "required": not leaf.value, "ref_name": "OTHER", "name": "other"}.get(
            where, [{"name": "new", "ref": "NEW"}]
        )
    if leaf.path == ("schemas",):
        return {"x": {"ref": "urn:x"}}
    if leaf.path[0] == "polling":
        return {1: {"x": {"endpoint": "http://new"}}, 3: "9s" if where == "interval" else "http://new"}[len(leaf.path)]
    if leaf.path[0] == "services" and (len(leaf.path) == 1 or leaf.path[2:3] != ("metadata",)):
        return {1: {"x": {"endpoint": "http://new"}}, 3: "something" if where == "type" else "http://new"}[
            len(leaf.path)
        ]
    if len(leaf.path) == 1 or leaf.path == ("services", leaf.path[-2], "metadata"):
        return {"another": "member"}
    return "something else"


def body_of(objects):
    binding = objects[0]
    world = World(SETTINGS, [Namespace("team", "tenant-team", binding.created)], objects)
    result = compile_world(world, {})
    digest = result.verdicts[binding.key].digest
    return None if digest is None else json.loads(result.packets[digest])


def at(value, path):
    for step in path:
        if isinstance(value, list):
            value = value[step] if isinstance(step, int) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


@many
@given(VALID["Profile"], VALID["Manifest"], VALID["PrincipalBinding"], st.data())
def test_changing_what_explain_names_changes_the_leaf(profile, manifest, binding, data):
    """Of any leaf of any packet: change the object there, at the place named, and that leaf is another."""
    objects = three(profile, manifest, {**binding, "active": True})
    try:
        explanation = explain_packet(*objects, SETTINGS)
    except NotReproducibleError:
        assume(False)
    leaf = data.draw(st.sampled_from(explanation.leaves))
    position = {"profile": 1, "manifest": 2, "override": 0, "binding": 0}[leaf.layer]
    changed = list(objects)
    spec = placed(copy.deepcopy(objects[position].spec), leaf.origin, other(leaf))
    if leaf.path[-1] == "ref_kind":  # of a File the reference is a path
        spec = placed(spec, (*leaf.origin[:-1], "ref"), "/run/secrets/db")
    changed[position] = replace(objects[position], spec=spec, generation=2)
    if leaf.layer == "binding":
        kind = 1 if leaf.path == ("profile",) else 2
        changed[kind] = replace(changed[kind], key=changed[kind].key._replace(name="elsewhere"))
    after = body_of(changed)
    assert after is not None
    assert json.dumps(at(after, leaf.path)) != json.dumps(leaf.value)
