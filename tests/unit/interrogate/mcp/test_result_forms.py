"""A result as each revision of MCP can carry it: what the SDK refused would be lost after the tool ran (GW-17)."""

from typing import Any

import pytest
from mcp_types import methods

from interrogate.mcp_gateway.result_forms import fitted_result, listed_tools

REVISIONS = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"]
TEXT = {"type": "text", "text": "x"}


@pytest.mark.parametrize("version", REVISIONS)
@pytest.mark.parametrize("structured", [None, {"a": 1}, [1, 2], "text", 7, True])
def test_structured_content_that_is_no_object(version: str, structured: Any) -> None:
    """Left out below 2026-07-28, kept there; the rest arrives."""
    sent = {"content": [TEXT], "isError": False, **({} if structured is None else {"structuredContent": structured})}
    made = fitted_result(sent, version)
    wire = methods.serialize_server_result("tools/call", version, made)
    assert wire["content"] == [TEXT]
    kept = structured is not None and (version == "2026-07-28" or isinstance(structured, dict))
    assert made.get("structuredContent") == (structured if kept else None)


@pytest.mark.parametrize("version", REVISIONS)
def test_content_that_a_revision_does_not_know_is_named(version: str) -> None:
    """The rest of the answer arrives, and nobody takes it for all of it."""
    sent = {"content": [TEXT, {"type": "hologram", "light": "x"}]}
    wire = methods.serialize_server_result("tools/call", version, fitted_result(sent, version))
    assert [block["text"] for block in wire["content"]] == [
        "x",
        f"[content of type hologram cannot be shown in MCP {version}]",
    ]


@pytest.mark.parametrize("version", REVISIONS)
def test_a_tool_that_a_revision_cannot_express_hides_no_other(version: str) -> None:
    """An output schema that is no object is left out for revisions that want one."""
    schema = {"type": "object"}
    tools = [
        {"name": "a", "inputSchema": schema, "outputSchema": {"type": "array"}},
        {"name": "b", "inputSchema": schema, "outputSchema": schema},
    ]
    wire = methods.serialize_server_result("tools/list", version, listed_tools(tools, version))
    assert [tool["name"] for tool in wire["tools"]] == ["a", "b"]
