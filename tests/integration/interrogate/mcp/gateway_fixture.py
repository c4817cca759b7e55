"""The MCP gateway on real parts: InterroGate with MetaGate's tables and the ledger on PostgreSQL, MemoryGate beside it, an
MCP server of the SDK as upstream, receivers of forwarded requests, and clients of the SDK or of bare HTTP.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import GateClient, PublishedWorld, Requesting, policy_row, settings_of
from tests.integration.memorygate.conftest import accepted, complete, new_id
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal, free_port, ready
from tests.unit.interrogate.mcp.sdk_upstream import TOOLS, SdkUpstream, sdk_upstream, serving

from interrogate.gate import GATE, handlers
from legivellum.gate.composition import serving as serving_gate
from memorygate.gate import GATE as LEDGER
from memorygate.settings import Settings as LedgerSettings

MODERN = "2026-07-28"
CAPABILITIES_META = "io.modelcontextprotocol/clientCapabilities"
VERSION_META = "io.modelcontextprotocol/protocolVersion"
TASKS = "io.modelcontextprotocol/tasks"
REVIEW_SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 100}},
    "required": ["text"],
}


def desk_policy(receiver: str, upstream: str, **surface: Any) -> dict[str, Any]:
    """One surface with a receiver of requests and an MCP server."""
    targets = [
        {"name": "reviewer", "url": receiver, "audience": "reviewer"},
        {"name": "toolserver", "kind": "Mcp", "url": upstream, "timeoutMs": 2_000},
    ]
    desk = {
        "surfaceId": "desk",
        "kind": "McpGateway",
        "principals": ["*"],
        "capabilities": {"allow": ["doc.*", "tool.*"]},
        "parentage": "Tenant",
        "targets": targets,
        "syncTimeoutMs": 2_000,
        **surface,
    }
    return {"limits": {"maxSpawnDepth": 3, "maxTotalDescendants": 50}, "surfaces": [desk]}


def desk_problemata(**changes: Any) -> dict[str, Any]:
    """A capability that is forwarded, one of a long estimate, and the upstream's tools."""
    tools = [
        {
            "id": f"tool.{tool['name']}",
            "tool": {"target": "toolserver", "definition": tool, "idempotent": tool["name"] == "echo"},
        }
        for tool in TOOLS
    ]
    return {
        "version": "3",
        "gateway": {
            "policyProfileRef": {"name": "front-desk"},
            "surfaceId": "desk",
            "principals": ["mail-gateway"],
        },
        "payloadKind": "plan_request",
        "exposeTools": True,
        "capabilities": [{"id": "doc.review", "inputSchema": REVIEW_SCHEMA}, {"id": "doc.any"}, *tools],
        **changes,
    }


@dataclass
class ForwardReceiver:
    """A target of forwarded requests: answers as it is told, and notes what it got."""

    port: int = 0
    status: int = 200
    answer: Any = field(default_factory=lambda: {"done": True})
    seconds: float = 0.0
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    on_request: Callable[[dict[str, str]], Awaitable[None]] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/work"

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((headers, body))
        if self.on_request is not None:
            await self.on_request(headers)
        await asyncio.sleep(self.seconds)
        content = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": content})
        await send({"type": "http.response.body", "body": json.dumps(self.answer).encode()})


@dataclass
class McpClient:
    """A principal that talks to `/mcp` in bare HTTP, as the revision 2026-07-28 has it."""

    gateway: "GatewayFixture"
    principal: LedgerPrincipal
    tasks: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    async def post(self, body: Any, **headers: str | None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
        sent: dict[str, str | None] = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            **self.principal.headers,
            **self.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lower = {name.lower(): value for name, value in sent.items()}
        return await self.gateway.http.post(
            "/mcp", content=content, headers={name: value for name, value in lower.items() if value is not None}
        )

    def message(self, method: str, params: Mapping[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        capabilities = {"extensions": {TASKS: {}}} if self.tasks else {}
        envelope = {VERSION_META: MODERN, CAPABILITIES_META: capabilities, **meta}
        return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**(params or {}), "_meta": envelope}}

    async def request(self, method: str, params: Mapping[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The JSON-RPC response, whether it came as JSON or as an event."""
        name = (params or {}).get("name") or (params or {}).get("taskId")
        headers = {"mcp_protocol_version": MODERN, "mcp_method": method, "mcp_name": name}
        answer = await self.post(self.message(method, params, **meta), **headers)
        return response_of(answer)

    async def call(self, name: str, arguments: Mapping[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The result of a tool. Fails for an error of the protocol."""
        response = await self.request("tools/call", {"name": name, "arguments": dict(arguments or {})}, **meta)
        assert "result" in response, response
        return dict(response["result"])

    async def ask(self, input_: Any, **arguments: Any) -> dict[str, Any]:
        made = {"problemata_id": "desk", "input": input_, "capability": "doc.any", **arguments}
        return await self.call("problemata.passthrough", made)

    async def error(self, name: str, arguments: Mapping[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        """The JSON-RPC error of a call."""
        response = await self.request("tools/call", {"name": name, "arguments": dict(arguments or {})}, **meta)
        assert "error" in response, response
        return dict(response["error"])

    def with_tasks(self) -> "McpClient":
        return replace(self, tasks=True)


def response_of(answer: httpx.Response) -> dict[str, Any]:
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        data = [line.removeprefix("data:").strip() for line in answer.text.splitlines() if line.startswith("data:")]
        return dict(json.loads(data[-1]))
    assert answer.headers.get("content-type", "").startswith("application/json"), (answer.status_code, answer.text)
    return dict(answer.json())


@dataclass
class GatewayFixture:
    """A served gateway and everything around it."""

    gate: GateClient
    http: httpx.AsyncClient
    ledger: httpx.AsyncClient
    upstream: SdkUpstream
    receiver: ForwardReceiver
    alice: McpClient
    bob: McpClient
    reviewer: LedgerPrincipal
    """A delegate: it completes what the receiver took."""

    @property
    def world(self) -> PublishedWorld:
        return self.gate.world

    @property
    def url(self) -> str:
        return f"{self.gate.url}/mcp"

    def client_of(self, principal: LedgerPrincipal) -> McpClient:
        return McpClient(self, principal)

    async def publish(
        self,
        *principals: LedgerPrincipal,
        surface: Mapping[str, Any] | None = None,
        reader: McpClient | None = None,
        **problemata: Any,
    ) -> None:
        """The policy and the Problemata anew, and more principals; waits until the gate has read them, as
        `reader` sees it.
        """
        policy = desk_policy(self.receiver.url, self.upstream.url, **(surface or {}))
        version = f"v{new_id().lower()}"
        await self.world.publish(
            *principals,
            policies={"front-desk": policy},
            problematas={"desk": desk_problemata(**{"version": version, **problemata})},
        )
        wanted = policy_row(self.world.tenant, "front-desk", policy, uuid4())["policy_hash"]
        rest = Requesting(self.http, self.alice.principal, profile="front-desk", surface="desk")
        async with asyncio.timeout(20):
            # Who speaks is read by another poll than what is admitted.
            for principal in principals:
                asking = Requesting(self.http, principal, profile="front-desk", surface="desk")
                while (await asking.post("/v1/check", asking.envelope())).status_code == 401:
                    await asyncio.sleep(0.02)
            while True:
                answer = await rest.post("/v1/check", rest.envelope())
                if answer.status_code == 200 and (answer.json()["policy"] or {}).get("hash") == wanted:
                    listed = await (reader or self.alice).call("problemata.capabilities")
                    versions = [item["version"] for item in listed["structuredContent"]["problematas"]]
                    if version in versions:
                        return
                await asyncio.sleep(0.02)

    async def complete(self, task_id: str, status: str = "success", **fields: Any) -> None:
        """The reviewer opens the obligation and ends it."""
        await self.accept(task_id)
        await self.post_receipt(
            complete(
                task_id=task_id, status=status, **{"outcome_kind": "response_text", "outcome_text": "fine", **fields}
            )
        )

    async def accept(self, task_id: str) -> None:
        await self.post_receipt(accepted(task_id=task_id))

    async def post_receipt(self, receipt: Mapping[str, Any]) -> None:
        body = {"principal_ai": self.reviewer.name, **receipt}
        answer = await self.ledger.post("/receipts", json=body, headers=self.reviewer.headers)
        assert answer.status_code == 201, answer.text

    @asynccontextmanager
    async def sdk_client(self, client: McpClient, mode: str = "auto") -> AsyncIterator[Client]:
        """A client of the SDK, as `client`'s principal."""
        headers = client.principal.headers
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as connected,
        ):
            yield connected


@asynccontextmanager
async def serving_gateway(
    database: AdmissionDatabase, *, upstream: SdkUpstream | None = None, more_tools: Any = None, **settings: Any
) -> AsyncIterator[GatewayFixture]:
    """Everything, until the block ends. `alice` and `bob` are principals, whose policy and Problemata are published."""
    world = PublishedWorld(database)
    alice, bob = world.principal("alice"), world.principal("bob")
    reviewer = world.principal("reviewer", "delegate")
    receiver = ForwardReceiver()
    gate_settings = settings_of(database, **{"target_hosts": "127.0.0.1", "forward_ms": 3_000, **settings})
    ledger_settings = LedgerSettings(
        database_url=SecretStr(database.ledger.writer),
        identity_database_url=SecretStr(database.database.identity),
        port=free_port(),
        rate_per_second=0,
        identity_poll_ms=20,
    )
    definition = GATE if more_tools is None else replace(GATE, handlers=partial(handlers, more_tools=more_tools))
    async with (
        serving(receiver) as receiver.port,
        sdk_upstream(json_response=False) as own_upstream,
        serving_gate(definition, gate_settings) as url,
        serving_gate(LEDGER, ledger_settings) as ledger_url,
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        httpx.AsyncClient(base_url=ledger_url, timeout=30) as ledger,
    ):
        await ready(url)
        await ready(ledger_url)
        gateway = GatewayFixture(
            GateClient(world, http, url), http, ledger, upstream or own_upstream, receiver, None, None, reviewer,  # type: ignore[arg-type]
        )  # fmt: skip
        gateway.alice, gateway.bob = gateway.client_of(alice), gateway.client_of(bob)
        await gateway.publish(alice, bob, reviewer)
        yield gateway
