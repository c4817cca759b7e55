"""The MCP server of the gateway: the SDK's low-level server, without sessions, with the tools of one tenant for each
request (GW-03, GW-09).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolRequestParams, PaginatedRequestParams
from starlette.types import Receive, Scope, Send

from interrogate import metrics
from interrogate.mcp_gateway.caller import current_request
from interrogate.mcp_gateway.gateway_tool import (
    TASKS_EXTENSION,
    GatewayTool,
    Result,
    ToolRequest,
    invalid_params,
    protocol_error,
)
from interrogate.mcp_gateway.native_tools import NativeTools
from interrogate.mcp_gateway.result_forms import fitted_result, listed_tools
from interrogate.mcp_gateway.task_handles import TaskHandles
from legivellum.postgres.errors import Unavailable

_log = structlog.get_logger("interrogate.mcp")


class GatewayServer:
    """One per process. `tools`: those that every tenant has, by name; `native` knows those of the caller's tenant."""

    def __init__(
        self,
        *,
        version: str,
        body_bytes: int,
        tools: Mapping[str, GatewayTool],
        native: NativeTools,
        handles: TaskHandles,
    ) -> None:
        self._tools = tools
        self._native = native
        self._body_bytes = body_bytes
        # The SDK's types name results by model; its runner takes and checks the wire form as well.
        list_tools: Any = self._list_tools
        call_tool: Any = self._call_tool
        self._server: Server[Any] = Server(
            "interrogate",
            version=version,
            title="InterroGate MCP gateway",
            on_list_tools=list_tools,
            on_call_tool=call_tool,
            get_tool_input_schema=self._input_schema,
        )
        # Spans of the SDK would name tools, which are declared names; the gate's own do not.
        self._server.middleware.clear()
        self._server.extensions[TASKS_EXTENSION] = {}
        handles.register(self._server)
        self._manager: StreamableHTTPSessionManager | None = None

    async def handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises Unavailable before the process serves, and after."""
        if self._manager is None:
            raise Unavailable("The gateway is not running.")
        await self._manager.handle_request(scope, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the block runs."""
        manager = StreamableHTTPSessionManager(self._server, stateless=True, max_request_body_size=self._body_bytes)
        async with manager.run():
            self._manager = manager
            try:
                yield
            finally:
                self._manager = None

    async def _list_tools(
        self, context: ServerRequestContext[Any, Any], _params: PaginatedRequestParams | None
    ) -> Result:
        request = current_request()
        definitions = [dict(tool.definition) for tool in self._tools.values()]
        definitions += await self._native.definitions(request)
        definitions.sort(key=lambda definition: definition["name"])
        return listed_tools(definitions, context.protocol_version)

    async def _call_tool(self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Result:
        request = current_request()
        started = time.perf_counter()
        outcome = "error"
        try:
            result = await self._answered(ToolRequest(request, context, params.arguments or {}), params.name)
            outcome = "refused" if result.get("isError") else "answered"
        except MCPError:
            raise
        except Exception as error:
            known = protocol_error(error)
            if known is None:
                _log.error("call_failed", error=type(error).__qualname__, exc_info=error)
                known = MCPError(INTERNAL_ERROR, "This should not have happened; the operators were told.")
            raise known from error
        finally:
            metrics.MCP_CALLS.labels(outcome).inc()
            metrics.MCP_CALL_SECONDS.observe(time.perf_counter() - started)
        return fitted_result(result, context.protocol_version)

    async def _answered(self, call: ToolRequest, name: str) -> Result:
        tool = self._tools.get(name)
        if tool is not None:
            return await tool.call(call)
        native = self._native.find(call.request, name)
        if native is None:
            raise invalid_params("There is no such tool.")
        return await self._native.call(call, *native)

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        """By which `Mcp-Param-*` headers are checked. The SDK tells a name only, and two tenants may share it."""
        tool = self._tools.get(name)
        if tool is not None:
            schema: Mapping[str, Any] = tool.definition["inputSchema"]
            return schema
        native = self._native.find(current_request(), name)
        return None if native is None or native[1].tool is None else native[1].tool.input_schema
