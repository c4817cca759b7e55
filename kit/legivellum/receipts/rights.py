"""Who may emit what: role x kind x phase, as data (INV-045, INV-122, D-34, D-35).

A role is what the ledger makes of a principal: its declared type, or `witness` where the right of that name was
declared (D-51) — the right replaces the type, so that MetaGate's own credential can do nothing else.

The matrix says what a role may send at all. Whether *this* principal may, in *this* obligation, is custody's business
and decided where the obligation is locked. `docs/memorygate/rights.md` shows the same table; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, StrEnum


class Kind(StrEnum):
    OBLIGATION = "obligation"
    STARTUP = "startup"
    LIFECYCLE = "lifecycle"
    ADMISSION = "admission"


PHASES: Mapping[Kind, tuple[str, ...]] = {
    Kind.OBLIGATION: ("accepted", "complete", "escalate"),
    Kind.STARTUP: ("accepted", "complete", "escalate"),
    Kind.LIFECYCLE: ("published", "queued", "lease_issued", "reassigned", "expired", "revoked"),
    Kind.ADMISSION: ("accepted", "rejected"),
}
"""What each kind of receipt may say (D-05)."""

CUSTODIAL = frozenset({Kind.OBLIGATION, Kind.STARTUP})
"""The kinds that open, move and close custody; the others are records beside it."""


class Right(Enum):
    NONE = "-"
    CUSTODIAN = "custodian"
    """In an obligation of which it is the custodian."""
    OPEN = "open"
    """Also an obligation that does not exist yet, for itself: `principal_ai` is the emitter."""
    OPEN_FOR_OTHERS = "open-for-others"
    """Also an obligation that does not exist yet, on behalf of any principal of the tenant."""
    EMIT = "emit"
    """Always: the record touches no custody, or is the witness's own."""


ROLES = ("principal", "delegate", "worker", "service", "component", "admin", "observer", "witness")

_WORKING = ("principal", "delegate", "worker", "service", "component", "admin")


def _matrix() -> dict[tuple[str, Kind, str], Right]:
    cells = {(role, kind, phase): Right.NONE for role in ROLES for kind in Kind for phase in PHASES[kind]}
    for role in _WORKING:
        for phase in PHASES[Kind.OBLIGATION]:
            cells[role, Kind.OBLIGATION, phase] = Right.CUSTODIAN
    cells["principal", Kind.OBLIGATION, "accepted"] = Right.OPEN
    cells["delegate", Kind.OBLIGATION, "accepted"] = Right.OPEN_FOR_OTHERS
    for phase in PHASES[Kind.LIFECYCLE]:
        cells["service", Kind.LIFECYCLE, phase] = Right.NONE if phase == "published" else Right.EMIT
    for phase in PHASES[Kind.ADMISSION]:
        cells["service", Kind.ADMISSION, phase] = Right.EMIT
    for phase in PHASES[Kind.STARTUP]:
        cells["witness", Kind.STARTUP, phase] = Right.EMIT
    cells["witness", Kind.LIFECYCLE, "published"] = Right.EMIT
    return cells


MATRIX: Mapping[tuple[str, Kind, str], Right] = _matrix()


def role_of(principal_type: str, rights: Collection[str]) -> str:
    return "witness" if "witness" in rights else principal_type


def right_to_emit(role: str, kind: str, phase: str) -> Right:
    """An unknown role has no rights."""
    return MATRIX.get((role, Kind(kind), phase), Right.NONE)
