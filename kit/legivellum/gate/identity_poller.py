"""Keeping a gate's replica of principals and credentials up to date (D-60)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from legivellum.gate.snapshot_poller import close_quietly
from legivellum.identity.replica import IdentityDatabase, ReplicatedDirectory
from legivellum.postgres.published_identity import CredentialChanges, PublishedRevision


class CredentialStore(Protocol):
    """Keys and issuers in memory (`legivellum.identity.authenticator.Authenticator`)."""

    def apply(self, changes: CredentialChanges) -> None: ...


class IdentityReplica:
    """Takes over principals, keys and issuers as they are published. `look` is what a SnapshotPoller repeats."""

    def __init__(
        self,
        credentials: CredentialStore,
        directory: ReplicatedDirectory,
        connect: Callable[[], Awaitable[IdentityDatabase]],
    ) -> None:
        self._credentials = credentials
        self._directory = directory
        self._connect = connect
        self._database: IdentityDatabase | None = None
        self._mark = 0
        self._revision: PublishedRevision | None = None

    @property
    def age(self) -> float | None:
        """Seconds since the database last confirmed what is known; None before the first time."""
        return self._directory.age

    async def look(self) -> Mapping[str, object]:
        if self._database is None:
            self._database = await self._connect()
        revision = await self._database.revision()
        known = self._revision
        same_server = known is not None and known.server_started_at == revision.server_started_at
        changes = await self._database.changes(self._mark if same_server else 0)
        # Reading all subjects costs more than a look, so it is done only when something was published.
        if revision != self._revision or changes.mark != self._mark:
            # Principals before keys: a key that is accepted must already belong to somebody.
            self._directory.replace(await self._database.list_subjects())
            self._credentials.apply(changes)
            self._revision, self._mark = revision, changes.mark
        self._directory.confirm()
        return {"revision": revision.number}

    async def close(self) -> None:
        await close_quietly(self._database)
