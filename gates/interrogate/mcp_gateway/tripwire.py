"""What an MCP server lists now, compared with what was declared: a tool that was changed is not called (GW-08).

The listing of up to a minute ago is believed, so that a call costs no second round trip. It guards no decision: two
processes may have seen different listings, and a decision must not depend on which of them decided (INV-105).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import ListToolsRequest, PaginatedRequestParams
from pydantic import RootModel, ValidationError

from interrogate.mcp_gateway.upstream_dispatcher import UpstreamDispatcher
from interrogate.mcp_gateway.upstream_transport import UpstreamFailure
from interrogate.problemata import PINNED, ToolPin, tool_digest
from legivellum.base.canonical_json import Uncanonical

BELIEVED_SECONDS: Final = 60.0
LISTING_BYTES: Final = 2_097_152
LISTING_SECONDS: Final = 10.0
_PAGES: Final = 8


class _Page(RootModel[dict[str, Any]]):
    """A page as it was sent: what is pinned is what the server said, not what a model of it keeps."""


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as an MCP server lists it now."""

    definition: Mapping[str, Any]
    """Its pinned members, as they were sent."""
    digest: str


async def list_tools(session: ClientSession, dispatcher: UpstreamDispatcher) -> list[ListedTool]:
    """Every tool of the server, page by page, over a session that has greeted it. Raises UpstreamFailure."""
    tools: list[ListedTool] = []
    cursor: str | None = None
    dispatcher.answer_bytes = LISTING_BYTES
    try:
        for _ in range(_PAGES):
            params = None if cursor is None else PaginatedRequestParams(cursor=cursor)
            page = (await session.send_request(ListToolsRequest(params=params), _Page)).root
            tools += map(_listed, page["tools"])
            cursor = page.get("nextCursor")
            if cursor is None:
                return tools
            dispatcher.answer_bytes -= dispatcher.received_bytes
    except MCPError as error:
        raise UpstreamFailure("ANSWER_INVALID", f"The MCP server refuses to list its tools ({error.code}).") from error
    except (Uncanonical, ValidationError) as error:
        raise UpstreamFailure("ANSWER_INVALID", "The MCP server's listing is not valid.") from error
    raise UpstreamFailure("ANSWER_TOO_LARGE", f"The MCP server's listing has more than {_PAGES} pages.")


def _listed(tool: Mapping[str, Any]) -> ListedTool:
    definition = {name: tool[name] for name in PINNED if tool.get(name) is not None}
    return ListedTool(definition, tool_digest(definition))


class Tripwire:
    """The last listing of one server. Calls that need a new one at the same time wait for the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._digests: Mapping[str, str] | None = None
        self._listed_at = 0.0
        self._listing: asyncio.Task[Sequence[ListedTool]] | None = None

    async def require(self, pin: ToolPin, fetch: Callable[[], Awaitable[Sequence[ListedTool]]]) -> None:
        """Raises UpstreamFailure where the server does not list the tool as it was declared, or cannot be listed."""
        if self._digests is None or self._clock() - self._listed_at >= BELIEVED_SECONDS:
            await self.refresh(fetch)
        if self.is_changed(pin):
            raise UpstreamFailure("TOOL_CHANGED", "The MCP server no longer lists the tool as it was reviewed.")

    async def refresh(self, fetch: Callable[[], Awaitable[Sequence[ListedTool]]]) -> Sequence[ListedTool]:
        """What the server lists now. Raises UpstreamFailure."""
        if self._listing is None:
            self._listing = asyncio.create_task(self._fetch(fetch), name="list the tools of an MCP server")
            self._listing.add_done_callback(self._listing_done)
        # Whoever waits may be cut off; the others still wait for the same listing.
        return await asyncio.shield(self._listing)

    def is_changed(self, pin: ToolPin) -> bool:
        """Whether the last listing, where there is one, holds anything but the declared tool under its name."""
        return self._digests is not None and self._digests.get(pin.name) != pin.digest

    async def close(self) -> None:
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)

    async def _fetch(self, fetch: Callable[[], Awaitable[Sequence[ListedTool]]]) -> Sequence[ListedTool]:
        # What the server says at the end of a slow listing may be as old as its beginning.
        begun = self._clock()
        try:
            async with asyncio.timeout(LISTING_SECONDS):
                tools = await fetch()
        except TimeoutError as error:
            raise UpstreamFailure("TIMEOUT", "The MCP server did not list its tools in time.") from error
        self._digests = _digests(tools)
        self._listed_at = begun
        return tools

    def _listing_done(self, task: asyncio.Task[Sequence[ListedTool]]) -> None:
        self._listing = None
        if not task.cancelled():
            task.exception()  # retrieved: every waiter may be gone


def _digests(tools: Sequence[ListedTool]) -> dict[str, str]:
    """By name. A name that is listed twice has no digest: which of the two would be called is the server's choice."""
    digests: dict[str, str] = {}
    for tool in tools:
        name = str(tool.definition["name"])
        digests[name] = "" if name in digests else tool.digest
    return digests
