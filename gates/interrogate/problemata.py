"""A Problemata in the form in which the MCP gateway serves it: what may be asked, and the tools that are pinned.

The body is the normalized spec that MetaGate serves: everything it names was there and admitted it when it was compiled
(GW-01). Everything that agents see of a tool comes from here, never from its MCP server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from legivellum.base.json_digest import json_digest

PINNED: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
"""The members of a tool's definition that are compared with what its MCP server lists (GW-08)."""


def tool_digest(definition: Mapping[str, Any]) -> str:
    """SHA-256 of the RFC 8785 form of the pinned members of a definition, declared or listed, in hexadecimal.

    A member that is null counts as absent: the two mean the same in MCP. Raises Uncanonical.
    """
    return json_digest({name: definition[name] for name in PINNED if definition.get(name) is not None})


@dataclass(frozen=True, slots=True)
class ToolPin:
    """A tool of an MCP server as it was declared and reviewed (GW-07)."""

    target: str
    """The target of the surface, of kind Mcp, that has the tool."""
    name: str
    """Its name at its MCP server."""
    exposed_name: str
    """`<problemata>.<tool>`: the name under which agents see it, where `exposeTools` is set (GW-09)."""
    lease_name: str
    """`<problemata>/<tool>`: what the globs of a lease's `exposeTools` are compared with (IG-05)."""
    definition: Mapping[str, Any]
    """The declared members: name, inputSchema and, where declared, title, description, outputSchema, annotations."""
    digest: str
    """`tool_digest` of the definition."""
    idempotent: bool
    """Whether a call may be sent a second time when its connection broke (GW-15)."""

    @property
    def input_schema(self) -> Mapping[str, Any]:
        schema: Mapping[str, Any] = self.definition["inputSchema"]
        return schema

    @classmethod
    def of(cls, problemata: str, tool: Mapping[str, Any]) -> ToolPin:
        definition = tool["definition"]
        shown = tool.get("as") or definition["name"]
        return cls(
            target=tool["target"],
            name=definition["name"],
            exposed_name=f"{problemata}.{shown}",
            lease_name=f"{problemata}/{shown}",
            definition=definition,
            digest=tool_digest(definition),
            idempotent=tool.get("idempotent", False),
        )


@dataclass(frozen=True, slots=True)
class ServedCapability:
    """One thing that may be asked: a request that is forwarded, or a tool."""

    id: str
    input_schema: Mapping[str, Any] | None
    """Of a request that is forwarded; None: any input. A tool has its schema in its pin."""
    estimated_duration_ms: int | None
    tool: ToolPin | None
    """None: requests are forwarded to the surface's targets."""

    @classmethod
    def of(cls, problemata: str, capability: Mapping[str, Any]) -> ServedCapability:
        tool = capability.get("tool")
        return cls(
            id=capability["id"],
            input_schema=capability.get("inputSchema"),
            estimated_duration_ms=capability.get("estimatedDurationMs"),
            tool=None if tool is None else ToolPin.of(problemata, tool),
        )


@dataclass(frozen=True, slots=True)
class Problemata:
    """What agents may ask of one deployment of a tenant."""

    tenant: UUID
    namespace: str
    name: str
    version: str
    revision: int
    payload_kind: str
    policy_profile: str
    """The PolicyProfile that decides about every request to it."""
    surface_id: str
    gateway_principals: tuple[str, ...]
    """Who may announce instances of it at MetaGate."""
    expose_tools: bool
    capabilities: Mapping[str, ServedCapability]
    """By id, in the order of the declaration."""

    @classmethod
    def of(cls, body: Mapping[str, Any], *, tenant: UUID, namespace: str, name: str, revision: int) -> Problemata:
        """Raises KeyError, TypeError or ValueError for a body that is no normalized spec."""
        gateway = body["gateway"]
        capabilities = [ServedCapability.of(name, capability) for capability in body["capabilities"]]
        return cls(
            tenant=tenant,
            namespace=namespace,
            name=name,
            version=body["version"],
            revision=revision,
            payload_kind=body["payloadKind"],
            policy_profile=gateway["policyProfileRef"]["name"],
            surface_id=gateway["surfaceId"],
            gateway_principals=tuple(gateway["principals"]),
            expose_tools=body.get("exposeTools", False),
            capabilities={capability.id: capability for capability in capabilities},
        )

    @property
    def tools(self) -> Mapping[str, ServedCapability]:
        """The capabilities that are tools, by the name under which agents see them."""
        return {
            capability.tool.exposed_name: capability
            for capability in self.capabilities.values()
            if capability.tool is not None
        }
