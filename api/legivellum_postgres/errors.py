# ruff: noqa: N818 - named for what happened, as their reader meets them
"""What can go wrong with a gate's database, as types.

DatabaseError
├── Unavailable       away, frozen, full, read-only, restarting: answer 503, ask again later
└── SchemaMismatch    not migrated, by a newer release, or a right is missing
"""


class DatabaseError(Exception):
    """The database failed."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])


class Unavailable(DatabaseError):
    """The database did not answer."""


class SchemaMismatch(DatabaseError):
    """The database's schema is not the one this release needs."""
