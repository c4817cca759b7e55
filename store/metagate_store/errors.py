# ruff: noqa: N818 - named for what happened, as their reader meets them
"""What can go wrong with the store, as types: those of every gate's database, and the writer's own.

StoreError
├── StoreUnavailable      away, frozen, full, read-only, restarting: answer 503, ask again later
│   └── RowRefused        there, but it refuses a value
├── WriterError
│   ├── Fenced            another writer took over: stop
│   └── StaleBase         the database moved on since `load`: load again
├── SchemaMismatch        not migrated, or by a newer release
└── ForeignCluster        the database belongs to another cluster (D-46)
"""

from legivellum.postgres.errors import DatabaseError as StoreError
from legivellum.postgres.errors import RowRefused, SchemaMismatch
from legivellum.postgres.errors import Unavailable as StoreUnavailable

__all__ = [
    "Fenced",
    "ForeignCluster",
    "RowRefused",
    "SchemaMismatch",
    "StaleBase",
    "StoreError",
    "StoreUnavailable",
    "WriterError",
]


class WriterError(StoreError):
    """The writer may not write."""


class Fenced(WriterError):
    """Another writer has taken over; nothing was written."""


class StaleBase(WriterError):
    """The database holds another revision than this writer knows; nothing was written."""


class ForeignCluster(StoreError):
    """The database belongs to another cluster; `metagate migrate --adopt` takes it over."""
