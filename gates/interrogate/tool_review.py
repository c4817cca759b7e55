"""`interrogate tools`: what an MCP server lists, as capabilities to review and apply, and what changed (GW-07)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

_NOT_IN_AN_ID: Final = re.compile(r"[^A-Za-z0-9_.-]+")
_EXPOSED_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class NothingListed(ValueError):  # noqa: N818 - what the listing is
    """An MCP server could not be listed, or lists what cannot be declared."""


def capabilities_yaml(listing: Mapping[str, Any]) -> str:
    """Every listed tool as a capability: those that are declared keep their id, `idempotent` and estimate.

    Raises NothingListed for a server that was not listed, and for text that whoever reviews it would not see.
    """
    capabilities = [_capability(listing, target["target"], tool) for target, tool in _tools(listing)]
    if not capabilities:
        raise NothingListed("no MCP server behind this Problemata lists a tool")
    return yaml.safe_dump({"capabilities": capabilities}, sort_keys=False, allow_unicode=True, width=100)


def difference_lines(listing: Mapping[str, Any]) -> Iterator[str]:
    """A line for each tool that is not as it was declared, with what of it changed. Text of the server is escaped."""
    for target in listing["targets"]:
        if target["reason"] is not None:
            yield f"! {_safe(target['target'])}: {target['reason']}: {target['detail']}"
        for tool in target["tools"]:
            if tool["state"] != "unchanged":
                yield f"{_SIGNS[tool['state']]} {_safe(target['target'])}: {_safe(tool['name'])}: {tool['state']}"
            if tool["state"] == "changed":
                yield from (f"    {line}" for line in _definition_lines(tool))
            yield from (f"    {_safe(path)} holds characters that nobody sees" for path in tool["unseen"])


def is_as_declared(listing: Mapping[str, Any]) -> bool:
    """Whether every declared tool may be called. Tools that are not declared are not there for agents."""
    return all(
        target["reason"] is None and all(tool["state"] in {"unchanged", "undeclared"} for tool in target["tools"])
        for target in listing["targets"]
    )


_SIGNS: Final = {"changed": "~", "removed": "-", "undeclared": "+"}


def _tools(listing: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for target in listing["targets"]:
        if target["reason"] is not None:
            raise NothingListed(f"{_safe(target['target'])}: {target['reason']}: {target['detail']}")
        for tool in target["tools"]:
            if tool["unseen"]:
                raise NothingListed(
                    f"{_safe(target['target'])}: {_safe(tool['name'])} holds control, direction or tag characters, "
                    f"which nobody sees, at {', '.join(map(_safe, tool['unseen']))}: it cannot be declared"
                )
            if tool["definition"] is not None:
                yield target, tool


def _capability(listing: Mapping[str, Any], target: str, tool: Mapping[str, Any]) -> dict[str, Any]:
    problemata, name = listing["problemata_id"], tool["name"]
    declared: dict[str, Any] = {"target": target, "idempotent": bool(tool["idempotent"])}
    exposed = tool["exposed_name"] or f"{problemata}.{name}"
    if exposed != f"{problemata}.{name}":
        declared["as"] = exposed.removeprefix(f"{problemata}.")
    elif not _EXPOSED_NAME.fullmatch(exposed):
        declared["as"] = _NOT_IN_AN_ID.sub("_", name)
    capability: dict[str, Any] = {"id": tool["capability_id"] or _id(problemata, name)}
    if tool["estimated_duration_ms"] is not None:
        capability["estimatedDurationMs"] = tool["estimated_duration_ms"]
    return {**capability, "tool": {**declared, "definition": tool["definition"]}}


def _id(problemata: str, name: str) -> str:
    return f"{problemata}.{_NOT_IN_AN_ID.sub('_', name)}"[:128].strip("_.-")


def _definition_lines(tool: Mapping[str, Any]) -> Iterator[str]:
    declared, listed = (
        # Nothing but ASCII is written as it is: a terminal must not act on what a server lists.
        yaml.safe_dump(tool[key], sort_keys=True, allow_unicode=False, width=100).splitlines()
        for key in ("declared_definition", "definition")
    )
    yield from difflib.unified_diff(declared, listed, "declared", "listed", lineterm="", n=2)


def _safe(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
