"""Reports in the status of objects that their change waits for the database.

What is served stays served, and the status of objects that nobody changed stays true, so only those are told whose
generation is not published yet; and only once it takes long enough for somebody to wonder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from metagate_crds.reasons import ACCEPTED, COMPILED, DATABASE_UNAVAILABLE, READY, REASONS, RESOLVED_REFS
from metagate_crds.verdict import Condition, Verdict
from metagate_operator.cluster.object_cache import ObjectCache
from metagate_operator.cluster.reporter import ClusterReporter
from metagate_operator.reconcile.health import WriterHealth
from metagate_store.errors import StoreUnavailable

PATIENCE_SECONDS = 3


class DatabaseOutageReporter:
    """Looks once a second whether passes fail at the database."""

    def __init__(self, cache: ObjectCache, reporter: ClusterReporter, health: WriterHealth) -> None:
        self._cache = cache
        self._reporter = reporter
        self._health = health

    async def run(self) -> None:
        failing = 0
        while True:
            await asyncio.sleep(1)
            failure = self._health.last_failure
            failing = failing + 1 if failure is not None and issubclass(failure, StoreUnavailable) else 0
            if failing >= PATIENCE_SECONDS:
                await self._reporter.report(self.verdicts(), self._health.revision)

    def verdicts(self) -> Sequence[Verdict]:
        """One for each object that is behind: nothing is known of its present generation, and the last one
        is served.
        """
        message = REASONS[DATABASE_UNAVAILABLE]
        return [
            Verdict(
                key=key,
                uid=cached.uid,
                generation=cached.generation,
                served_generation=cached.snapshot[1] or None,
                conditions=(
                    Condition(READY, "False", DATABASE_UNAVAILABLE, message),
                    *(Condition(name, "Unknown", DATABASE_UNAVAILABLE, message) for name in (ACCEPTED, RESOLVED_REFS)),
                    Condition(COMPILED, "False", DATABASE_UNAVAILABLE, message),
                ),
                digest=cached.snapshot[0] or None,
            )
            for key, cached in self._cache.unreported()
        ]
