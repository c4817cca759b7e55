"""A request for admission as it was sent: the domain it names, what it carries, and the lineage it claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeVar

T = TypeVar("T")


class NotSent(Enum):
    """The value of a member that was not sent; `None` is a member sent as null, and means something else."""

    NOT_SENT = "not sent"


NOT_SENT: Final = NotSent.NOT_SENT

TOOL_CALL: Final = "tool_call"
BEGINS_NOTHING: Final = frozenset({"lease", "query", TOOL_CALL})
"""The payload kinds that cannot cause further work. Every other kind, known or not, can (INV-099)."""


def value_or_none(value: T | NotSent | None) -> T | None:
    """The value of a member, where nothing depends on whether it was sent as null or not at all."""
    return None if value is NOT_SENT else value


@dataclass(frozen=True, slots=True)
class Causality:
    """What a request claims about its place in its tree. Every member is only compared with what is derived."""

    root_task_id: str | NotSent = NOT_SENT
    parent_task_id: str | NotSent | None = NOT_SENT
    """None: this request begins a tree."""
    caused_by_receipt_id: str | NotSent | None = NOT_SENT
    spawn_depth: int | NotSent | None = NOT_SENT
    """None: derive it."""
    capability_id: str | NotSent = NOT_SENT
    recursion_budget_remaining: int | NotSent = NOT_SENT
    task_id: str | NotSent = NOT_SENT
    """What is admitted. Absent: the root for a root, else the id of the admission receipt."""
    as_sent: Mapping[str, Any] | None = None
    """The member `causality` as it was sent, for the receipt."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One request. `payload` is what was parsed; `payload_bytes` is what was sent, byte for byte (INV-112)."""

    tenant_id: str
    """As sent: the tenant's uid or the name of its namespace."""
    surface_id: str
    policy_profile_id: str
    payload_kind: str | NotSent
    payload: Any
    """NOT_SENT, or any JSON value; null is a value."""
    payload_bytes: bytes
    payload_sha256: str
    """64 hexadecimal digits; of no bytes where no payload was sent."""
    causality: Causality
    target: str | None
    artifact_bytes: int | None
    tool: str | None
    """`<problemata>/<tool>` of a tool call; no other kind has one."""
    digest: bytes
    """SHA-256 of the canonical envelope with the payload replaced by its own digest: what a retry must repeat."""

    @property
    def begins(self) -> bool:
        """Whether it begins a task when it is admitted: it is spawn-capable, and counts in its tree (IG-04)."""
        return self.payload_kind not in BEGINS_NOTHING

    @property
    def placed_by_lease(self) -> bool:
        """Whether it is a tool call that claims no place in a tree: under a lease it is filed under the leased task."""
        causality = self.causality
        return self.payload_kind == TOOL_CALL and causality.parent_task_id is NOT_SENT is causality.root_task_id

    @property
    def capability_id(self) -> str | None:
        return value_or_none(self.causality.capability_id)

    @property
    def admitted_task_id(self) -> str | None:
        """The task that it would begin: of a root its root id. None: none, or one that is named by its receipt."""
        if not self.begins:
            return None
        if self.causality.parent_task_id is None:
            return value_or_none(self.causality.root_task_id)
        return value_or_none(self.causality.task_id)
