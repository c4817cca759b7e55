"""The ledger's schema: its files, its roles, what is set on them."""

from collections.abc import Mapping

from legivellum.postgres.migrations import Migrated, Schema, migrate

OWNER = "memorygate_owner"
WRITER = "memorygate_writer"
AUDITOR = "memorygate_auditor"
EMITTING_ROLES = ("interrogate_owner", "asyncgate_owner", "depotgate_owner")
"""Owners of the gates that keep their state in this database (D-57): each may execute its emitting function."""

# Below the request's deadline, in the order lock < statement < query < deadline (docs/database.md). A writer may wait
# longer for a lock than MetaGate's does: two batches of one root task follow each other, they do not fail.
_WRITING = {
    "lock_timeout": "300ms",
    "statement_timeout": "700ms",
    "idle_in_transaction_session_timeout": "1s",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "jit": "off",
}
_AUDITING = {"default_transaction_read_only": "on", "jit": "off"}

MONTHS_AHEAD = 12
"""How many partitions are kept ready. What comes later, or with an odd ULID, goes to the default partition."""

LEDGER = Schema(
    name="memorygate",
    package="memorygate",
    lock=0x6D656D6F_72796761,
    owner=OWNER,
    roles={WRITER: _WRITING, AUDITOR: _AUDITING},
    granted=EMITTING_ROLES,
    after=(f"SELECT memorygate.prepare_partitions({MONTHS_AHEAD})",),
)


async def migrate_ledger(dsn: str, *, passwords: Mapping[str, str] | None = None) -> Migrated:
    """Create the schema or bring it up to date. Raises Unavailable, SchemaMismatch."""
    return await migrate(LEDGER, dsn, passwords=passwords)
