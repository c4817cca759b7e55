# ruff: noqa: N818 - named for what happened, as their reader meets them
"""What can go wrong with the store, as types.

StoreError
├── StoreUnavailable      away, frozen, full, read-only, restarting: answer 503, ask again later
├── WriterError
│   ├── Fenced            another writer took over: stop
│   └── StaleBase         the database moved on since `load`: load again
├── SchemaMismatch        not migrated, or by a newer release
└── ForeignCluster        the database belongs to another cluster (D-46)
"""


class StoreError(Exception):
    """The store failed."""

    def __init__(self, message: str | None = None, *, why: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.why = why or message or ""
        """What an operator should know beside the type, in our words and never the driver's; empty: nothing."""


class StoreUnavailable(StoreError):
    """The database did not answer."""


class RowRefused(StoreUnavailable):
    """The database refused a value."""


class WriterError(StoreError):
    """The writer may not write."""


class Fenced(WriterError):
    """Another writer has taken over; nothing was written."""


class StaleBase(WriterError):
    """The database holds another revision than this writer knows; nothing was written."""


class SchemaMismatch(StoreError):
    """The database's schema is not the one this release needs; run `metagate migrate`."""


class ForeignCluster(StoreError):
    """The database belongs to another cluster; `metagate migrate --adopt` takes it over."""
