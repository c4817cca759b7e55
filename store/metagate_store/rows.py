"""What goes into the store and what comes out of it: frozen values, one per question and one per answer.

Every expected outcome is a value here (`BootstrapOutcome`, `ReportOutcome`, `PacketOutcome`), never an exception: many
questions
share one statement and one commit, and one of them must never spoil the others. Exceptions (`metagate_store.errors`)
are for what nobody asked for: the database is away, another writer took over.

Times are aware datetimes by the database's clock. `tenant` is the uid of a namespace (D-46).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypeVar
from uuid import UUID

from metagate_store.errors import StoreUnavailable

T = TypeVar("T")

Cursor = tuple[str, ...]
"""Where a page ended; opaque to the caller, who hands it back as `after`."""


@dataclass(frozen=True, slots=True)
class CredentialRow:
    """What a verification rested on; the statement looks again whether it still stands (D-45)."""

    kind: Literal["key", "token"]
    issuer: str
    """Empty for keys."""
    subject: str
    """The token's subject, or the sha256 (64 hex digits) of the whole API key."""
    kid: str | None = None
    """The issuer key that signed the token; None for keys and for HS256."""


@dataclass(frozen=True, slots=True)
class PodRow:
    uid: str
    name: str | None = None
    node: str | None = None


# ── bootstrap ────────────────────────────────────────────────────────────────────────────────────────────────────────


class BootstrapOutcome(StrEnum):
    OPENED = "OPENED"
    REPLAYED = "REPLAYED"
    """Same idempotency key, principal and component within 24 hours: the answer as it was (D-41)."""
    PACKET = "PACKET"
    """The process does not know this digest yet: check `body`, remember it, ask again. Nothing was inserted (D-38)."""
    UNKNOWN_PRINCIPAL = "UNKNOWN_PRINCIPAL"
    SUSPENDED = "SUSPENDED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    NO_BINDING = "NO_BINDING"
    BINDING_INCOMPLETE = "BINDING_INCOMPLETE"
    COMPONENT_NOT_PERMITTED = "COMPONENT_NOT_PERMITTED"
    IDEMPOTENCY_CONFLICT = "IDEMPOTENCY_CONFLICT"
    NOT_THIS_POD = "NOT_THIS_POD"


@dataclass(frozen=True, slots=True)
class BootstrapQuery:
    tenant: UUID
    principal_key: str
    credential: CredentialRow
    component_key: str
    startup_id: UUID
    """A UUIDv7 made by the caller; it chooses the partition."""
    packet_id: UUID
    idempotency_key: str | None = None
    expected_digest: str | None = None
    """The digest that this process has checked and expects for this principal; None when it expects nothing yet."""
    pod: PodRow | None = None
    mirror: bool = False
    """Whether an outbox row goes with it (D-39)."""


@dataclass(frozen=True, slots=True)
class BootstrapResult:
    """`body` is None when it equals what the process expected; every field but `outcome` is None on a refusal."""

    outcome: BootstrapOutcome
    startup_id: UUID | None = None
    packet_id: UUID | None = None
    issued_at: datetime | None = None
    deadline_at: datetime | None = None
    digest: str | None = None
    body: bytes | None = None
    revision: int | None = None
    compiled_at: datetime | None = None


def require(value: T | None) -> T:
    """A field that this outcome promises. Raises StoreUnavailable: a function of another release answered."""
    if value is None:
        raise StoreUnavailable("the database answered incompletely")
    return value


# ── ready, failed ────────────────────────────────────────────────────────────────────────────────────────────────────


class ReportOutcome(StrEnum):
    RECORDED = "RECORDED"
    REPEATED = "REPEATED"
    """The same state again: `acknowledged_at` is the first one (D-11)."""
    OTHER_STATE = "OTHER_STATE"
    NOT_YOURS = "NOT_YOURS"
    NOT_THIS_POD = "NOT_THIS_POD"
    UNKNOWN = "UNKNOWN"
    """No such startup in this tenant; another tenant's looks the same (D-42)."""
    UNKNOWN_PRINCIPAL = "UNKNOWN_PRINCIPAL"
    SUSPENDED = "SUSPENDED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    CONTENDED = "CONTENDED"
    """Somebody else changed the row while this statement looked: ask again."""


@dataclass(frozen=True, slots=True)
class ReportQuery:
    tenant: UUID
    principal_key: str
    credential: CredentialRow
    startup_id: UUID
    status: Literal["READY", "FAILED"]
    payload: str
    """JSON text of what was reported, bounded and redacted by the caller (D-43)."""
    pod: PodRow | None = None
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class ReportResult:
    outcome: ReportOutcome
    status: str | None = None
    acknowledged_at: datetime | None = None
    late: bool | None = None


# ── the other reads ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class PacketQuery:
    """The packet as of now for the owner of a startup (D-47)."""

    tenant: UUID
    principal_key: str
    credential: CredentialRow
    startup_id: UUID
    expected_digest: str | None = None
    pod: PodRow | None = None


class PacketOutcome(StrEnum):
    SERVED = "SERVED"
    UNKNOWN = "UNKNOWN"
    NOT_YOURS = "NOT_YOURS"
    NOT_THIS_POD = "NOT_THIS_POD"
    UNKNOWN_PRINCIPAL = "UNKNOWN_PRINCIPAL"
    SUSPENDED = "SUSPENDED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    NO_BINDING = "NO_BINDING"
    BINDING_INCOMPLETE = "BINDING_INCOMPLETE"
    COMPONENT_NOT_PERMITTED = "COMPONENT_NOT_PERMITTED"


@dataclass(frozen=True, slots=True)
class PacketResult:
    """`packet_id`, `issued_at`, `deadline_at`, `status` and `component_key` are those of the startup."""

    outcome: PacketOutcome
    component_key: str | None = None
    packet_id: UUID | None = None
    issued_at: datetime | None = None
    deadline_at: datetime | None = None
    status: str | None = None
    digest: str | None = None
    body: bytes | None = None
    revision: int | None = None
    compiled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StartupRow:
    tenant: UUID
    startup_id: UUID
    principal_key: str
    component_key: str
    status: str
    """OPEN, READY or FAILED, as stored."""
    overdue: bool
    """Derived: still OPEN after `deadline_at`; no timer writes it (INV-022)."""
    late: bool | None
    opened_at: datetime
    deadline_at: datetime
    acknowledged_at: datetime | None
    packet_id: UUID
    digest: str
    revision: int
    report: Mapping[str, Any] | None
    pod: PodRow | None


@dataclass(frozen=True, slots=True)
class Item:
    """One served object of the admin views. `body` holds the kind's own fields, times as datetimes, no key material."""

    tenant: UUID
    namespace: str
    name: str
    revision: int
    body: Mapping[str, Any]


ListedKind = Literal[
    "principals", "profiles", "manifests", "bindings", "secret-refs", "policy-profiles", "problematas", "plan-templates"
]
"""The lists of the admin views. A secret ref is named `<profile>:<name>`."""


@dataclass(frozen=True, slots=True)
class StartupPage:
    items: tuple[StartupRow, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class StartupCounts:
    """Sessions by state. `overdue` of the open ones; `counted_since` None: every session that is kept was counted."""

    opened: int
    ready: int
    failed: int
    overdue: int
    oldest_open: datetime | None
    latest: datetime | None
    counted_since: datetime | None


@dataclass(frozen=True, slots=True)
class InterviewCounts:
    """What is served in a tenant and how its sessions stand (`read.interview`), each counted up to a bound.

    `unbound`: bindings without a packet; `counted_since` as in StartupCounts.
    """

    at: datetime
    principals: int
    suspended: int
    bindings: int
    unbound: int
    opened: int
    ready: int
    failed: int
    overdue: int
    oldest_open: datetime | None
    counted_since: datetime | None


@dataclass(frozen=True, slots=True)
class ItemPage:
    items: tuple[Item, ...]
    next: Cursor | None


@dataclass(frozen=True, slots=True)
class PolicyProfile:
    name: str
    body: Mapping[str, Any]
    policy_hash: str
    revision: int
    generation: int


@dataclass(frozen=True, slots=True)
class TopologyPrincipal:
    principal_key: str
    type: str
    suspended: bool
    components: tuple[str, ...]
    """What the binding permits; empty without a binding."""
    seen: tuple[str, ...]
    """Components that booted lately as this principal."""
    profile: str | None
    manifest: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopologyService:
    name: str
    type: str | None
    endpoint: str | None
    used_by: tuple[str, ...]
    """Principals, sorted."""


@dataclass(frozen=True, slots=True)
class Topology:
    """One page of principals, by name; `services` are those that they use. `more`: there are others after them."""

    revision: int
    principals: tuple[TopologyPrincipal, ...]
    services: tuple[TopologyService, ...]
    more: bool = False


@dataclass(frozen=True, slots=True)
class State:
    revision: int
    """0 before anything was published."""
    compiled_at: datetime | None
    schema_version: int
    now: datetime
    mirror_waiting: int
    """Outbox rows not yet delivered (counted up to 10,000)."""
    mirror_lag_seconds: float
    server_started_at: datetime
    """Differs between a primary and the standby that takes its place, which may lack what was published last."""


# ── trusted issuers ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class IssuerRow:
    issuer: str
    name: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str
    """Cluster, URL or Inline."""
    url: str | None = None


@dataclass(frozen=True, slots=True)
class IssuerKeyRow:
    issuer: str
    kid: str
    jwk: Mapping[str, Any]
    alg: str | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    misses: int = 0
    retired_at: datetime | None = None


# ── publishing ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class TenantRow:
    tenant: UUID
    namespace: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DeclaredRow:
    """The last valid generation of one declared object."""

    uid: str
    generation: int
    kind: str
    tenant: UUID | None
    namespace: str
    name: str
    created: datetime
    spec: Mapping[str, Any]
    manager: str | None = None


@dataclass(frozen=True, slots=True)
class FileIdentityRow:
    """When a file's resource was first seen, and how often its spec changed (D-53). A Namespace's namespace is ""."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    spec_digest: str
    first_seen: datetime


@dataclass(frozen=True, slots=True)
class ChangeRow:
    """One audit row (EXT-04): which object changed what is served, by digests only."""

    kind: str
    tenant: UUID | None
    namespace: str
    name: str
    uid: str
    generation: int
    before_digest: str | None
    after_digest: str | None
    manager: str | None = None
    served_generation: int | None = None
    """Whose content is served from now on; older than `generation` while that one is broken."""
    principal_key: str | None = None
    """Of the Binding that counts for its principal, with the packet that it gives."""
    packet_digest: str | None = None


TableRow = Mapping[str, Any]
"""JSON-able values of one row by column name, with `owner` (uid of the declaring object) and `content` (sha256 hex)."""

TableKey = tuple[str, tuple[str, ...]]
"""(table, primary key as text in column order)."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    owner: str
    content: str


@dataclass(frozen=True, slots=True)
class Published:
    """Everything a writer must know before its first publish. Loading it takes the epoch: older writers are fenced."""

    epoch: int
    revision: int
    rows: Mapping[TableKey, StoredRow]
    declared: tuple[DeclaredRow, ...]
    """The newest valid generation of each object that still exists."""
    packets: frozenset[str]
    file_identities: tuple[FileIdentityRow, ...]
    tenants: tuple[TenantRow, ...]
    """Those not retired."""
    key_owners: Mapping[str, str] = field(default_factory=dict)
    """sha256 of an API key → the tenant that declared it first; another tenant's claim opens nothing (D-70)."""


@dataclass(frozen=True, slots=True)
class Change:
    """The difference one publish writes. Empty parts cost nothing; an empty change mints no revision."""

    upserts: Mapping[str, Sequence[TableRow]] = field(default_factory=dict)
    deletes: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    packets: Mapping[str, bytes] = field(default_factory=dict)
    declared: Sequence[DeclaredRow] = ()
    withdrawn: Sequence[str] = ()
    """uids of declared objects that exist no more; their history stays, `load` no longer returns them."""
    audit: Sequence[ChangeRow] = ()
    tenants: Sequence[TenantRow] = ()
    retired_tenants: Sequence[UUID] = ()
    file_identities: Sequence[FileIdentityRow] = ()
    removed_file_identities: Sequence[tuple[str, str, str]] = ()
    """(kind, namespace, name) of file identities to remove."""


# ── the outbox ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One receipt waiting for the ledger; `event` is OPEN, READY, FAILED or PUBLISHED."""

    seq: int
    tenant: UUID | None
    event: str
    startup_id: UUID | None
    revision: int | None
    body: Mapping[str, Any]
    created_at: datetime
    attempts: int
