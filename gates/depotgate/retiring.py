"""Which artifacts may go, and letting them go (`depotgate retire`; DP-12). Nothing leaves by itself (D-10).

An input or supporting artifact may go when it is old, no receipt but its own names it, and its task has nothing open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from depotgate.artifact import Artifact, Pointer
from depotgate.blobs import Blobs
from depotgate.database import DepotGateDatabase
from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated

RETIRED_BY: Final = "depotgate retire"
_BATCH: Final = 100

_OLD: Final = """
    SELECT a.tenant, a.artifact_id, encode(a.sha256, 'hex'), clock_timestamp()
    FROM depotgate.artifact AS a
    WHERE a.retired_at IS NULL AND a.role IN ('input', 'supporting') AND a.stored_at < clock_timestamp() - $1::interval
      AND NOT EXISTS (SELECT FROM memorygate.obligation AS o
                      WHERE o.tenant = a.tenant AND o.task_id = a.task_id AND o.state = 'open')
    ORDER BY a.stored_at, a.artifact_id
"""
_NAMED: Final = """
    SELECT DISTINCT r.tenant, m[1]
    FROM memorygate.receipt AS r
    CROSS JOIN LATERAL regexp_matches(r.body, 'depot:([0-7][0-9A-HJKMNP-TV-Z]{25}):[0-9a-f]{64}', 'g') AS m
    WHERE r.body LIKE '%depot:%' AND r.stored_at >= $1
      AND NOT (r.kind = 'artifact' AND m[1] = split_part(r.body::json ->> 'artifact_pointer', ':', 2))
"""
"""One sequential read of the bodies: which artifacts are named by receipts that are not their own."""


@translated
async def retirable(auditor_dsn: str, older_than: timedelta) -> list[tuple[UUID, Pointer]]:
    """Tenant and pointer of what may go, the oldest first. Role `memorygate_auditor`.

    Receipts that are stored while the ledger is read are looked at last. Raises Unavailable, SchemaMismatch.
    """
    connection = await connect(auditor_dsn, server_settings={"application_name": "depotgate retire"})
    try:
        rows = await connection.fetch(_OLD, older_than)
        if not rows:
            return []
        began: datetime = rows[0][3]
        beginning = datetime.min.replace(tzinfo=began.tzinfo)
        named = {tuple(row) for row in await connection.fetch(_NAMED, beginning)}
        # A statement may have begun a while before its receipt can be seen.
        named |= {tuple(row) for row in await connection.fetch(_NAMED, began - timedelta(minutes=1))}
    finally:
        await connection.close(timeout=5)
    return [
        (tenant, Pointer(artifact_id, sha256))
        for tenant, artifact_id, sha256, _ in rows
        if (tenant, artifact_id) not in named
    ]


async def retire(
    database: DepotGateDatabase, blobs: Blobs, chosen: Sequence[tuple[UUID, Pointer]]
) -> list[tuple[UUID, Artifact]]:
    """Tombstones and receipts first; the bytes go after the commit that let them go (EXT-26). What was retired.

    A death in between leaves blobs that `sweep` finds. Raises Unavailable, StoreUnavailable.
    """
    gone: list[tuple[UUID, Artifact]] = []
    for batch in _batches(chosen):
        artifacts = [
            (tenant, artifact)
            for tenant, pointer in batch
            if (artifact := await database.artifact(tenant, pointer)) is not None and artifact.state == "kept"
        ]
        retired = await database.retire(artifacts, by=RETIRED_BY)
        tenants = {artifact.artifact_id: tenant for tenant, artifact in artifacts}
        gone += [(tenants[item.artifact.artifact_id], item.artifact) for item in retired]
        for key in {item.freed_key for item in retired if item.freed_key is not None}:
            await blobs.remove(key)
    return gone


def _batches(chosen: Sequence[tuple[UUID, Pointer]]) -> Iterator[Sequence[tuple[UUID, Pointer]]]:
    for start in range(0, len(chosen), _BATCH):
        yield chosen[start : start + _BATCH]
