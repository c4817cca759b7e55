"""Principals and credentials, read from MetaGate's database through its read-only role and held in memory (D-60).

A gate asks nobody while it answers a request. It polls what was published and takes over what changed. While
MetaGate's database is away it goes on with what it knows for `stale_seconds`: no longer, because a revocation cannot
reach it then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self
from uuid import UUID

from legivellum.postgres.errors import Unavailable
from legivellum.postgres.pool import Pool
from legivellum.postgres.published_identity import (
    CHANGES,
    CredentialChanges,
    KnownPrincipal,
    PublishedRevision,
    credential_changes,
    read_revision,
)


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

    async def revision(self) -> PublishedRevision:
        return await read_revision(self._pool)

    async def changes(self, since: int) -> CredentialChanges:
        """What changed after the mark `since`; everything when it is 0, or newer than this database is."""
        rows = await self._pool.fetch(CHANGES, since)
        if rows[0]["newest"] < since:
            # Another database, or one restored from a backup: changes since then would be missed until its marks have
            # grown beyond the one that is known here.
            since = 0
            rows = await self._pool.fetch(CHANGES, since)
        return credential_changes(rows, full=since == 0)

    async def list_subjects(self) -> dict[tuple[str, str], KnownPrincipal]:
        """Every subject that a Principal declares, by (issuer, subject); an API key's issuer is empty."""
        rows = await self._pool.fetch(
            "SELECT issuer, subject, tenant, namespace, namespace_created, principal_key, type, scope, rights, "
            "suspended FROM metagate.everybody()"
        )
        return {(row[0], row[1]): KnownPrincipal(*list(row)[2:]) for row in rows}


class ReplicatedDirectory:
    """The authenticator's directory (`legivellum.identity.caller.Directory`), answered from memory."""

    def __init__(self, *, stale_seconds: float, clock: Callable[[], float]) -> None:
        self._subjects: Mapping[tuple[str, str], KnownPrincipal] = {}
        self._principals: frozenset[tuple[UUID, str]] = frozenset()
        self._stale_seconds = stale_seconds
        self._clock = clock
        self._confirmed_at: float | None = None
        self.version = 0
        """Another one whenever principals were read again, because something was published."""

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed it; None before the first time."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    def replace(self, subjects: Mapping[tuple[str, str], KnownPrincipal]) -> None:
        self._subjects = subjects
        self.version += 1
        self._principals = frozenset((known.tenant, known.principal_key) for known in subjects.values())
        self.confirm()

    def confirm(self) -> None:
        """The database was asked just now and has nothing newer."""
        self._confirmed_at = self._clock()

    def has_principal(self, tenant: UUID, principal_key: str) -> bool:
        """Whether the tenant has a principal of this name with a key or a subject, suspended or not."""
        return (tenant, principal_key) in self._principals

    def namespaces(self) -> dict[UUID, str]:
        """The tenants that have principals, with the names of their namespaces."""
        return {known.tenant: known.namespace for known in self._subjects.values()}

    async def resolve(self, issuer: str, subject: str) -> KnownPrincipal | None:
        """Raises Unavailable before the first read, and when the last one is too long ago: then it fails closed."""
        age = self.age
        if age is None or age > self._stale_seconds:
            raise Unavailable("The principals are not known.")
        return self._subjects.get((issuer, subject))
