"""Which revision of MCP a server speaks: probed once, remembered for ten minutes (GW-17).

A server of 2026-07-28 answers `server/discover`, an older one refuses it and is greeted with `initialize`. What either
said is adopted by the sessions of later calls. A server that gave a session id is greeted anew by every call: in a
session that two callers share, one could read what the other had told the server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mcp.client.session import ClientSession
from mcp.shared.exceptions import MCPError
from mcp_types import DiscoverResult, InitializeResult
from pydantic import ValidationError

from interrogate.mcp_gateway.upstream_dispatcher import UpstreamDispatcher
from interrogate.mcp_gateway.upstream_transport import UpstreamFailure

REVISIONS: Final = ("2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28")
_REMEMBERED_SECONDS: Final = 600.0
_PROBE_SECONDS: Final = 5.0
"""An old server may leave a method that it does not know unanswered."""
# What a server of an older revision makes of a method, a media type or a session that it does not know.
_NO_PROBE: Final = frozenset({"HTTP_ERROR", "ANSWER_INVALID"})


@dataclass(frozen=True, slots=True)
class _Agreement:
    result: DiscoverResult | InitializeResult
    session_per_call: bool
    until: float


class UpstreamRevision:
    """What is known of one server; `greet` brings a new session to it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._agreement: _Agreement | None = None

    def forget(self) -> None:
        """Probe at the next call: the server answers as if it spoke another revision now."""
        self._agreement = None

    async def greet(self, session: ClientSession, dispatcher: UpstreamDispatcher) -> str:
        """The revision that the session speaks from here on. Raises UpstreamFailure."""
        try:
            await self._agree(session, dispatcher)
        except MCPError as error:
            self.forget()
            raise UpstreamFailure("ANSWER_INVALID", f"The MCP server refuses the handshake ({error.code}).") from error
        except (RuntimeError, ValidationError) as error:
            self.forget()
            raise UpstreamFailure("ANSWER_INVALID", "The MCP server's handshake is not valid.") from error
        version = session.protocol_version
        if version not in REVISIONS:
            self.forget()
            raise UpstreamFailure("ANSWER_INVALID", "The MCP server speaks no revision that is spoken here.")
        return version

    async def _agree(self, session: ClientSession, dispatcher: UpstreamDispatcher) -> None:
        known = self._agreement
        if known is not None and self._clock() >= known.until:
            known = None
        if known is not None and not known.session_per_call:
            session.adopt(known.result)
            return
        if known is not None or not await _discovered(session):
            await session.initialize()
        result = session.discover_result or session.initialize_result
        if result is not None:
            # A session of every call's own does not prolong it: a server that was renewed is probed at last.
            until = self._clock() + _REMEMBERED_SECONDS if known is None else known.until
            self._agreement = _Agreement(result, dispatcher.session_id is not None, until)


async def _discovered(session: ClientSession) -> bool:
    """Whether the server speaks a revision without a handshake. Raises UpstreamFailure for one that is not there."""
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            await session.discover()
    except (MCPError, RuntimeError, ValidationError, TimeoutError):
        return False
    except UpstreamFailure as failure:
        if failure.reason in _NO_PROBE:
            return False
        raise
    return True
