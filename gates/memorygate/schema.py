"""The ledger's schema: its files, its roles, what is set on them."""

from collections.abc import Mapping

from legivellum.postgres.migrations import WRITER_SETTINGS, Migrated, Schema, migrate

OWNER = "memorygate_owner"
WRITER = "memorygate_writer"
AUDITOR = "memorygate_auditor"
EMITTING_ROLES = ("interrogate_owner", "asyncgate_owner", "depotgate_owner")
"""Owners of the gates that keep their state in this database (D-57): each may execute its emitting function."""

_AUDITING = {"default_transaction_read_only": "on", "jit": "off"}

MONTHS_AHEAD = 12
"""How many partitions are kept ready. What comes later, or with an odd ULID, goes to the default partition."""

LEDGER = Schema(
    name="memorygate",
    package="memorygate",
    lock=0x6D656D6F_72796761,
    owner=OWNER,
    roles={WRITER: WRITER_SETTINGS, AUDITOR: _AUDITING},
    granted=EMITTING_ROLES,
    after=(f"SELECT memorygate.prepare_partitions({MONTHS_AHEAD})",),
)


async def migrate_ledger(dsn: str, *, passwords: Mapping[str, str] | None = None) -> Migrated:
    """Create the schema or bring it up to date. Raises Unavailable, SchemaMismatch."""
    return await migrate(LEDGER, dsn, passwords=passwords)
