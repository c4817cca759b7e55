"""Who may emit what over HTTP: role x kind x phase, as data (INV-045, INV-122, D-34, D-35, D-59).

A role is what the ledger makes of a principal: its declared type, or `witness` where the right of that name was
declared (D-51) — the right replaces the type, so that MetaGate's own credential can do nothing else.

The matrix says what a role may send at all. Whether *this* principal may, in *this* obligation, is custody's business
and decided where the obligation is locked. `docs/memorygate/rights.md` shows the same table; a test compares the two.

Gates do not appear here: each emits through a function of the ledger's database, in the transaction of its own rows
(docs/memorygate/gates.md), under a name that no principal can have.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import Enum, StrEnum


class Kind(StrEnum):
    OBLIGATION = "obligation"
    STARTUP = "startup"
    LIFECYCLE = "lifecycle"
    ADMISSION = "admission"
    ARTIFACT = "artifact"


PHASES: Mapping[Kind, tuple[str, ...]] = {
    Kind.OBLIGATION: ("accepted", "complete", "escalate"),
    Kind.STARTUP: ("accepted", "complete", "escalate"),
    Kind.LIFECYCLE: ("published", "queued", "lease_issued", "reassigned", "expired", "revoked"),
    Kind.ADMISSION: ("accepted", "rejected", "complete", "escalate"),
    Kind.ARTIFACT: ("stored", "retired"),
}
"""What each kind of receipt may say (D-05, D-59)."""

CUSTODIAL = frozenset({Kind.OBLIGATION, Kind.STARTUP})
"""The kinds that open, move and close custody; the others are records beside it."""

GATE_PREFIX = "svc:"
GATES = frozenset({"svc:interrogate", "svc:asyncgate", "svc:depotgate"})
"""Emitters that write through the database. No principal emits under such a name; a receipt may go to one."""

PLAN = "plan"
"""`task_type` of an obligation to plan: only a delegate emits its receipts (INV-080)."""
OPENED_BY_DELEGATES = frozenset({"plan.run", "plan.approval"})
"""`task_type`s that a delegate opens and whoever has custody completes."""


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
    for phase in PHASES[Kind.STARTUP]:
        cells["witness", Kind.STARTUP, phase] = Right.EMIT
    cells["witness", Kind.LIFECYCLE, "published"] = Right.EMIT
    return cells


MATRIX: Mapping[tuple[str, Kind, str], Right] = _matrix()


def role_of(principal_type: str, rights: Collection[str]) -> str:
    return "witness" if "witness" in rights else principal_type


def right_to_emit(role: str, kind: str, phase: str, task_type: str | None = None) -> Right:
    """An unknown role has no rights. A plan is a delegate's: what it may open, nobody else may."""
    right = MATRIX.get((role, Kind(kind), phase), Right.NONE)
    if task_type is None or role == "delegate" or kind != Kind.OBLIGATION:
        return right
    if task_type == PLAN:
        return Right.NONE
    if task_type in OPENED_BY_DELEGATES and right is Right.OPEN:
        return Right.CUSTODIAN
    return right


def is_gate_name(name: str) -> bool:
    """Whether the name is one that only a gate may emit under."""
    return name.startswith(GATE_PREFIX)
