"""Artifacts: how they are named, what a depositor says of them, what is kept. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Self
from uuid import UUID

EMITTER: Final = "svc:depotgate"

Role = Literal["plan", "input", "output", "supporting"]
ROLES: Final[tuple[Role, ...]] = ("plan", "input", "output", "supporting")

State = Literal["kept", "retired"]

_POINTER: Final = re.compile(r"depot:([0-7][0-9A-HJKMNP-TV-Z]{25}):([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Pointer:
    """`depot:<artifact_id>:<sha256 hex>`: whoever holds it can check the bytes without trusting the store (DP-01)."""

    artifact_id: str
    sha256: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None for what is no pointer: ids are upper case, digests lower case."""
        match = _POINTER.fullmatch(text)
        return None if match is None else cls(*match.groups())

    def __str__(self) -> str:
        return f"depot:{self.artifact_id}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class LiveLease:
    """A lease of AsyncGate, while it is live (DP-04)."""

    task_id: str
    obligation_id: str
    principal_ai: str
    authority: str | None
    """The task's Authority as a JSON document; None: it has none."""
    number: int
    issued_by: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Deposit:
    """What a depositor says of an artifact, before its bytes are there. Whether it may has been judged (DP-05)."""

    tenant: UUID
    depositor: str
    role: Role
    media_type: str
    task_id: str | None = None
    """Under a lease: the lease's task."""
    caused_by_receipt_id: str | None = None
    artifact_id: str | None = None
    """None: one is chosen for each statement."""
    name: str | None = None
    lease_id: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A deposit whose bytes are durable under `key`."""

    deposit: Deposit
    key: str
    """`<tenant>/<ULID of the upload>`: nothing that a caller said (DP-02)."""
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """What DepotGate knows of an artifact. It outlives the bytes."""

    artifact_id: str
    sha256: str
    size_bytes: int
    media_type: str
    role: Role
    task_id: str | None
    """As the depositor named it, also where the receipt is filed elsewhere (DP-07)."""
    name: str | None
    depositor: str
    lease_number: int | None
    stored_at: datetime
    receipt_id: str
    """The receipt `artifact/stored`."""
    state: State
    key: str | None
    """Where the bytes are; None: retired."""

    @property
    def pointer(self) -> Pointer:
        return Pointer(self.artifact_id, self.sha256)


@dataclass(frozen=True, slots=True)
class ArtifactPage:
    """`next_position`: where the next page begins; None: this is the last."""

    items: tuple[Artifact, ...]
    next_position: tuple[datetime, str] | None


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes that some kept artifact has."""

    tenant: UUID
    key: str
    sha256: str
    size_bytes: int
    artifact_ids: tuple[str, ...]
