"""What an MCP server lists, compared with what a Problemata declares of it: for people who review tools (GW-07)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from interrogate.mcp_gateway.tripwire import ListedTool
from interrogate.problemata import PINNED, Problemata, ServedCapability, ToolPin
from metagate_crds.models.problemata import unseen_findings

ToolState = Literal["unchanged", "changed", "removed", "undeclared"]


@dataclass(frozen=True, slots=True)
class ToolComparison:
    """A tool that is listed, declared or both. Raw text of the server: whoever shows it escapes it."""

    name: str
    state: ToolState
    capability: ServedCapability | None
    """None: undeclared."""
    listed: ListedTool | None
    """None: removed."""

    @property
    def changed_members(self) -> list[str]:
        """The pinned members of a changed tool that differ."""
        pin = None if self.capability is None else self.capability.tool
        if pin is None or self.listed is None:
            return []
        return [name for name in PINNED if pin.definition.get(name) != self.listed.definition.get(name)]

    @property
    def unseen(self) -> list[str]:
        """Where what is listed holds characters that nobody sees: such a tool cannot be declared."""
        if self.listed is None:
            return []
        return [finding.path for finding in unseen_findings((), dict(self.listed.definition))]

    def rendered(self) -> dict[str, Any]:
        pin = None if self.capability is None else self.capability.tool
        return {
            "name": self.name,
            "state": self.state,
            "capability_id": None if self.capability is None else self.capability.id,
            "exposed_name": None if pin is None else pin.exposed_name,
            "idempotent": None if pin is None else pin.idempotent,
            "estimated_duration_ms": None if self.capability is None else self.capability.estimated_duration_ms,
            "digest": None if self.listed is None else self.listed.digest,
            "declared_digest": None if pin is None else pin.digest,
            "changed_members": self.changed_members,
            "unseen": self.unseen,
            "definition": None if self.listed is None else dict(self.listed.definition),
            "declared_definition": None if pin is None else dict(pin.definition),
        }


def compare_tools(problemata: Problemata, target: str, listed: Sequence[ListedTool]) -> list[ToolComparison]:
    """Declared tools in the order of the declaration, then the others in the order of the listing."""
    by_name = {str(tool.definition["name"]): tool for tool in listed}
    declared = list(_declared(problemata, target))
    names = {pin.name for _, pin in declared}
    return [
        *(_compared(capability, pin, by_name.get(pin.name)) for capability, pin in declared),
        *(ToolComparison(name, "undeclared", None, tool) for name, tool in by_name.items() if name not in names),
    ]


def _declared(problemata: Problemata, target: str) -> Iterator[tuple[ServedCapability, ToolPin]]:
    for capability in problemata.capabilities.values():
        if capability.tool is not None and capability.tool.target == target:
            yield capability, capability.tool


def _compared(capability: ServedCapability, pin: ToolPin, listed: ListedTool | None) -> ToolComparison:
    if listed is None:
        return ToolComparison(pin.name, "removed", capability, None)
    return ToolComparison(pin.name, "unchanged" if listed.digest == pin.digest else "changed", capability, listed)
