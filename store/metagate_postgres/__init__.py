"""A real PostgreSQL on one machine, from the binaries in a wheel."""

from metagate_postgres.errors import AlreadyRunning, BinariesMissing, DirectoryUnusable, PostgresError, StartFailed
from metagate_postgres.server import EmbeddedPostgres

__all__ = [
    "AlreadyRunning",
    "BinariesMissing",
    "DirectoryUnusable",
    "EmbeddedPostgres",
    "PostgresError",
    "StartFailed",
]
