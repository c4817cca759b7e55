"""A real MCP server of the SDK on a free port of the loopback, and what it was asked."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import mcp_types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOOLS = [
    {
        "name": "echo",
        "title": "Echo",
        "description": "Says what it was told.",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "outputSchema": {"type": "object"},
        "annotations": {"readOnlyHint": True},
    },
    {"name": "fail", "inputSchema": {"type": "object"}},
    {"name": "slow", "inputSchema": {"type": "object"}},
    {"name": "progress", "inputSchema": {"type": "object"}},
    {"name": "error", "inputSchema": {"type": "object"}},
    {"name": "ask", "inputSchema": {"type": "object"}},
    {
        "name": "region",
        "inputSchema": {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
    },
]


@dataclass
class SdkUpstream:
    """`tools` is what it lists from the next request on; `calls` and `requests` what it was asked."""

    port: int = 0
    tools: list[dict[str, Any]] = field(default_factory=lambda: [dict(tool) for tool in TOOLS])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Method and headers, in lower case."""
    listings: int = 0
    memory: dict[str, str] = field(default_factory=dict)
    legacy: bool = False
    """Whether it refuses requests of 2026-07-28, as servers before it do."""
    greets_with: str | None = None
    """A revision that its answers to `initialize` name instead of their own."""
    on_call: Callable[[str, dict[str, Any]], Awaitable[None]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    @property
    def started_sessions(self) -> set[str]:
        """The session ids that requests carried."""
        return {headers["mcp-session-id"] for _, headers in self.requests if "mcp-session-id" in headers}


def text_result(text: str) -> mcp_types.CallToolResult:
    return mcp_types.CallToolResult(
        content=[mcp_types.TextContent(type="text", text=text)], structured_content={"text": text}
    )


def _server(upstream: SdkUpstream, *, validates_headers: bool) -> Server[Any]:
    async def list_tools(_context: ServerRequestContext[Any], _params: Any) -> mcp_types.ListToolsResult:
        upstream.listings += 1
        return mcp_types.ListToolsResult(tools=[mcp_types.Tool.model_validate(tool) for tool in upstream.tools])

    async def call_tool(
        context: ServerRequestContext[Any], params: mcp_types.CallToolRequestParams
    ) -> mcp_types.CallToolResult | mcp_types.InputRequiredResult:
        arguments = params.arguments or {}
        upstream.calls.append((params.name, arguments))
        if upstream.on_call is not None:
            await upstream.on_call(params.name, arguments)
        match params.name:
            case "fail":
                return mcp_types.CallToolResult(
                    content=[mcp_types.TextContent(type="text", text="no such address")], is_error=True
                )
            case "slow":
                await asyncio.sleep(30)
            case "progress":
                for step in range(50):
                    await context.session.report_progress(step, 50, "x" * 1000)
            case "error":
                raise mcp_types_error(-32050, "the tool has no arms")
            case "ask":
                return mcp_types.InputRequiredResult(request_state="step 1")
        return text_result(str(arguments.get("text", "done")))

    def schema_of(name: str) -> dict[str, Any] | None:
        return next((tool["inputSchema"] for tool in upstream.tools if tool["name"] == name), None)

    return Server(
        "upstream",
        version="1",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=schema_of if validates_headers else None,
    )


def mcp_types_error(code: int, message: str) -> Exception:
    from mcp.shared.exceptions import MCPError

    return MCPError(code, message, {"arms": 0})


class _Recording:
    """Notes every request, and lets the server be older than it is."""

    def __init__(self, app: ASGIApp, upstream: SdkUpstream) -> None:
        self._app, self._upstream = app, upstream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self._upstream.requests.append((scope["method"], headers))
        if self._upstream.legacy and headers.get("mcp-protocol-version") == "2026-07-28":
            start: Message = {
                "type": "http.response.start",
                "status": 400,
                "headers": [(b"content-type", b"text/plain")],
            }
            await send(start)
            await send({"type": "http.response.body", "body": b"Bad Request: no session"})
            return
        await self._app(scope, receive, self._greeting(send))

    def _greeting(self, send: Send) -> Send:
        """Writes another revision of equal length into what is sent."""

        async def replaced(message: Message) -> None:
            if self._upstream.greets_with is not None and message["type"] == "http.response.body":
                body = message.get("body", b"").replace(b"2025-11-25", self._upstream.greets_with.encode())
                message = {**message, "body": body}
            await send(message)

        return replaced


@asynccontextmanager
async def sdk_upstream(
    *,
    legacy: bool = False,
    stateless: bool = True,
    json_response: bool = True,
    validates_headers: bool = False,
) -> AsyncIterator[SdkUpstream]:
    upstream = SdkUpstream(legacy=legacy)
    server = _server(upstream, validates_headers=validates_headers)
    app = server.streamable_http_app(stateless_http=stateless, json_response=json_response)
    async with serving(_Recording(app, upstream)) as port:
        upstream.port = port
        yield upstream


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[int]:
    """uvicorn on a free port of the loopback while the block runs."""
    # asyncio turns Nagle's algorithm off for sockets that say that they are TCP: else every answer waits 40 ms.
    listening = socket.socket(proto=socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", lifespan="on", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        async with asyncio.timeout(10):
            while not server.started:
                await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await running
        listening.close()
