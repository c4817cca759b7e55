"""Servers of MCP that the gateway is compared with, each a process of `bench/gateways.py`:
`python mcp_upstream.py KIND PORT [URL]`.

`noop`: one tool that does nothing, by the official SDK. `relay`: the same SDK, whose one tool calls that of URL;
without a policy, a record or a limit. `fastmcp`: the proxy of FastMCP before URL.
"""

import sys
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from mcp import types
from mcp.client.client import Client
from mcp.server.lowlevel import Server

TOOL = types.Tool(
    name="echo",
    description="Answers what it was sent.",
    input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)


async def listed(_context: Any, _params: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[TOOL], ttl_ms=60_000, cache_scope="private")


async def echoed(_context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=params.arguments["text"])])


def noop() -> Server[Any]:
    return Server("noop", version="1", on_list_tools=listed, on_call_tool=echoed)


def relay(url: str) -> Server[Any]:
    @asynccontextmanager
    async def connected(_server: Any):
        async with Client(url) as client:
            yield client

    async def forwarded(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        return await context.lifespan_context.call_tool(params.name, params.arguments)

    return Server("relay", version="1", lifespan=connected, on_list_tools=listed, on_call_tool=forwarded)


def main(kind: str, port: int, url: str = "") -> None:
    if kind == "fastmcp":
        from fastmcp.server import create_proxy

        proxy = create_proxy(url, name="proxy")
        proxy.run(transport="http", port=port, stateless_http=True, show_banner=False, log_level="ERROR")
        return
    server = noop() if kind == "noop" else relay(url)
    uvicorn.run(server.streamable_http_app(stateless_http=True), port=port, log_level="error")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
