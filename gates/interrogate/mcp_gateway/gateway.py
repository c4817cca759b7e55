"""The MCP gateway of one process, put together: what is served at `/mcp`, and what runs beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from interrogate.admission_gate import AdmissionGate
from interrogate.mcp_gateway.application import McpApplication
from interrogate.mcp_gateway.completion_watch import CompletionWatch
from interrogate.mcp_gateway.credentials import CredentialFiles
from interrogate.mcp_gateway.gateway_tool import GatewayTool
from interrogate.mcp_gateway.input_schemas import InputSchemas
from interrogate.mcp_gateway.native_tools import NativeTools
from interrogate.mcp_gateway.passthrough import NAME, Passthrough
from interrogate.mcp_gateway.reading_tools import ReadingTools
from interrogate.mcp_gateway.resource_metadata import ProtectedResource
from interrogate.mcp_gateway.server import GatewayServer
from interrogate.mcp_gateway.task_handles import TaskHandles
from interrogate.mcp_gateway.upstream import Upstreams
from interrogate.targets import TargetHosts
from legivellum.http.edge import Edge
from legivellum.http.exchange import App

Tools = Mapping[str, GatewayTool]
_NO_TOOLS: Final[Tools] = MappingProxyType({})


class McpGateway:
    """One per process. `more_tools` is given the gateway's own tools and adds others: those that conformance suites
    call by name.
    """

    def __init__(self, gate: AdmissionGate, *, more_tools: Callable[[Tools], Tools] = lambda _own: _NO_TOOLS) -> None:
        settings = gate.process.settings
        self.resource = ProtectedResource.of(settings)
        self.upstreams = Upstreams(
            TargetHosts.parse(settings.target_hosts),
            CredentialFiles(settings.credentials_dir),
            version=settings.version,
        )
        schemas = InputSchemas()
        self._gate = gate
        self._watch = CompletionWatch(lambda: gate.process.database)
        self._native = NativeTools(gate, self.upstreams, schemas)
        self._passthrough = Passthrough(gate, self.resource, self._native, schemas, self._watch)
        self.reading = ReadingTools(gate, self.upstreams)
        own = {NAME: self._passthrough.tool, **self.reading.tools}
        self._server = GatewayServer(
            version=settings.version,
            body_bytes=settings.body_bytes,
            tools={**own, **more_tools(own)},
            native=self._native,
            handles=TaskHandles(gate),
        )
        gate.process.beside.append(self.running)
        gate.process.in_front.append(self._wrapped)

    def _wrapped(self, edge: Edge) -> App:
        return McpApplication(edge, self._gate, self.resource, self._server)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer while the block runs; then let end what was admitted and sent."""
        try:
            async with self._server.running():
                yield
        finally:
            await self._passthrough.close()
            await self._native.close()
            await self._watch.close()
            await self.upstreams.close()
