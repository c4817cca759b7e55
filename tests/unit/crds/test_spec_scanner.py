"""Bounds come before everything else: no spec, however made, costs more than a finding."""

import datetime as dt
import math
import time

import pytest
from tests.unit.crds.worlds import MANIFEST

from metagate_crds import reasons
from metagate_crds.kinds import KINDS
from metagate_crds.validation import validate


def nested(levels, leaf=1):
    value = leaf
    for _ in range(levels):
        value = {"a": value}
    return value


def findings_in(value):
    return validate("Manifest", {"environment": {"x": value}})


@pytest.mark.parametrize("kind", KINDS)
def test_two_hundred_levels_are_one_finding(kind):
    """Depth is refused with a path, never with a crash."""
    for levels in (200, 100_000):
        (finding,) = validate(kind, nested(levels))
        assert finding.reason == reasons.TOO_DEEP


def test_thirty_two_levels_are_the_limit():
    """The spec itself is the first level."""
    assert validate("Manifest", {"environment": nested(30)}) == ()
    assert [item.reason for item in validate("Manifest", {"environment": nested(31, {})})] == [reasons.TOO_DEEP]


def test_a_list_that_contains_itself_is_refused():
    """YAML can write one."""
    loop = []
    loop.append(loop)
    assert [item.reason for item in findings_in(loop)] == [reasons.TOO_DEEP]


def test_an_alias_bomb_is_refused_quickly():
    """Thirty aliases of four are 4^30 values to a naive walk."""
    bomb = ["x"]
    for _ in range(25):
        bomb = [bomb] * 4
    started = time.process_time()
    assert [item.reason for item in findings_in(bomb)] == [reasons.TOO_LARGE]
    assert time.process_time() - started < 2


def test_a_megabyte_is_too_large():
    """A Manifest that could not fit a packet is refused with its size."""
    environment = {f"k{number}": "words and words " * 60 for number in range(1100)}
    assert {item.reason for item in validate("Manifest", {"environment": environment})} <= {
        reasons.TOO_LARGE,
        reasons.PACKET_TOO_LARGE,
    }
    assert (
        validate("Manifest", {"environment": dict(list(environment.items())[:300])})[0].reason
        == reasons.PACKET_TOO_LARGE
    )
    assert validate("Manifest", {"environment": dict(list(environment.items())[:200])}) == ()


def test_one_text_has_a_bound():
    """Sixty-four thousand characters are a document, not a value."""
    assert [item.reason for item in findings_in("a b " * 17_000)] == [reasons.TOO_LARGE]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, 2**53, -(2**60), dt.date(2026, 1, 1), b"x", {1, 2}, "a\x00b", "\ud800"]
)
def test_what_json_cannot_carry_is_refused(value):
    """YAML, Python and JavaScript each know values that JSON does not."""
    (finding,) = findings_in(value)
    assert (finding.path, finding.reason) == ("spec.environment.x", reasons.INVALID_VALUE)


@pytest.mark.parametrize("key", ["", "  ", "a\nb", "a\x00b", "zero\u200bwidth", "rtl\u202e", "k" * 254, 1, None])
def test_keys_are_readable(key):
    """A key with control or invisible characters could not be shown in a path."""
    findings = validate("Manifest", {"environment": {"in": {key: 1}}})
    assert [item.reason for item in findings] == [reasons.INVALID_KEY]
    assert all(character.isprintable() for character in findings[0].path)
    assert len(findings[0].path) < 300


@pytest.mark.parametrize("spec", [None, [], "x", 1, True, {}, {"x": 1}, {1: 2}, {"spec": {}}, {None: None}])
@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_a_finding_or_a_valid_spec(kind, spec):
    """No spec raises."""
    findings = validate(kind, spec)
    assert all(item.path.startswith("spec") and item.reason in reasons.REASONS for item in findings)
    assert findings or spec == {}


def test_every_finding_comes_at_once_sorted_and_stable():
    """Nobody should have to fix a file one error at a time."""
    spec = {
        **MANIFEST,
        "version": "3",
        "wrong": 1,
        "environment": {"deploy": 1, "password": "x"},
        "polling": {"inbox": {"endpoint": "x", "interval": "soon", "content": {}}},
    }
    findings = validate("Manifest", spec)
    assert [(item.path, item.reason) for item in findings] == [
        ("spec.environment.deploy", reasons.FORBIDDEN_KEY),
        ("spec.environment.password", reasons.SECRET_VALUE),
        ("spec.polling.inbox.content", reasons.INVALID_POLLING),
        ("spec.polling.inbox.interval", reasons.INVALID_FIELD),
        ("spec.version", reasons.INVALID_FIELD),
        ("spec.wrong", reasons.UNKNOWN_FIELD),
    ]
    assert validate("Manifest", dict(reversed(spec.items()))) == findings


def test_findings_are_bounded():
    """A spec with ten thousand mistakes is told a hundred of them."""
    assert len(findings_in([{"deploy": 1}] * 10_000)) <= 101
