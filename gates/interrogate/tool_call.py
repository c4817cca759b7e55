"""A call of a tool: the envelope that is decided about, what its receipts say, and how it ended (GW-10, GW-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from interrogate.envelope import TOOL_CALL, Envelope
from interrogate.envelope_parser import read_envelope
from interrogate.json_digest import full_canonical
from interrogate.problemata import Capability, Problemata, ToolPin

AnsweredState = Literal["success", "tool_error", "protocol_error"]
"""The MCP server answered: with a result, with `isError`, with a JSON-RPC error."""

EscalateReason = Literal[
    "UNREACHABLE",
    "TIMEOUT",
    "BROKEN",
    "REDIRECT",
    "ENCODED",
    "ANSWER_TOO_LARGE",
    "ANSWER_INVALID",
    "HTTP_ERROR",
    "INPUT_REQUIRED",
    "TOOL_CHANGED",
    "CREDENTIAL_MISSING",
    "OUTCOME_UNKNOWN",
]
"""Why no answer of the MCP server is on record."""
ESCALATE_REASONS: Final = frozenset(get_args(EscalateReason))


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Which tool of which Problemata is called; it stands in the admission's receipt."""

    problemata: Problemata
    capability: Capability
    client: str | None = None
    """The name that the client claims in its handshake, shortened to what a receipt holds; nothing depends on it."""

    @property
    def pin(self) -> ToolPin:
        """Raises ValueError for a capability that is no tool."""
        if self.capability.tool is None:
            raise ValueError(f"{self.capability.id} is no tool")
        return self.capability.tool

    def envelope(
        self, arguments: Mapping[str, Any], *, tenant: str, causality: Mapping[str, Any] | None = None
    ) -> Envelope:
        """What is decided about: the payload is the arguments, the target the tool's.

        `causality`: as the client sent it in `_meta`; its `capability_id` is set to the tool's. Raises RequestRefused
        (INVALID_REQUEST) for a causality that has no meaning, Uncanonical for arguments that are no JSON.
        """
        members = {
            "tenant_id": tenant,
            "surface_id": self.problemata.surface_id,
            "policy_profile_id": self.problemata.policy_profile,
            "payload_kind": TOOL_CALL,
            "payload": dict(arguments),
            "target": self.pin.target,
            "causality": {**(causality or {}), "capability_id": self.capability.id},
        }
        return read_envelope(members, full_canonical(dict(arguments)), tool=self.pin.lease_name)


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What became of a call that was admitted (GW-12). Exactly one of `state` and `reason` is set."""

    duration_us: int
    attempts: int
    """How often something was sent to the MCP server; 0: nothing was."""
    state: AnsweredState | None = None
    reason: EscalateReason | None = None
    code: int | None = None
    """Of a JSON-RPC error."""
    result_sha256: str | None = None
    """`json_digest` of the result, or of the JSON-RPC error."""
    result_bytes: int | None = None
    protocol: str | None = None
    """The revision of MCP that was spoken."""

    def __post_init__(self) -> None:
        if (self.state is None) is (self.reason is None):
            raise ValueError("an outcome is an answer or a reason, not both")
