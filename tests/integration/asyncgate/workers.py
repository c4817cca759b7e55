"""A process of workers: each leases, works, sometimes oversleeps its lease, completes, sometimes twice; all killed at any moment.

Run as `python -m tests.integration.asyncgate.workers DSN TENANT FORM SEED LOG`. Its log says which task it took under which number, and
which of its ends were accepted. The naive form is kept to show that the run is hard: a checker that it passes would prove nothing
(`test_killed_workers.py`).
"""

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any, Protocol, TextIO
from uuid import UUID

import asyncpg
from tests.integration.asyncgate.conftest import Tenant

from asyncgate.database import AsyncGateDatabase
from legivellum.postgres.errors import Unavailable

TTL_SECONDS = 1
WORKERS = 4
"""In each process."""


class WorkQueue(Protocol):
    """How a worker gets a task and gives it back: the id of the task, that of the lease, its number."""

    async def take(self, holder: str) -> tuple[str, str, int] | None: ...

    async def give_back(self, lease_id: str, holder: str) -> bool: ...


class LeasedQueue:
    """AsyncGate's own verbs."""

    def __init__(self, database: AsyncGateDatabase, tenant: UUID) -> None:
        self._tenant = Tenant(database, "", tenant)

    async def take(self, holder: str) -> tuple[str, str, int] | None:
        leases = await self._tenant.lease(holder, ttl_seconds=TTL_SECONDS)
        return (leases[0].task_id, leases[0].lease_id, leases[0].number) if leases else None

    async def give_back(self, lease_id: str, holder: str) -> bool:
        return (await self._tenant.complete(lease_id, holder)).name in {"ENDED", "REPLAYED"}


class UncheckedQueue:
    """The naive form: a queue of two plain statements, where the end asks for the task and not for the lease."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def take(self, holder: str) -> tuple[str, str, int] | None:
        row = await self._pool.fetchrow(
            """UPDATE plain_queue AS q SET number = number + 1, visible_at = clock_timestamp() + make_interval(secs => $1)
               FROM (SELECT task_id FROM plain_queue WHERE visible_at <= clock_timestamp() ORDER BY visible_at LIMIT 1
                     FOR UPDATE SKIP LOCKED) AS next
               WHERE q.task_id = next.task_id RETURNING q.task_id, q.number""",
            TTL_SECONDS,
        )
        return None if row is None else (row["task_id"], row["task_id"], row["number"])

    async def give_back(self, lease_id: str, holder: str) -> bool:
        return await self._pool.execute("DELETE FROM plain_queue WHERE task_id = $1", lease_id) == "DELETE 1"


async def work(queue: WorkQueue, log: TextIO, holder: str, randomness: random.Random) -> None:
    def write(**entry: Any) -> None:
        log.write(json.dumps(entry) + "\n")
        log.flush()

    while True:
        try:
            if (taken := await queue.take(holder)) is None:
                await asyncio.sleep(0.05)
                continue
            task_id, lease_id, number = taken
            write(taken=task_id, number=number)
            # Mostly work is quick; one in five sleeps over the end of its lease.
            await asyncio.sleep(randomness.uniform(0, 0.02) if randomness.random() > 0.2 else TTL_SECONDS * 1.5)
            for _ in range(2 if randomness.random() < 0.1 else 1):
                write(ended=task_id, number=number, accepted=await queue.give_back(lease_id, holder))
        except Unavailable as error:
            write(unavailable=str(error))


async def main(dsn: str, tenant: str, form: str, seed: str, log: str) -> None:
    pool = await asyncpg.create_pool(dsn, min_size=WORKERS, max_size=WORKERS) if form == "plain" else None
    with Path(log).open("a", encoding="utf-8") as file:
        queues: list[WorkQueue] = []
        for _ in range(WORKERS):
            # A connection each, as if each was a process: no statement is shared.
            database = await AsyncGateDatabase.connect(dsn, size=1, query_timeout=5) if pool is None else None
            queues.append(UncheckedQueue(pool) if database is None else LeasedQueue(database, UUID(tenant)))
        workers = (
            work(queue, file, f"worker-{seed}-{number}", random.Random(f"{seed}-{number}"))
            for number, queue in enumerate(queues)
        )
        await asyncio.gather(*workers)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
