"""The calls of tools in the database: how they ended, and the pages of `GET /v1/calls` (GW-13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from interrogate.calls import (
    CallFilter,
    CallPage,
    CallRow,
    CallSettlement,
    SettledCall,
    StaleCall,
    call_row,
    ended_call,
)
from interrogate.observation import LeasePlacement
from legivellum.postgres.pool import Pool

_SETTLE: Final = (
    "SELECT ordinal, settled, detail, (row_of_call).* FROM interrogate.settle_calls($1::text[]::uuid[], $2::text[],"
    " $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::bigint[]) ORDER BY ordinal"
)
_PAGE: Final = "SELECT next_at, next_id, (row_of_call).* FROM interrogate.calls($1, $2, $3, $4, $5, $6, $7, $8, $9)"


class CallTable:
    """Over the pool of InterroGate's database, as the role `interrogate_writer`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def settle(self, settlements: Sequence[CallSettlement]) -> list[SettledCall]:
        """Store the outcome of each call with its receipt, once; what was settled before is answered."""
        ended = [ended_call(settlement.outcome) for settlement in settlements]
        rows = await self._pool.fetch(
            _SETTLE,
            [str(settlement.tenant) for settlement in settlements],
            [settlement.admission_receipt_id for settlement in settlements],
            [settlement.receipt_id for settlement in settlements],
            [settlement.receipt for settlement in settlements],
            *(list(column) for column in zip(*ended, strict=True)),
        )
        return [SettledCall(row["settled"], _row_or_none(row), row["detail"] or "") for row in rows]

    async def find(self, tenant: UUID, admission_receipt_id: str) -> CallRow | None:
        row = await self._pool.fetchrow("SELECT * FROM interrogate.call_of($1, $2)", tenant, admission_receipt_id)
        return None if row is None else call_row(row)

    async def page(self, tenant: UUID, wanted: CallFilter, limit: int) -> CallPage:
        """At most `limit`; fewer, even none, where many had to be looked at. `next` says whether to go on."""
        before_at, before_id = wanted.before or (None, None)
        rows = await self._pool.fetch(
            _PAGE,
            tenant,
            wanted.principal,
            wanted.problemata,
            wanted.tool,
            wanted.outcome,
            wanted.since,
            before_at,
            before_id,
            limit,
        )
        following = next(((row["next_at"], row["next_id"]) for row in rows if row["next_id"] is not None), None)
        return CallPage(tuple(call_row(row) for row in rows if row["next_id"] is None), following)

    async def stale(self, grace_seconds: float, limit: int = 100) -> list[StaleCall]:
        """Calls that are pending for so long after their time: their process died."""
        query = "SELECT * FROM interrogate.stale_calls(make_interval(secs => $1), $2)"
        return [StaleCall(*row) for row in await self._pool.fetch(query, float(grace_seconds), limit)]

    async def leased_task(self, tenant: UUID, lease_id: str, holder: str) -> LeasePlacement | None:
        """The admitted task of a lease that is live and the holder's."""
        row = await self._pool.fetchrow("SELECT * FROM interrogate.leased_task($1, $2, $3)", tenant, lease_id, holder)
        return None if row is None else LeasePlacement(*row)


def _row_or_none(row: Any) -> CallRow | None:
    return None if row["admission_receipt_id"] is None else call_row(row)
