"""A plan for people: in a terminal, and as a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from metagate_cli.output import VALUE_LIMIT, code_block, json_line, safe_text
from metagate_cli.terminal import colored

_PRINCIPALS_SHOWN: Final = 8
_SECTION_LINES: Final = 200
_COMMENT_BYTES: Final = 60_000
"""Bytes that a comment on a pull request may have; GitHub takes 65,536 characters."""
_STYLES: Final = {"+": "green", "-": "red", "~": "yellow", "!": "red"}
_MARKS: Final = {"added": "+", "changed": "~", "removed": "-"}
_WORDS: Final = {
    "added": "gets a packet",
    "removed": "loses its packet",
    "changed": "gets another packet",
    "unchanged": "keeps its packet",
}


def text(report: dict[str, Any], *, wide: bool = False) -> str:
    """For a terminal. `wide` names every principal and object, and cuts no value."""
    if not report["changes"]:
        return "No changes: what is declared is what would be."
    lines: list[str] = []
    for title, section in _sections(report, wide=wide):
        lines += ["", colored(title, "bold"), *(colored(f"  {line}", _STYLES.get(line[:1], "")) for line in section)]
    return "\n".join([*lines[1:], "", colored(_summary(report), "bold")])


def markdown(report: dict[str, Any]) -> str:
    """For a pull request: no line of it can be anything but text."""
    lines = ["### MetaGate plan", "", f"**{_summary(report)}**"]
    bytes_left = _COMMENT_BYTES
    sections = list(_sections(report))
    for place, (title, section) in enumerate(sections):
        shown = section[:_SECTION_LINES]
        more = [f"… {len(section) - _SECTION_LINES} lines more"] if len(section) > _SECTION_LINES else []
        block = ["", f"#### {title}", "", *code_block([*shown, *more], "diff")]
        bytes_left -= sum(len(line.encode()) + 1 for line in block)
        if bytes_left < 0:
            lines += [
                "",
                f"… and {len(sections) - place} parts more, which are too long for a comment: see the plan itself.",
            ]
            break
        lines += block
    return "\n".join(lines)


def _sections(report: dict[str, Any], *, wide: bool = False) -> Iterator[tuple[str, list[str]]]:
    # What is refused is the reason for most of what follows, so it comes first.
    if report["troubles"]:
        yield (
            "Would not be served as declared",
            [f"! {item['state']}: {_object_name(item)}: {safe_text(item['message'])}" for item in report["troubles"]],
        )
    objects = [
        f"{_MARKS[how]} {_object_name(item)}"
        for how in ("added", "changed", "removed")
        for item in report["objects"][how]
    ]
    if objects:
        yield "Declared objects", objects if wide else _truncate(objects, 40)
    for effect in report["effects"]:
        yield _title(effect), list(_effect(effect, wide=wide))
    if report["cured"]:
        yield "No longer in trouble", [f"+ {_object_name(item)} (was {item['state']})" for item in report["cured"]]
    if report["others"]:
        yield "Served differently", [f"~ {_object_name(item)}" for item in report["others"]]


def _title(effect: dict[str, Any]) -> str:
    count = effect["count"]
    words = _WORDS[effect["packet"]]
    if count == 1:
        return f"{_principal_name(effect['principals'][0])} {words}"
    plural = words.replace("gets", "get").replace("loses", "lose").replace("keeps", "keep").replace("its", "their")
    return f"{count} principals {plural}"


def _effect(effect: dict[str, Any], *, wide: bool) -> Iterator[str]:
    longest = None if wide else VALUE_LIMIT
    if effect["count"] > 1:
        named = [_principal_name(item) for item in effect["principals"][: None if wide else _PRINCIPALS_SHOWN]]
        more = effect["count"] - len(named)
        yield f"  of {', '.join(named)}{f' and {more} more' if more else ''}"
    changes = [*effect["access"], *effect["differences"]]
    if effect["packet"] == "removed" and not wide:
        yield f"  all of it: {len(effect['differences'])} values, which -o wide lists"
        changes = effect["access"]
    for change in changes:
        name = safe_text(change.get("what") or change.get("path"))
        if "before" in change:
            yield f"- {name}: {json_line(change['before'], longest)}"
        if "after" in change:
            yield f"+ {name}: {json_line(change['after'], longest)}"


def _summary(report: dict[str, Any]) -> str:
    if not report["changes"]:
        return "No changes."
    count = {how: len(objects) for how, objects in report["objects"].items()}
    principals = sum(effect["count"] for effect in report["effects"])
    return (
        f"Plan: {count['added']} to add, {count['changed']} to change, {count['removed']} to remove; "
        f"{principals} principal{'' if principals == 1 else 's'} affected, {len(report['troubles'])} in trouble."
    )


def _principal_name(principal: dict[str, Any]) -> str:
    return safe_text(f"{principal['namespace']}/{principal['name']}")


def _object_name(item: dict[str, Any]) -> str:
    where = f"{item['namespace']}/" if item["namespace"] else ""
    return safe_text(f"{item['kind']} {where}{item['name']}")


def _truncate(lines: list[str], longest: int) -> list[str]:
    return lines if len(lines) <= longest else [*lines[:longest], f"… and {len(lines) - longest} more"]
