"""Authority only shrinks: what is absent is denied, and what is there stays within a ceiling."""

from pathlib import Path
from typing import Any

import pytest

from asyncgate.ceilings import Ceilings, CeilingsUnreadable
from metagate_crds.authority import NOTHING, Authority, exceeded, parse_authority

FULL: dict[str, Any] = {
    "spawn": {"max": 10},
    "invokeCognigate": True,
    "exposeTools": ["mail/*", "search/web"],
    "writeBeyondReceipts": True,
    "maxDepth": 4,
    "asyncgates": ["asyncgate"],
    "sinks": ["depotgate/output"],
    "cognition": {"models": ["default"], "calls": 5, "tokens": 1_000, "seconds": 60},
}


def authority(value: Any) -> Authority:
    parsed = parse_authority(value)
    assert isinstance(parsed, Authority), parsed
    return parsed


@pytest.mark.invariant("INV-124")
@pytest.mark.parametrize("name", FULL)
def test_each_member_absent_is_denied(name: str) -> None:
    """A ceiling without the member permits nothing of it, also where it permits everything else."""
    ceiling = authority({other: value for other, value in FULL.items() if other != name})
    assert exceeded(authority({name: FULL[name]}), ceiling) == name
    assert exceeded(authority(FULL), authority(FULL)) is None
    assert exceeded(NOTHING, NOTHING) is None


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ({"spawn": {"max": 11}}, "spawn"),
        ({"maxDepth": 5}, "maxDepth"),
        ({"exposeTools": ["*"]}, "exposeTools"),
        ({"exposeTools": ["search/*"]}, "exposeTools"),
        ({"exposeTools": ["mail/send"]}, None),
        ({"asyncgates": ["other"]}, "asyncgates"),
        ({"sinks": ["depotgate/output", "depotgate/supporting"]}, "sinks"),
        ({"cognition": {"models": ["large"]}}, "cognition"),
        ({"cognition": {"calls": 6}}, "cognition"),
        ({"cognition": {"calls": 5, "tokens": 1_000, "seconds": 60}}, None),
        ({"spawn": {"max": 0}}, None),
    ],
)
def test_within_a_ceiling(wanted: Any, name: str | None) -> None:
    assert exceeded(authority(wanted), authority(FULL)) == name


def test_a_question_mark_is_no_star() -> None:
    """A glob that matches more than the ceiling does is beyond it."""
    assert exceeded(authority({"exposeTools": ["mail/*"]}), authority({"exposeTools": ["mail/?"]})) == "exposeTools"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"spawn": 3}, "spawn"),
        ({"root": True}, "root"),
        ({"maxDepth": 2000}, "maxDepth"),
        ({"sinks": ["../etc"]}, "sinks"),
        ({"writeBeyondReceipts": "yes"}, "writeBeyondReceipts"),
        ("all", "authority"),
    ],
)
def test_a_wrong_shape_says_what_is_wrong(value: Any, words: str) -> None:
    findings = parse_authority(value)
    assert isinstance(findings, tuple)
    assert words in findings[0]


def test_the_first_entry_that_matches_decides(tmp_path: Path) -> None:
    """By namespace; a namespace that no entry matches may give nothing."""
    file = tmp_path / "ceilings.yaml"
    file.write_text(
        "- {namespaces: [team-a, 'lab-*'], authority: {maxDepth: 2}}\n- {namespaces: ['team-*'], authority: {maxDepth: 9}}\n"
    )
    ceilings = Ceilings.from_file(str(file))
    assert [ceilings.of(name).maxDepth for name in ("team-a", "lab-7", "team-b", "other")] == [2, 2, 9, None]
    assert Ceilings.from_file(None).of("team-a") == NOTHING


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "- 7",
        "- {namespaces: [a]}",
        "- {namespaces: a, authority: {}}",
        "- {namespaces: [a], authority: {x: 1}}",
        "[",
    ],
)
def test_a_file_that_cannot_be_read_is_no_ceiling(tmp_path: Path, text: str) -> None:
    """The gate does not start, rather than with half of its rules."""
    file = tmp_path / "ceilings.yaml"
    file.write_text(text)
    with pytest.raises(CeilingsUnreadable, match=r"ceilings\.yaml"):
        Ceilings.from_file(str(file))
    with pytest.raises(CeilingsUnreadable):
        Ceilings.from_file(str(tmp_path / "absent"))
