"""Who may speak, read from MetaGate's database through its read-only role and held in memory whole (D-48, D-45).

The ledger asks nobody while it answers a request. It polls what was published, takes over what changed, and goes on
with what it knows while MetaGate is away: for `stale_seconds`, because a revocation cannot reach it in that time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import asyncpg

from legivellum.postgres.driver import translated
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import open_pool


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a credential speaks for."""

    tenant: UUID
    namespace: str
    namespace_created: datetime | None
    principal_key: str
    type: str
    scope: str
    rights: Collection[str]
    suspended: bool


@dataclass(frozen=True, slots=True)
class Key:
    sha256: str
    key_id: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Issuer:
    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    max_token_lifetime_seconds: int
    source: str


@dataclass(frozen=True, slots=True)
class IssuerKey:
    issuer: str
    kid: str
    jwk: Mapping[str, Any]
    alg: str | None


@dataclass(frozen=True, slots=True)
class Beliefs:
    """What changed since a mark, in the shape the identity package takes (`legivellum.identity.caller.Changes`)."""

    mark: int
    full: bool
    api_keys: tuple[Key, ...]
    issuers: tuple[Issuer, ...]
    issuer_keys: tuple[IssuerKey, ...]
    gone_api_keys: tuple[str, ...]
    gone_issuers: tuple[str, ...]
    gone_issuer_keys: tuple[tuple[str, str], ...]


class IdentityReader:
    """Role `metagate_identity`: it may look up who speaks and nothing else."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str) -> Self:
        """Raises Unavailable."""
        return cls(await open_pool(dsn, size=1, query_timeout=5.0, name="memorygate identity"))

    async def close(self) -> None:
        self._pool.terminate()

    @translated
    async def revision(self) -> int:
        return int(await self._pool.fetchval("SELECT revision FROM metagate.state()") or 0)

    @translated
    async def beliefs(self, since: int) -> Beliefs:
        return _beliefs(
            await self._pool.fetch("SELECT mark, kind, a, b, body FROM metagate.credentials($1)", since), since
        )

    @translated
    async def everybody(self) -> dict[tuple[str, str], Known]:
        """Every subject that a Principal declares, by (issuer, subject); an API key's issuer is empty."""
        rows = await self._pool.fetch(
            "SELECT issuer, subject, tenant, namespace, namespace_created, principal_key, type, scope, rights, "
            "suspended FROM metagate.everybody()"
        )
        return {(row[0], row[1]): Known(*list(row)[2:]) for row in rows}


def _beliefs(rows: Sequence[Any], since: int) -> Beliefs:
    there: dict[str, list[Any]] = {"api_key": [], "issuer": [], "issuer_key": []}
    gone: dict[str, list[tuple[str, str]]] = {"api_key": [], "issuer": [], "issuer_key": []}
    mark = since
    for number, kind, a, b, text in rows:
        mark = max(mark, number)
        if text is None:
            gone[kind].append((a, b))
            continue
        body = json.loads(text)
        if kind == "api_key":
            there[kind].append(Key(a, body["key_id"], _moment(body["expires_at"])))
        elif kind == "issuer":
            seconds = body["max_token_lifetime_seconds"]
            there[kind].append(Issuer(a, tuple(body["audiences"]), tuple(body["algorithms"]), seconds, body["source"]))
        else:
            there[kind].append(IssuerKey(a, b, body["jwk"], body["alg"]))
    return Beliefs(
        mark,
        full=False,
        api_keys=tuple(there["api_key"]),
        issuers=tuple(there["issuer"]),
        issuer_keys=tuple(there["issuer_key"]),
        gone_api_keys=tuple(a for a, _ in gone["api_key"]),
        gone_issuers=tuple(a for a, _ in gone["issuer"]),
        gone_issuer_keys=tuple(gone["issuer_key"]),
    )


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Directory:
    """Where the authenticator asks whose a subject is. Answers from memory, and not at all when that is too old."""

    def __init__(self, *, stale_seconds: float, clock: Callable[[], float]) -> None:
        self._everybody: Mapping[tuple[str, str], Known] = {}
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._read_at: float | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._read_at is None else self._clock() - self._read_at

    def replace(self, everybody: Mapping[tuple[str, str], Known]) -> None:
        self._everybody = everybody
        self.confirm()

    def confirm(self) -> None:
        """The database was asked just now and has nothing newer."""
        self._read_at = self._clock()

    async def resolve(self, issuer: str, subject: str) -> Known | None:
        """Raises Unavailable while nothing is known, or only what is too old."""
        age = self.age
        if age is None or age > self._stale_seconds:
            raise Unavailable("Who may speak is not known.")
        return self._everybody.get((issuer, subject))
