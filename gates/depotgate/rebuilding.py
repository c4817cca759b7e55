"""Making DepotGate's rows anew from the receipts (`depotgate rebuild`; DP-14, INV-120). Bytes are no global narrative:
they are backed up with the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated

_COUNTS: Final = """
    SELECT count(*) FILTER (WHERE retired_at IS NULL), count(*) FILTER (WHERE retired_at IS NOT NULL),
           (SELECT count(*) FROM depotgate.blob) FROM depotgate.artifact
"""


@dataclass(frozen=True, slots=True)
class ArtifactRebuild:
    kept: int
    retired: int
    blobs: int


@translated
async def rebuild(dsn: str) -> ArtifactRebuild:
    """Empty `artifact` and `blob` and derive them from the receipts.

    Role: one that owns the tables and reads the ledger's receipts. It waits for what is being stored, and every request
    waits for it. Raises Unavailable, SchemaMismatch.
    """
    script = (files("depotgate") / "rebuild.sql").read_text(encoding="utf-8")
    connection = await connect(dsn, server_settings={"application_name": "depotgate rebuild"})
    try:
        # Its first statement locks the tables before the snapshot is taken: what is stored until then is in it.
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute(script)
            return ArtifactRebuild(*await connection.fetchrow(_COUNTS))
    finally:
        await connection.close(timeout=5)
