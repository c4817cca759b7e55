"""Principals and credentials, read from MetaGate's database through its read-only role and held in memory (D-60).

A gate asks nobody while it answers a request. It polls what was published and takes over what changed. While
MetaGate's database is away it goes on with what it knows for `stale_seconds`: no longer, because a revocation cannot
reach it then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import Pool


@dataclass(frozen=True, slots=True)
class KnownPrincipal:
    """The principal that declares a credential's subject."""

    tenant: UUID
    namespace: str
    namespace_created: datetime | None
    principal_key: str
    type: str
    scope: str
    rights: Collection[str]
    suspended: bool


@dataclass(frozen=True, slots=True)
class PublishedKey:
    sha256: str
    key_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class PublishedIssuer:
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str


@dataclass(frozen=True, slots=True)
class PublishedIssuerKey:
    issuer: str
    kid: str
    jwk: Mapping[str, Any]
    alg: str | None


@dataclass(frozen=True, slots=True)
class CredentialChanges:
    """What changed since a mark (`legivellum.identity.caller.Changes`)."""

    mark: int
    full: bool
    api_keys: tuple[PublishedKey, ...]
    issuers: tuple[PublishedIssuer, ...]
    issuer_keys: tuple[PublishedIssuerKey, ...]
    gone_api_keys: tuple[str, ...]
    gone_issuers: tuple[str, ...]
    gone_issuer_keys: tuple[tuple[str, str], ...]


class IdentityDatabase:
    """MetaGate's database as the role `metagate_identity`, which may read principals and credentials and nothing
    else.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str, *, application_name: str) -> Self:
        """Raises Unavailable."""
        return cls(await Pool.open(dsn, size=1, query_timeout=5.0, name=application_name))

    async def close(self) -> None:
        await self._pool.close()

    async def revision(self) -> int:
        return int(await self._pool.fetchval("SELECT revision FROM metagate.state()") or 0)

    async def changes(self, since: int) -> CredentialChanges:
        return credential_changes(
            await self._pool.fetch("SELECT mark, kind, a, b, body FROM metagate.credentials($1)", since), since
        )

    async def list_subjects(self) -> dict[tuple[str, str], KnownPrincipal]:
        """Every subject that a Principal declares, by (issuer, subject); an API key's issuer is empty."""
        rows = await self._pool.fetch(
            "SELECT issuer, subject, tenant, namespace, namespace_created, principal_key, type, scope, rights, "
            "suspended FROM metagate.everybody()"
        )
        return {(row[0], row[1]): KnownPrincipal(*list(row)[2:]) for row in rows}


def credential_changes(rows: Sequence[Any], since: int) -> CredentialChanges:
    """Rows of `metagate.credentials`: one with a body is present, one without was removed."""
    present: dict[str, list[Any]] = {"api_key": [], "issuer": [], "issuer_key": []}
    removed: dict[str, list[tuple[str, str]]] = {"api_key": [], "issuer": [], "issuer_key": []}
    mark = since
    for number, kind, a, b, text in rows:
        mark = max(mark, number)
        if text is None:
            removed[kind].append((a, b))
        else:
            present[kind].append(_published(kind, a, b, json.loads(text)))
    return CredentialChanges(
        mark,
        full=False,
        api_keys=tuple(present["api_key"]),
        issuers=tuple(present["issuer"]),
        issuer_keys=tuple(present["issuer_key"]),
        gone_api_keys=tuple(a for a, _ in removed["api_key"]),
        gone_issuers=tuple(a for a, _ in removed["issuer"]),
        gone_issuer_keys=tuple(removed["issuer_key"]),
    )


def _published(
    kind: str, a: str, b: str, body: Mapping[str, Any]
) -> PublishedKey | PublishedIssuer | PublishedIssuerKey:
    if kind == "api_key":
        return PublishedKey(a, body["key_id"], _moment(body["expires_at"]))
    if kind == "issuer":
        seconds = body["max_token_lifetime_seconds"]
        return PublishedIssuer(a, tuple(body["audiences"]), tuple(body["algorithms"]), seconds, body["source"])
    return PublishedIssuerKey(a, b, body["jwk"], body["alg"])


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class ReplicatedDirectory:
    """The authenticator's directory (`legivellum.identity.caller.Directory`), answered from memory."""

    def __init__(self, *, stale_seconds: float, clock: Callable[[], float]) -> None:
        self._subjects: Mapping[tuple[str, str], KnownPrincipal] = {}
        self._principals: frozenset[tuple[UUID, str]] = frozenset()
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._confirmed_at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    def replace(self, subjects: Mapping[tuple[str, str], KnownPrincipal]) -> None:
        self._subjects = subjects
        self._principals = frozenset((known.tenant, known.principal_key) for known in subjects.values())
        self.confirm()

    def confirm(self) -> None:
        """The database was asked just now and has nothing newer."""
        self._confirmed_at = self._clock()

    def has_principal(self, tenant: UUID, principal_key: str) -> bool:
        """Whether the tenant has a principal of this name with a key or a subject, suspended or not."""
        return (tenant, principal_key) in self._principals

    async def resolve(self, issuer: str, subject: str) -> KnownPrincipal | None:
        """Raises Unavailable before the first read, and when the last one is too long ago: then it fails closed."""
        age = self.age
        if age is None or age > self._stale_seconds:
            raise Unavailable("The principals are not known.")
        return self._subjects.get((issuer, subject))
