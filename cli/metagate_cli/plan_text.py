"""A plan for people: in a terminal, and as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from metagate_cli.plain import LONGEST, fenced, plain, value
from metagate_cli.terminal import painted

_SHOWN: Final = 8
_LINES: Final = 200
_COMMENT: Final = 60_000
"""Bytes that a comment on a pull request may have; GitHub takes 65,536 characters."""
_STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "!": "red"}
_MARKS: Final = {"added": "+", "changed": "~", "removed": "-"}
_WORDS: Final = {
    "added": "gets a packet",
    "removed": "loses its packet",
    "changed": "gets another packet",
    "unchanged": "keeps its packet",
}


def text(told: dict[str, Any], *, wide: bool = False) -> str:
    """For a terminal. `wide` names every principal and object, and cuts no value."""
    if not told["changes"]:
        return "No changes: what is declared is what would be."
    lines: list[str] = []
    for title, section in _sections(told, wide=wide):
        lines += ["", painted(title, "bold"), *(painted(f"  {line}", _STYLES.get(line[:1], "")) for line in section)]
    return "\n".join([*lines[1:], "", painted(_summary(told), "bold")])


def markdown(told: dict[str, Any]) -> str:
    """For a pull request: no line of it can be anything but text."""
    lines = ["### MetaGate plan", "", f"**{_summary(told)}**"]
    room = _COMMENT
    sections = list(_sections(told))
    for place, (title, section) in enumerate(sections):
        shown = section[:_LINES]
        more = [f"… {len(section) - _LINES} lines more"] if len(section) > _LINES else []
        block = ["", f"#### {title}", "", *fenced([*shown, *more], "diff")]
        room -= sum(len(line.encode()) + 1 for line in block)
        if room < 0:
            lines += [
                "",
                f"… and {len(sections) - place} parts more, which are too long for a comment: see the plan itself.",
            ]
            break
        lines += block
    return "\n".join(lines)


def _sections(told: dict[str, Any], *, wide: bool = False) -> Iterator[tuple[str, list[str]]]:
    objects = [
        f"{_MARKS[how]} {_named(each)}" for how in ("added", "changed", "removed") for each in told["objects"][how]
    ]
    if objects:
        yield "Declared objects", objects if wide else _cut(objects, 40)
    for effect in told["effects"]:
        yield _title(effect), list(_effect(effect, wide=wide))
    if told["troubles"]:
        yield (
            "Would not be served as declared",
            [f"! {each['state']}: {_named(each)}: {plain(each['message'])}" for each in told["troubles"]],
        )
    if told["cured"]:
        yield "No longer in trouble", [f"+ {_named(each)} (was {each['state']})" for each in told["cured"]]
    if told["others"]:
        yield "Served differently", [f"~ {_named(each)}" for each in told["others"]]


def _title(effect: dict[str, Any]) -> str:
    count = effect["count"]
    words = _WORDS[effect["packet"]]
    if count == 1:
        return f"{_who(effect['principals'][0])} {words}"
    plural = words.replace("gets", "get").replace("loses", "lose").replace("keeps", "keep").replace("its", "their")
    return f"{count} principals {plural}"


def _effect(effect: dict[str, Any], *, wide: bool) -> Iterator[str]:
    longest = None if wide else LONGEST
    if effect["count"] > 1:
        named = [_who(each) for each in effect["principals"][: None if wide else _SHOWN]]
        more = effect["count"] - len(named)
        yield f"  of {', '.join(named)}{f' and {more} more' if more else ''}"
    for change in (*effect["access"], *effect["differences"]):
        name = plain(change.get("what") or change.get("path"))
        if "before" in change:
            yield f"- {name}: {value(change['before'], longest)}"
        if "after" in change:
            yield f"+ {name}: {value(change['after'], longest)}"


def _summary(told: dict[str, Any]) -> str:
    if not told["changes"]:
        return "No changes."
    count = {how: len(each) for how, each in told["objects"].items()}
    principals = sum(effect["count"] for effect in told["effects"])
    return (
        f"Plan: {count['added']} to add, {count['changed']} to change, {count['removed']} to remove; "
        f"{principals} principal{'' if principals == 1 else 's'} affected, {len(told['troubles'])} in trouble."
    )


def _who(principal: dict[str, Any]) -> str:
    return plain(f"{principal['namespace']}/{principal['name']}")


def _named(each: dict[str, Any]) -> str:
    where = f"{each['namespace']}/" if each["namespace"] else ""
    return plain(f"{each['kind']} {where}{each['name']}")


def _cut(lines: list[str], longest: int) -> list[str]:
    return lines if len(lines) <= longest else [*lines[:longest], f"… and {len(lines) - longest} more"]
