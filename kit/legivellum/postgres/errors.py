# ruff: noqa: N818 - named for what happened, as their reader meets them
"""What can go wrong with a gate's database, as types.

DatabaseError
├── Unavailable       away, frozen, full, read-only, restarting: answer 503, ask again later
│   └── RowRefused    there, but it refuses a value
├── SchemaMismatch    not migrated, by a newer release, or a right is missing
├── UnusableEncoding  the database cannot hold every text: it has to be created anew
└── UnusableAddress   the URL is malformed: nobody has asked anything yet
"""


class DatabaseError(Exception):
    """The database failed."""

    def __init__(self, message: str | None = None, *, why: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.why = why or message or ""
        """What an operator should know beside the type, in our words and never the driver's; empty: nothing."""


class Unavailable(DatabaseError):
    """The database did not answer."""


class RowRefused(Unavailable):
    """The database refused a value."""


class SchemaMismatch(DatabaseError):
    """The database's schema is not the one this release needs."""


class UnusableEncoding(DatabaseError):
    """The database's encoding is not UTF8."""


class UnusableAddress(DatabaseError):
    """The database's URL is malformed."""
