"""Maintenance: the coming partitions, what the retention lets go, what is overdue.

Role `metagate_publisher`; nothing here is on the path of a request, and nothing waits for locks: whatever is busy is
done the next time.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from metagate_store.connection import BackgroundConnection

OVERDUE_TOTAL: Final = 200_000
"""Sessions that one count of the overdue ones looks at altogether, however many tenants there are."""


@dataclass(frozen=True, slots=True)
class Purged:
    startups: int
    partitions: int
    keys: int


class MaintenanceStore(BackgroundConnection):
    """Safe for concurrent use; calls wait for each other."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn, name="metagate maintenance")

    async def overdue(self, sessions: int, *, total: int = OVERDUE_TOTAL) -> int:
        """Components past their deadline without a report, among the newest `sessions` of each tenant.

        Altogether it looks at `total` sessions: of many tenants each has a smaller share of them.
        """
        [row] = await self._fetch("maintenance.overdue", sessions, total, before="maintenance.by_index")
        return int(row[0])

    async def prepare_partitions(self, days: int = 2) -> int:
        """Partitions made, today's to `days` ahead. Without one the default partition takes the rows."""
        [row] = await self._fetch("maintenance.partitions", days)
        return int(row[0])

    async def purge(self, retention: timedelta, *, mirroring: bool, batch: int = 5000) -> Purged:
        """Remove what D-39 lets go, at most `batch` sessions and keys; call again while it returns as many."""
        [row] = await self._fetch("maintenance.purge", retention, mirroring, batch)
        return Purged(**row)

    async def purge_packets(self, retention: timedelta, *, batch: int = 500) -> int:
        """Remove packets that no binding and no session that is kept refers to; at most `batch`, and none while a
        publication is written: call again while it returns as many.
        """
        [row] = await self._fetch("maintenance.purge_packets", retention, batch)
        return int(row[0])
