"""Forbidden keys (D-17): every key, every shape, every place, every spelling."""

import copy

import pytest
from tests.unit.crds.worlds import (
    BINDING,
    MANIFEST,
    PROFILE,
    all_messages,
    bootable_objects,
    compiled,
    conditions_of,
    declared,
    last_good_of,
    rows,
    verdict_of,
)

from metagate_crds import reasons
from metagate_crds.rules.forbidden_keys import FORBIDDEN_KEYS, holds_forbidden_key, is_forbidden
from metagate_crds.validation import validate

SHAPES = {
    "root": lambda key: {key: 1},
    "nested": lambda key: {"a": {"b": {key: {}}}},
    "list item": lambda key: {"a": [{key: None}]},
    "list in list": lambda key: {"a": [1, [[{key: "x"}]]]},
}
PLACES = [
    *(("Manifest", (section,)) for section in ("environment", "memoryMap", "services", "polling", "schemas")),
    ("Manifest", ("services", "memory", "metadata")),
    *(("Profile", (section,)) for section in ("capabilities", "policy")),
    *(
        ("PrincipalBinding", ("overrides", section))
        for section in ("capabilities", "policy", "services", "memoryMap", "polling", "schemas", "environment")
    ),
]
SPECS = {"Manifest": MANIFEST, "Profile": PROFILE, "PrincipalBinding": BINDING}


def spellings(key):
    words = key.split("_")
    yield from (key, key.upper(), key.title(), key.replace("_", "-"), key.replace("_", " "))
    yield words[0] + "".join(word.title() for word in words[1:])
    yield "".join(word.title() for word in words)


def spoiled(kind, place, content):
    spec = copy.deepcopy(SPECS[kind])
    inner = spec
    for step in place:
        inner = inner.setdefault(step, {})
    inner.update(content)
    return spec


@pytest.mark.invariant("INV-031")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kind", "place"), PLACES, ids=lambda value: value if isinstance(value, str) else ".".join(value)
)
def test_every_forbidden_key_is_refused_in_every_shape_and_place(kind, place, shape):
    """However a forbidden key is spelt and however deep it hides, the finding names its path."""
    for key in FORBIDDEN_KEYS:
        for spelling in spellings(key):
            findings = validate(kind, spoiled(kind, place, SHAPES[shape](spelling)))
            forbidden = [item for item in findings if item.reason == reasons.FORBIDDEN_KEY]
            assert forbidden, (key, spelling)
            assert forbidden[0].path.startswith("spec." + ".".join(place))
            assert spelling in forbidden[0].path


@pytest.mark.invariant("INV-031")
@pytest.mark.parametrize(
    ("kind", "place"), PLACES, ids=lambda value: value if isinstance(value, str) else ".".join(value)
)
def test_the_last_good_snapshot_stays_served_beside_a_forbidden_key(kind, place):
    """An update with a forbidden key is not accepted, and what was served before is served still."""
    before = bootable_objects()
    name = next(item.key.name for item in before if item.key.kind == kind)
    broken = declared(kind, name, spoiled(kind, place, SHAPES["list in list"]("deploy")), generation=2)
    world_now = [broken if item.key == broken.key else item for item in before]
    served = compiled(*before)
    result = compiled(*world_now, last_good=last_good_of(*before))
    assert conditions_of(verdict_of(result, kind, name))["Accepted"] == ("False", reasons.FORBIDDEN_KEY)
    assert rows(result, "binding") == rows(served, "binding")
    assert result.packets == served.packets
    assert verdict_of(result, kind, name).served_generation == 1
    assert "deploy" in all_messages(result)


@pytest.mark.parametrize(
    "key", ["task", "scaled", "deployment", "deploymentKey", "payload", "executor", "provisioned", "job"]
)
def test_neighbouring_words_are_ordinary(key):
    """Only the eight keys are forbidden, not words that contain or resemble them."""
    assert not is_forbidden(key)
    assert validate("Profile", {"capabilities": {key: 1}}) == ()


@pytest.mark.parametrize("key", ["ＴＡＳＫＳ", "ſcale", "work  items", "_jobs_", "work\u00a0items", "De-Ploy"])
def test_disguises_do_not_help(key):
    """Wide letters, odd spaces and stray separators are read for what they say."""
    assert is_forbidden(key)


def test_a_walk_through_json_finds_a_key_in_lists_of_lists():
    """The check that packets get needs no schema."""
    assert holds_forbidden_key({"a": [[{"b": [{"Jobs": 1}]}]]})
    assert not holds_forbidden_key({"a": [["tasks", {"b": "jobs"}]]})
