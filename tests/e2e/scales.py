"""Runs in a pod: an MCP server with one tool, `weigh`. It prints the headers and arguments of each call, a line each."""

import json

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server

WEIGH = types.Tool(
    name="weigh",
    description="Weighs a parcel.",
    input_schema={"type": "object", "properties": {"parcel": {"type": "string"}}, "required": ["parcel"]},
)


async def list_tools(context, params):
    return types.ListToolsResult(tools=[WEIGH], ttl_ms=0, cache_scope="private")


async def call_tool(context, params):
    headers = {name.lower(): value for name, value in context.request.headers.items()}
    print(json.dumps({"arguments": params.arguments, "headers": headers}), flush=True)
    return types.CallToolResult(content=[types.TextContent(type="text", text="3 kg")], structured_content={"kg": 3})


server = Server("scales", version="1", on_list_tools=list_tools, on_call_tool=call_tool)
uvicorn.run(server.streamable_http_app(stateless_http=True, host="0.0.0.0"), host="0.0.0.0", port=8080)
