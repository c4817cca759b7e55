"""The database of DepotGate: one statement for what many requests ask at once.

Role `depotgate_keeper`, which executes the functions of `migrations/` and touches no table. Methods that take a
sequence answer as many results, in the same order, so that they fit a `Batcher`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from ulid import ULID

from depotgate import receipt_forms as forms
from depotgate.artifact import Artifact, ArtifactPage, Blob, LiveLease, Pointer, Role, Upload
from depotgate.outcomes import RetireResult, StoreResult
from legivellum.postgres.pool import PooledDatabase

_STORE: Final = (
    "SELECT * FROM depotgate.store($1::text[]::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], "
    "$7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[])"
)
_RETIRE: Final = "SELECT * FROM depotgate.retire($1::text[]::uuid[], $2::text[], $3::text[], $4::text[])"


class ArtifactTotals(NamedTuple):
    """Of one tenant; numbers up to 10,001 together."""

    kept: int
    retired: int
    as_of: datetime


class _Item(NamedTuple):
    """An upload with the ids of its artifact and receipt."""

    upload: Upload
    artifact_id: str
    receipt_id: str


class DepotGateDatabase(PooledDatabase):
    application_name = "depotgate"

    async def schema_version(self) -> int:
        return int(await self._pool.fetchval("SELECT schema_version FROM depotgate.state()") or 0)

    async def live_lease(self, tenant: UUID, lease_id: str, holder: str) -> LiveLease | None:
        """The lease, if it is live and this holder's. None also where AsyncGate has no schema here (DP-04)."""
        row = await self._pool.fetchrow("SELECT * FROM depotgate.live_lease($1, $2, $3)", tenant, lease_id, holder)
        return None if row is None else LiveLease(*row)

    async def store(self, uploads: Sequence[Upload], *, location: str) -> list[StoreResult]:
        """Rows and receipts of artifacts whose bytes are durable, in one commit (DP-03). `location`: PUBLIC_URL.

        Uploads of one artifact_id follow each other in statements of their own, so that the later finds the earlier.
        Raises InvalidDeposit, Unavailable.
        """
        results: dict[int, StoreResult] = {}
        waiting = [
            (place, _Item(upload, upload.deposit.artifact_id or str(ULID()), str(ULID())))
            for place, upload in enumerate(uploads)
        ]
        while waiting:
            now: dict[tuple[UUID, str], tuple[int, _Item]] = {}
            later = []
            for place, item in waiting:
                if now.setdefault((item.upload.deposit.tenant, item.artifact_id), (place, item))[0] != place:
                    later.append((place, item))
            batch = list(now.values())
            for (place, _), stored in zip(batch, await self._store([item for _, item in batch], location), strict=True):
                results[place] = stored
            waiting = later
        return [results[place] for place in range(len(uploads))]

    async def _store(self, items: Sequence[_Item], location: str) -> list[StoreResult]:
        def column(value: Callable[[_Item], Any]) -> list[Any]:
            return [value(item) for item in items]

        rows = await self._pool.fetch(
            _STORE,
            column(lambda item: str(item.upload.deposit.tenant)),
            column(lambda item: item.artifact_id),
            column(lambda item: item.receipt_id),
            column(lambda item: item.upload.key),
            column(lambda item: item.upload.sha256),
            column(lambda item: item.upload.size_bytes),
            column(lambda item: item.upload.deposit.media_type),
            column(lambda item: item.upload.deposit.role),
            column(lambda item: item.upload.deposit.task_id),
            column(lambda item: item.upload.deposit.name),
            column(lambda item: item.upload.deposit.depositor),
            column(lambda item: None if item.upload.deposit.lease_id else item.upload.deposit.caused_by_receipt_id),
            column(lambda item: item.upload.deposit.lease_id),
            column(lambda item: forms.stored_form(item.upload, item.artifact_id, item.receipt_id, location)),
        )
        return [
            StoreResult(row["outcome"], None if row["artifact_id"] is None else Artifact(*row[3:]), row["detail"] or "")
            for row in sorted(rows, key=lambda row: row["ordinal"])
        ]

    async def artifact(self, tenant: UUID, pointer: Pointer) -> Artifact | None:
        """None: there is none of this id, or its digest is another (DP-01)."""
        artifact = await self.artifact_of_id(tenant, pointer.artifact_id)
        return artifact if artifact is not None and artifact.pointer == pointer else None

    async def artifact_of_id(self, tenant: UUID, artifact_id: str) -> Artifact | None:
        """Whatever its digest: for its depositor, never for a reader."""
        query = "SELECT * FROM depotgate.views(ARRAY[$1::uuid], ARRAY[$2::text])"
        row = await self._pool.fetchrow(query, tenant, artifact_id)
        return None if row is None else Artifact(*row[1:])

    async def artifacts(
        self,
        tenant: UUID,
        *,
        task_id: str | None = None,
        role: Role | None = None,
        before: tuple[datetime, str] | None = None,
        limit: int,
    ) -> ArtifactPage:
        """The newest first, retired ones too. `before`: `next_position` of the page before."""
        query = "SELECT * FROM depotgate.artifacts($1, $2, $3, $4, $5, $6)"
        rows = await self._pool.fetch(query, tenant, task_id, role, *(before or (None, None)), limit + 1)
        items = tuple(Artifact(*row) for row in rows[:limit])
        last = items[-1] if len(rows) > limit else None
        return ArtifactPage(items, None if last is None else (last.stored_at, last.artifact_id))

    async def totals(self, tenant: UUID) -> ArtifactTotals:
        row = await self._pool.fetchrow("SELECT * FROM depotgate.totals($1)", tenant)
        assert row is not None
        return ArtifactTotals(*row)

    async def retire(self, artifacts: Sequence[tuple[UUID, Artifact]], *, by: str) -> list[RetireResult]:
        """Tombstones and receipts in one commit. Each artifact that is retired, now or before; others stay as they are.

        Whether they may go has been judged (DP-12). Raises Unavailable.
        """
        ids = [str(ULID()) for _ in artifacts]
        rows = await self._pool.fetch(
            _RETIRE,
            [str(tenant) for tenant, _ in artifacts],
            [artifact.artifact_id for _, artifact in artifacts],
            ids,
            [
                forms.retired_form(tenant, artifact, receipt_id, by=by)
                for (tenant, artifact), receipt_id in zip(artifacts, ids, strict=True)
            ],
        )
        return [
            RetireResult(Artifact(*row[1:-1]), row["freed_key"]) for row in sorted(rows, key=lambda row: row["ordinal"])
        ]

    async def blobs(self, *, after_key: str = "", limit: int = 1000) -> list[Blob]:
        """The blobs that kept artifacts have, by key."""
        rows = await self._pool.fetch("SELECT * FROM depotgate.blobs($1, $2)", after_key, limit)
        return [Blob(tenant, key, sha256, size, tuple(ids)) for tenant, key, sha256, size, ids in rows]

    async def known_keys(self, keys: Sequence[str]) -> set[str]:
        """Which of these blobs some kept artifact has."""
        rows = await self._pool.fetch("SELECT key FROM depotgate.known_keys($1::text[])", list(keys))
        return {row["key"] for row in rows}
