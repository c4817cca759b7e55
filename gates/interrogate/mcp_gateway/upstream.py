"""Calls of tools at the MCP servers behind the gateway: each ends in exactly one outcome, whatever the server does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol
from uuid import UUID

from interrogate.ruleset import TargetRule

ProgressSink = Callable[[float, float | None, str | None], Awaitable[None]]
"""Is given `progress`, `total` and `message` of the upstream's progress notifications, at most 10 in a second."""


class EscalateReason(StrEnum):
    """Why an upstream gave no outcome of a call that could be believed (GW-12, GW-17)."""

    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"
    BROKEN = "BROKEN"
    REDIRECT = "REDIRECT"
    ENCODED = "ENCODED"
    HTTP_ERROR = "HTTP_ERROR"
    ANSWER_TOO_LARGE = "ANSWER_TOO_LARGE"
    ANSWER_INVALID = "ANSWER_INVALID"
    INPUT_REQUIRED = "INPUT_REQUIRED"
    TOOL_CHANGED = "TOOL_CHANGED"
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"


class PinnedTool(Protocol):
    """What a call needs of a declared tool (`problemata.ToolPin`)."""

    @property
    def name(self) -> str:
        """The name at the upstream."""

    @property
    def digest(self) -> str:
        """`tool_digest` of the declared definition."""

    @property
    def idempotent(self) -> bool:
        """Whether a request that was written may be repeated when the connection broke."""

    @property
    def definition(self) -> Mapping[str, Any]:
        """The declared definition, with the upstream's member names (`inputSchema`)."""


@dataclass(frozen=True, slots=True)
class UpstreamTarget:
    """A target of a tenant. Clients, sessions, listings and credentials are kept by all of it: two never share one."""

    tenant: UUID
    namespace: str
    rule: TargetRule


@dataclass(frozen=True, slots=True)
class UpstreamOutcome:
    """What became of one call."""

    kind: Literal["success", "tool_error", "protocol_error", "escalated"]
    duration_us: int
    attempts: int
    """How often the request was sent; 0 where nothing was."""
    sent: bool
    """Whether anything of the call was written to the upstream: then the tool may have run."""
    protocol: str | None = None
    """The revision of MCP that the upstream spoke; None where none was agreed."""
    reason: EscalateReason | None = None
    """Only of an `escalated` one."""
    detail: str = ""
    """One sentence for the caller; nothing of the upstream's text."""
    result: Mapping[str, Any] | None = None
    """The tool's result as JSON (`CallToolResult`), or the error object of JSON-RPC; None of an `escalated` one."""
    code: int | None = None
    """The code of a `protocol_error`."""
    result_sha256: str | None = None
    result_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as an upstream lists it now."""

    definition: Mapping[str, Any]
    """Its pinned members, as they were sent."""
    digest: str


class UpstreamError(Exception):
    """The upstream could not be listed."""

    def __init__(self, reason: EscalateReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class Upstreams:
    """The clients of all upstreams of this process."""

    async def call(
        self,
        target: UpstreamTarget,
        pin: PinnedTool,
        arguments: Mapping[str, Any],
        *,
        bearer: str | None,
        seconds: float,
        progress: ProgressSink | None = None,
    ) -> UpstreamOutcome:
        """Check the pin against the upstream's listing, then call the tool. Never raises for what an upstream does.

        `bearer`: the token this gate made for the target (IG-10), used where it declares no `secretRef`; never the
        caller's credential. `seconds` is for everything, the listing too. Cancelling it abandons the call: shield
        it where it must run to its end (GW-14).
        """
        raise NotImplementedError

    async def listing(self, target: UpstreamTarget, *, bearer: str | None, seconds: float) -> Sequence[ListedTool]:
        """What the upstream lists now, asked anew. Raises UpstreamError."""
        raise NotImplementedError

    def is_changed(self, target: UpstreamTarget, pin: PinnedTool) -> bool:
        """Whether the last listing of the upstream, if there is one, does not hold the tool as it is declared."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close every connection. Calls that still run end as BROKEN."""
        raise NotImplementedError
