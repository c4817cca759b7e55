"""The gateway with the tools that the conformance suite calls by name. Those that are tasks are forwarded requests, as real ones:
a receiver takes them with 202 and ends them in the ledger.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import uuid4

from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool
from pydantic import SecretStr
from tests.conformance.job_receiver import JobReceiver, serving_application
from tests.databases import Server as PostgresServer
from tests.integration.interrogate.conftest import make_admissions
from tests.integration.interrogate.gate_fixture import PublishedWorld, settings_of
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ready

from interrogate.gate import GATE, handlers
from interrogate.mcp_gateway.gateway_tool import TASKS_EXTENSION, GatewayTool, ToolRequest
from legivellum.gate.composition import serving
from memorygate.gate import GATE as MEMORYGATE
from memorygate.settings import Settings as LedgerSettings

MISSING_CLIENT_CAPABILITY = -32021
GATEWAY = "jobs-gateway"
ECHO: dict[str, Any] = {
    "name": "echo",
    "description": "Answers what it was sent.",
    "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
}


def problemata(surface: str, *capabilities: dict[str, Any], expose_tools: bool = False) -> dict[str, Any]:
    return {
        "version": "1",
        "gateway": {"policyProfileRef": {"name": "desk"}, "surfaceId": surface, "principals": [GATEWAY]},
        "payloadKind": "job",
        "exposeTools": expose_tools,
        "capabilities": list(capabilities),
        "topology": [],
    }


JOBS = problemata("jobs", {"id": "job.run"})
TOOLS = problemata(
    "tools",
    {"id": "tool.echo", "tool": {"target": "upstream", "definition": ECHO}},
    {"id": "tool.never", "tool": {"target": "upstream", "as": "never", "definition": ECHO | {"name": "never"}}},
    expose_tools=True,
)


BROKEN = problemata("broken", {"id": "job.broken"})


def policy(jobs: str, upstream: str) -> dict[str, Any]:
    """Jobs are forwarded, tools are called at an MCP server; a rule refuses one of them."""
    common = {"kind": "McpGateway", "principals": ["*"]}
    return {
        "limits": {"maxSpawnDepth": 2, "maxTotalDescendants": 1_000_000},
        "invariants": {"rules": [{"name": "never", "cel": "request.capability_id != 'tool.never'"}]},
        "surfaces": [
            {
                **common,
                "surfaceId": "jobs",
                "capabilities": {"allow": ["job.*"]},
                "targets": [{"name": "receiver", "url": jobs}],
            },
            {
                **common,
                "surfaceId": "broken",
                "capabilities": {"allow": ["job.broken"]},
                "syncTimeoutMs": 100,
                "targets": [{"name": "receiver", "url": f"{jobs}/broken"}],
            },
            {
                **common,
                "surfaceId": "tools",
                "capabilities": {"allow": ["tool.*"]},
                "targets": [{"name": "upstream", "kind": "Mcp", "url": upstream}],
            },
        ],
    }


def text(words: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": words}], "isError": is_error}


async def greet(call: ToolRequest) -> dict[str, Any]:
    return text(f"Hello, {call.arguments['name']}!")


async def missing_capability(call: ToolRequest) -> dict[str, Any]:
    """What needs a client that can sample, as no real tool of the gateway does."""
    raise MCPError(MISSING_CLIENT_CAPABILITY, "This tool needs sampling.", {"requiredCapabilities": {"sampling": {}}})


async def plain(call: ToolRequest) -> dict[str, Any]:
    return text("done")


def fixture_tools(tools: Mapping[str, GatewayTool]) -> dict[str, GatewayTool]:
    passthrough = tools["problemata.passthrough"].call

    async def slow_compute(call: ToolRequest) -> dict[str, Any]:
        work = {"seconds": call.arguments["seconds"], "status": "success"}
        return await passthrough(replace(call, arguments={"problemata_id": "jobs", "mode": "async", "input": work}))

    async def failing_job(call: ToolRequest) -> dict[str, Any]:
        if not call.takes_tasks:
            required = {"extensions": {TASKS_EXTENSION: {}}}
            raise MCPError(MISSING_CLIENT_CAPABILITY, "This tool is a task.", {"requiredCapabilities": required})
        work = {"seconds": 0.5, "status": "failure"}
        return await passthrough(replace(call, arguments={"problemata_id": "jobs", "mode": "async", "input": work}))

    async def protocol_error_job(call: ToolRequest) -> dict[str, Any]:
        """The receiver breaks when the caller has the handle already: then the request is undelivered."""
        return await passthrough(replace(call, arguments={"problemata_id": "broken", "input": {}}))

    number, string = {"type": "number"}, {"type": "string"}
    # The suite calls the first one of the listing without arguments, whatever it is.
    functions = {
        "a_plain_tool": (plain, {}),
        "confirm_delete": (plain, {"filename": string}),
        "failing_job": (failing_job, {}),
        "greet": (greet, {"name": string}),
        "protocol_error_job": (protocol_error_job, {}),
        "slow_compute": (slow_compute, {"seconds": number, "label": string}),
        "test_logging_tool": (plain, {}),
        "test_missing_capability": (missing_capability, {}),
        "test_streaming_elicitation": (plain, {}),
    }
    return {
        name: GatewayTool(
            {"name": name, "description": "Of tests.", "inputSchema": {"type": "object", "properties": properties}},
            function,
        )
        for name, (function, properties) in functions.items()
    }


def upstream_server() -> Server[Any]:
    """An MCP server by the SDK, with the tools that are declared of it."""

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        tools = [Tool.model_validate(ECHO | {"name": name}) for name in ("echo", "never")]
        return ListToolsResult(tools=tools, ttl_ms=0, cache_scope="private")

    async def call_tool(context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.arguments["text"])])

    return Server("upstream", version="1", on_list_tools=list_tools, on_call_tool=call_tool)


@dataclass(frozen=True, slots=True)
class ServedGateway:
    url: str
    world: PublishedWorld
    caller: LedgerPrincipal
    """A principal that may ask for everything here."""


@asynccontextmanager
async def served_gateway(postgres: PostgresServer) -> AsyncIterator[ServedGateway]:
    """The gateway, the ledger, a receiver of jobs and an MCP server, all as they are served."""
    database = await make_admissions(postgres)
    world = PublishedWorld(database, uuid4())
    caller, delegate = world.principal("suite"), world.principal("delegate", "delegate")
    ledger_settings = LedgerSettings(
        database_url=SecretStr(database.ledger.writer),
        identity_database_url=SecretStr(database.database.identity),
        port=free_port(), identity_poll_ms=20,
    )  # fmt: skip
    gate = replace(GATE, handlers=partial(handlers, more_tools=fixture_tools))
    try:
        async with (
            serving(MEMORYGATE, ledger_settings) as ledger_url,
            JobReceiver(ledger_url, delegate).serving() as receiver,
            serving_application(upstream_server().streamable_http_app(stateless_http=True)) as upstream,
        ):
            await world.publish(
                caller,
                delegate,
                world.principal(GATEWAY, "service"),
                policies={"desk": policy(receiver.url, f"{upstream}/mcp")},
                problematas={"jobs": JOBS, "broken": BROKEN, "tools": TOOLS},
            )
            async with serving(gate, settings_of(database, target_hosts="127.0.0.1:*")) as url:
                await ready(url)
                yield ServedGateway(url, world, caller)
    finally:
        await postgres.drop(database.database)
