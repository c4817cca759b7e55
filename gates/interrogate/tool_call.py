"""A call of a tool: the envelope that is decided about, what its receipts say, and how it ended (GW-10, GW-12)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from interrogate.envelope import TOOL_CALL, Envelope
from interrogate.envelope_parser import read_envelope
from interrogate.problemata import Problemata, ServedCapability, ToolPin
from interrogate.ruleset import TOOL_TIMEOUT_MS, Ruleset
from legivellum.base.json_digest import full_canonical

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
LONGEST_CLIENT: Final = 128
ESCALATE_REASONS: Final = frozenset(get_args(EscalateReason))
DENIED: Final = "denied"
PENDING: Final = "pending"
CALL_OUTCOMES: Final = (DENIED, PENDING, *get_args(AnsweredState), *sorted(ESCALATE_REASONS))
"""What a row of the table `call` says of how a call ended."""


@dataclass(frozen=True, slots=True)
class CalledTool:
    """The tool of a call as the receipt of its admission names it."""

    problemata: str
    exposed_name: str
    """The name under which agents see it."""
    target: str
    name: str
    """The name at its MCP server."""
    digest: str
    timeout_ms: int
    """How long the call may take: when it is over, and one minute more, the sweep ends a call without an outcome."""

    @property
    def lease_name(self) -> str:
        """As `ToolPin.lease_name`: the name of a Problemata holds no dot."""
        return self.exposed_name.replace(".", "/", 1)

    def record(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """Which tool of which Problemata is called; it stands in the admission's receipt."""

    problemata: Problemata
    capability: ServedCapability
    client: str | None = None
    """The name that the client claims in its handshake; nothing depends on it."""

    @property
    def pin(self) -> ToolPin:
        """Raises ValueError for a capability that is no tool."""
        if self.capability.tool is None:
            raise ValueError(f"{self.capability.id} is no tool")
        return self.capability.tool

    def called(self, ruleset: Ruleset | None) -> CalledTool:
        """What the receipt names; the time that the call may take is that of the target in these rules."""
        pin = self.pin
        surface = None if ruleset is None else ruleset.surfaces.get(self.problemata.surface_id)
        target = None if surface is None else surface.targets.get(pin.target)
        timeout_ms = TOOL_TIMEOUT_MS if target is None else target.tool_timeout_ms
        return CalledTool(self.problemata.name, pin.exposed_name, pin.target, pin.name, pin.digest, timeout_ms)

    @property
    def claimed_client(self) -> str | None:
        """What a receipt can hold of the client's name."""
        if self.client is None:
            return None
        printable = "".join(character for character in self.client if character.isprintable())
        return printable.strip()[:LONGEST_CLIENT] or None

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

    duration_us: int | None
    attempts: int | None
    """How often something was sent to the MCP server; 0: nothing was. None: nobody knows, as of the duration."""
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
