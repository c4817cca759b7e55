"""The client under test, and the targets and pins that calls are made with."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from interrogate.mcp_gateway.credentials import CredentialFiles
from interrogate.mcp_gateway.upstream import UpstreamOutcome, Upstreams, UpstreamTarget
from interrogate.problemata import ToolPin
from interrogate.ruleset import TargetRule
from interrogate.targets import TargetHosts

TENANT, OTHER_TENANT = UUID(int=1), UUID(int=2)


@asynccontextmanager
async def upstream_clients(credentials: Path | None = None) -> AsyncIterator[Upstreams]:
    clients = Upstreams(
        TargetHosts.parse("127.0.0.1"), CredentialFiles(None if credentials is None else str(credentials)), version="1"
    )
    async with contextlib.aclosing(_Closing(clients)):
        yield clients


class _Closing:
    def __init__(self, clients: Upstreams) -> None:
        self._clients = clients

    async def aclose(self) -> None:
        await self._clients.close()


def target(url: str, *, tenant: UUID = TENANT, namespace: str = "tenant-a", **rule: Any) -> UpstreamTarget:
    return UpstreamTarget(tenant, namespace, TargetRule(name="server", url=url, kind="Mcp", **rule))


def pin(definition: Mapping[str, Any], *, idempotent: bool = False) -> ToolPin:
    declared = {name: value for name, value in definition.items() if name not in {"icons", "_meta"}}
    return ToolPin.of("mail", {"target": "server", "idempotent": idempotent, "definition": declared})


def plain_pin(name: str, *, idempotent: bool = False) -> ToolPin:
    return pin({"name": name, "inputSchema": {"type": "object"}}, idempotent=idempotent)


async def call(
    clients: Upstreams, upstream: UpstreamTarget, tool: ToolPin, seconds: float = 5.0, **arguments: Any
) -> UpstreamOutcome:
    return await clients.call(upstream, tool, arguments, bearer=None, seconds=seconds)
