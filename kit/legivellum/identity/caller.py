"""The caller of a request, as plain values.

These are the results of this package; a gate maps them to its own rows and problem codes. Nothing here imports a
database driver or a web framework, so that every gate can use the same types.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from legivellum.receipts.rights import ROLES, role_of

CLUSTER: Final = "Cluster"
"""A principal's `scope` that reaches past its namespace (D-51)."""

READER_TYPES: Final = frozenset({"admin", "observer"})
"""Principal types that may read what belongs to other principals of their tenant (INV-057)."""
WORKER_TYPES: Final = frozenset({"worker", "service", "component"})
"""Principal types that lease tasks (CO-02)."""
TYPES_BUT_WITNESS: Final = frozenset(ROLES) - {"witness"}
"""Who calls gates at all. The witness is MetaGate's relay, which calls the ledger and nobody else (CO-02)."""
TYPES_BUT_WORKERS: Final = TYPES_BUT_WITNESS - WORKER_TYPES


def may_read_others(principal_type: str) -> bool:
    """Whether a principal of this type sees other principals' inboxes, startups and the console (INV-057)."""
    return principal_type in READER_TYPES


def reads_everywhere(scope: str, principal_type: str) -> bool:
    """Whether it reads every tenant (D-51). The compiler admits such principals in the system namespace only."""
    return scope == CLUSTER and may_read_others(principal_type)


class FailureReason(StrEnum):
    """Why a request has no caller. Closed: metrics are labelled with it. `status_of` gives the HTTP status."""

    MULTIPLE_CREDENTIALS = "multiple_credentials"
    MISSING = "missing"
    SCHEME = "scheme"
    KEY_MALFORMED = "key_malformed"
    KEY_UNKNOWN = "key_unknown"
    KEY_EXPIRED = "key_expired"
    TOKEN_MALFORMED = "token_malformed"  # noqa: S105 - a label
    TOKEN_HEADER = "token_header"  # noqa: S105 - a label
    ALGORITHM = "algorithm"
    ISSUER_UNKNOWN = "issuer_unknown"
    KEY_ID_UNKNOWN = "key_id_unknown"
    SIGNATURE = "signature"
    CLAIMS = "claims"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFETIME = "lifetime"
    SERVICE_ACCOUNT = "service_account"
    BEFORE_NAMESPACE = "before_namespace"
    SUBJECT_UNKNOWN = "subject_unknown"


def status_of(reason: FailureReason) -> Literal[400, 401, 403]:
    """400 for several credentials (D-32), 403 for a good credential of nobody we know (INV-004), else 401."""
    if reason is FailureReason.MULTIPLE_CREDENTIALS:
        return 400
    return 403 if reason is FailureReason.SUBJECT_UNKNOWN else 401


@dataclass(frozen=True, slots=True)
class AuthFailure:
    """No caller. `detail` is one sentence for the person who sent it; it holds no part of the credential."""

    reason: FailureReason
    detail: str

    @property
    def status(self) -> Literal[400, 401, 403]:
        return status_of(self.reason)


@dataclass(frozen=True, slots=True)
class Credential:
    """The credential that was sent, so that a statement can check again that it is still valid (D-45).

    For a key: `issuer` is empty, `subject` is the sha256 hex digest of the whole key, `kid` is None. For a token:
    its issuer, subject and key id; `kid` is None for HS256.
    """

    kind: Literal["key", "token"]
    issuer: str
    subject: str
    kid: str | None


@dataclass(frozen=True, slots=True)
class VerificationContext:
    """What a token was verified against besides its key. A session keeps it and asks later whether the token would
    still be accepted (`TokenVerifier.is_current`). `secret` is `SharedSecret.fingerprint` for HS256, else None;
    `lifetime` the seconds from the token's issue to its end.
    """

    audience: str | None
    algorithm: str
    secret: str | None = None
    lifetime: int = 0


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod a token is bound to (`kubernetes.io` claims). `name` and `node` are for people; `uid` identifies."""

    uid: str
    name: str | None
    node: str | None


class Identity(Protocol):
    """What the directory knows of a principal. Any object with these attributes will do."""

    @property
    def tenant(self) -> UUID: ...
    @property
    def namespace(self) -> str: ...
    @property
    def namespace_created(self) -> datetime | None: ...
    @property
    def principal_key(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def scope(self) -> str: ...
    @property
    def rights(self) -> Collection[str]: ...
    @property
    def suspended(self) -> bool: ...


class KeyChange(Protocol):
    """One API key as published: the digest of the whole key, never the key."""

    @property
    def sha256(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def expires_at(self) -> datetime | None: ...


class IssuerChange(Protocol):
    """One trusted issuer (D-14)."""

    @property
    def issuer(self) -> str: ...
    @property
    def audiences(self) -> Collection[str]: ...
    @property
    def algorithms(self) -> Collection[str]: ...
    @property
    def max_token_lifetime_seconds(self) -> int: ...
    @property
    def source(self) -> str: ...


class IssuerKeyChange(Protocol):
    """One public key of an issuer, as a JWK."""

    @property
    def issuer(self) -> str: ...
    @property
    def kid(self) -> str: ...
    @property
    def jwk(self) -> Mapping[str, Any]: ...
    @property
    def alg(self) -> str | None: ...


class Changes(Protocol):
    """What changed since `mark` was last another one; `full` means: forget everything known before."""

    @property
    def mark(self) -> int: ...
    @property
    def full(self) -> bool: ...
    @property
    def api_keys(self) -> Collection[KeyChange]: ...
    @property
    def issuers(self) -> Collection[IssuerChange]: ...
    @property
    def issuer_keys(self) -> Collection[IssuerKeyChange]: ...
    @property
    def gone_api_keys(self) -> Collection[str]: ...
    @property
    def gone_issuers(self) -> Collection[str]: ...
    @property
    def gone_issuer_keys(self) -> Collection[tuple[str, str]]: ...


class Directory(Protocol):
    """Where a subject becomes a principal. May raise what its storage raises: that is the gate's 503."""

    async def resolve(self, issuer: str, subject: str) -> Identity | None:
        """The one principal that declares this subject, or None. `issuer` is empty for a key's sha256 hex digest."""
        ...


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal. `suspended` is reported, not enforced: that 403 comes after the body's checks (D-42).

    `audience` is the gate that its token is meant for; None for a key, and where no audience is asked for (D-37).
    `verification` is None for a key.
    """

    tenant: UUID
    namespace: str
    principal_key: str
    type: str
    scope: str
    rights: frozenset[str]
    suspended: bool
    credential: Credential
    pod: Pod | None
    expires_at: datetime | None
    audience: str | None = None
    verification: VerificationContext | None = None

    @property
    def everywhere(self) -> bool:
        """Reads every tenant (D-51)."""
        return reads_everywhere(self.scope, self.type)

    @property
    def role(self) -> str:
        """Its type, or `witness` where it has that right: MetaGate's relay does nothing else (D-51)."""
        return role_of(self.type, self.rights)
