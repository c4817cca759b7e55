"""An MCP client of InterroGate, as an agent has one: asks for a task, then for its state and its artifacts.

It is the official SDK, so that what the demo shows is what any agent gets.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from metagate_cli.output import safe_text
from metagate_cli.terminal import FAILURE, UNABLE, Stop

if TYPE_CHECKING:
    from mcp import Client

SECONDS: Final = 60.0


class ProblemataClient:
    """The calls that the demo makes. Each raises Stop for what was refused."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def problematas(self) -> list[str]:
        """What the caller may ask."""
        answer = await self._call("problemata.capabilities", {})
        return [str(item["problemata_id"]) for item in answer["problematas"]]

    async def ask(self, problemata: str, request: Mapping[str, Any]) -> str:
        """Hand a request to a problemata; the id of its task."""
        answer = await self._call(
            "problemata.passthrough", {"problemata_id": problemata, "input": dict(request), "mode": "async"}
        )
        return str(answer["task_id"])

    async def status(self, task_id: str) -> Mapping[str, Any]:
        return await self._call("problemata.status", {"task_id": task_id})

    async def artifacts(self, task_id: str) -> list[Mapping[str, Any]]:
        answer = await self._call("problemata.artifacts", {"task_id": task_id})
        return list(answer["artifacts"])

    async def _call(self, tool: str, arguments: dict[str, Any]) -> Mapping[str, Any]:
        from mcp.shared.exceptions import MCPError

        try:
            result = await self._client.call_tool(tool, arguments)
        except MCPError as error:
            raise Stop(f"{tool}: InterroGate refuses: {safe_text(error)}", code=FAILURE) from error
        content: Mapping[str, Any] = result.structured_content or {}
        if result.is_error:
            reason = f"{content.get('reason_code')}: {content.get('detail')}"
            raise Stop(f"{tool}: InterroGate refuses: {safe_text(reason)}", code=FAILURE)
        return content


@asynccontextmanager
async def problemata_client(
    url: str, credential: tuple[str, str], ca_file: Path | None
) -> AsyncIterator[ProblemataClient]:
    """Connected to the MCP endpoint of the InterroGate at `url`. Raises Stop where it cannot be reached."""
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    verify = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    name, value = credential
    try:
        async with (
            httpx2.AsyncClient(headers={name: value}, timeout=SECONDS, verify=verify, trust_env=False) as http,
            Client(streamable_http_client(f"{url.rstrip('/')}/mcp", http_client=http)) as client,
        ):
            yield ProblemataClient(client)
    except BaseExceptionGroup as group:
        # The SDK runs its streams in a task group, which wraps what any of them raises.
        if (stop := _first(group, Stop)) is not None:
            raise stop from None
        if (away := _first(group, httpx2.HTTPError)) is not None:
            raise _unreachable(url, away) from group
        raise
    except httpx2.HTTPError as error:
        raise _unreachable(url, error) from error


def _first(group: BaseExceptionGroup[Any], kind: type[Exception]) -> Exception | None:
    for error in group.exceptions:
        match = _first(error, kind) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(match, kind):
            return match
    return None


def _unreachable(url: str, error: Exception) -> Stop:
    return Stop(f"InterroGate at {url} cannot be used: {safe_text(error) or type(error).__name__}", code=UNABLE)
