"""One transaction publishes what changed. Role `metagate_publisher`; one writer at a time, the newest epoch wins."""

from collections.abc import Callable, Sequence
from typing import Self
from uuid import UUID

from metagate_store.rows import Change, IssuerKeyRow, IssuerRow, Published

Failpoint = Callable[[str], None]
"""Called with the name of each step; a test makes it raise or kill the process there (F27)."""


class Publisher:
    @classmethod
    async def open(cls, dsn: str, *, cluster_uid: str | None = None, failpoint: Failpoint = lambda _name: None) -> Self:
        """`cluster_uid` None: no cluster is claimed (standalone). Another cluster's database raises ForeignCluster."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def load(self) -> Published:
        raise NotImplementedError

    async def publish(self, change: Change, *, mirror: bool = False) -> int:
        """Write the difference and return the revision served now: a new one only when a served table changed.

        Raises Fenced, StaleBase, StoreUnavailable; in each case nothing was written, but for a lost commit reply
        (StoreUnavailable), after which the writer must `load` again.
        """
        raise NotImplementedError

    async def issuers(self) -> Sequence[IssuerRow]:
        raise NotImplementedError

    async def issuer_keys(self, issuer: str) -> Sequence[IssuerKeyRow]:
        raise NotImplementedError

    async def keep_issuer_keys(self, keys: Sequence[IssuerKeyRow], gone: Sequence[tuple[str, str]] = ()) -> None:
        """Store what the refresher of Cluster and URL issuers found. Mints no revision; `credentials` shows it."""
        raise NotImplementedError

    async def tenant(self, namespace: str) -> UUID | None:
        raise NotImplementedError
