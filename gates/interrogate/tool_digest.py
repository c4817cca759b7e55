"""Digests of what MCP servers say: of a definition, by which a tool is pinned, of arguments, of results (GW-08)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from legivellum.base.canonical_json import canonical_in_full, hex_digest

PINNED_MEMBERS: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""What a model or a client acts upon. Icons, `_meta` and members of later revisions are not shown to agents."""


def pinned_definition(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a listed or declared tool that are pinned. Null says the same as absent."""
    return {member: tool[member] for member in PINNED_MEMBERS if tool.get(member) is not None}


def tool_digest(tool: Mapping[str, Any]) -> str:
    """The SHA-256, in hex, of the pinned members in canonical form. Raises ValueError where they have none."""
    return hex_digest(canonical_in_full(pinned_definition(tool)))


def json_digest(value: Any) -> tuple[str, int]:
    """The SHA-256, in hex, of a JSON value in canonical form, and the length of that form. Raises ValueError."""
    form = canonical_in_full(value)
    return hex_digest(form), len(form)
