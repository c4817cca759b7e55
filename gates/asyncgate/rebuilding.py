"""Is what AsyncGate holds what the receipts say? (`asyncgate rebuild`, `asyncgate orphans`; AG-16, AG-10, INV-120)

Every open obligation of which AsyncGate is the custodian, and which it acknowledged, is a task: the acknowledgement
holds the task, the first `queued` what else was settled when it was parked, the last `queued`, `lease_issued`,
`expired` or `revoked` where it is now. How often a lease was renewed, digests of requests and keys are local: after a
rebuild a lease ends when its receipt said, and its holder hears LEASE_LOST if it relied on a renewal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Final

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated

_ORPHANS: Final = """
    SELECT o.tenant::text, o.task_id, o.obligation_id, o.principal_ai, o.opened_at FROM memorygate.obligation AS o
    WHERE o.state = 'open' AND o.kind = 'obligation' AND o.custodian = 'svc:asyncgate'
      AND NOT EXISTS (SELECT FROM asyncgate.task AS x WHERE x.task_id = o.task_id AND x.tenant = o.tenant
                        AND x.obligation_id = o.obligation_id)
    ORDER BY o.opened_at, o.obligation_id
"""
_COUNTS: Final = """
    SELECT count(*), count(lease_id), (SELECT count(*) FROM asyncgate.need) FROM asyncgate.task
"""


@dataclass(frozen=True, slots=True)
class Orphan:
    """An obligation that was minted for AsyncGate and never parked."""

    tenant: str
    task_id: str
    obligation_id: str
    principal_ai: str
    opened_at: datetime

    def __str__(self) -> str:
        return f"{self.opened_at.isoformat()} tenant {self.tenant} task {self.task_id} obligation {self.obligation_id}"


@dataclass(frozen=True, slots=True)
class RebuildReport:
    tasks: int
    leased: int
    needs: int


@asynccontextmanager
async def _connection(dsn: str, command: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(dsn, server_settings={"application_name": f"asyncgate {command}"})
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@translated
async def orphans(dsn: str) -> tuple[Orphan, ...]:
    """The oldest first. Role `memorygate_auditor`. Raises Unavailable, SchemaMismatch."""
    async with _connection(dsn, "orphans") as connection:
        rows = await connection.fetch(_ORPHANS)
        return tuple(Orphan(*row) for row in rows)


@translated
async def rebuild(dsn: str) -> RebuildReport:
    """Empty `task` and `need` and derive them from the receipts; the archive, keys and admissions stay.

    Role: one that owns the tables and reads the ledger's receipts. It waits for what is being stored, and every request
    waits for it. Raises Unavailable, SchemaMismatch.
    """
    script = (files("asyncgate") / "rebuild.sql").read_text(encoding="utf-8")
    # Its first statement locks the tables before the snapshot is taken: what is stored until then is in it.
    async with _connection(dsn, "rebuild") as connection, connection.transaction(isolation="repeatable_read"):
        await connection.execute(script)
        return RebuildReport(*await connection.fetchrow(_COUNTS))
