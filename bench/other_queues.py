"""What else one can have on the same PostgreSQL: two plain statements in the shape of pgmq, procrastinate, pgqueuer.

Each gets a database of its own on the server of the benchmark, durable as it is; jobs do nothing. Two processes of 32
jobs at a time work a queue that is full, and two processes of 32 callers at a time fill one.
"""

import asyncio
import contextlib
import multiprocessing
import re
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import setting

CALLERS = 32
PROCESSES = 2
PAYLOAD = "s3://documents/4711"

PLAIN = """
CREATE TABLE queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, read_count integer NOT NULL DEFAULT 0,
    enqueued_at timestamptz NOT NULL DEFAULT clock_timestamp(), visible_at timestamptz NOT NULL, message jsonb NOT NULL
);
CREATE INDEX queue_visible ON queue (visible_at);
CREATE TABLE archive (
    id bigint PRIMARY KEY, read_count integer NOT NULL, enqueued_at timestamptz NOT NULL,
    archived_at timestamptz NOT NULL DEFAULT clock_timestamp(), visible_at timestamptz NOT NULL, message jsonb NOT NULL
);
"""
# Two statements and two commits for a message, as pgmq.read and pgmq.archive have them.
PLAIN_PAIR = """
WITH next AS (
    SELECT id FROM queue WHERE visible_at <= clock_timestamp() ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE queue AS q SET visible_at = clock_timestamp() + interval '60 s', read_count = read_count + 1
FROM next WHERE q.id = next.id RETURNING q.id AS message \\gset
WITH taken AS (DELETE FROM queue WHERE id = :message RETURNING id, read_count, enqueued_at, visible_at, message)
INSERT INTO archive (id, read_count, enqueued_at, visible_at, message) SELECT * FROM taken;
"""
PLAIN_FILL = """
INSERT INTO queue (visible_at, message)
SELECT clock_timestamp(), jsonb_build_object('pointer', $2::text) FROM generate_series(1, $1)
"""


@contextlib.contextmanager
def database(on: setting.BenchServer, name: str) -> Iterator[str]:
    """A database of the superuser; its DSN."""

    async def run(statement: str) -> None:
        connection = await asyncpg.connect(on.superuser)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name}"))
    try:
        yield on.postgres.dsn("postgres", database=name)
    finally:
        asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


async def execute(dsn: str, statement: str, *values: object) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement, *values)
    finally:
        await connection.close()


def plain_script() -> Path:
    path = Path(tempfile.mkdtemp(prefix="queue-pgbench-")) / "pair.sql"
    path.write_text("\n".join(re.sub(r"\n(?!WITH taken)", " ", part) for part in [PLAIN_PAIR.strip()]).strip() + "\n")
    return path


def fill_plain(dsn: str, jobs: int) -> None:
    asyncio.run(execute(dsn, PLAIN_FILL, jobs, PAYLOAD))


def pgbench(
    on: setting.BenchServer, dsn: str, script: Path, *, connections: int, transactions: int
) -> tuple[float, float]:
    """Scripts per second, and the average milliseconds of one."""
    command = [str(setting._binary(on)), "-n", "-M", "prepared", "-c", str(connections), "-j", str(min(2, connections))]  # noqa: SLF001
    completed = subprocess.run(
        [*command, "-t", str(transactions // connections), "-f", str(script), dsn],
        check=False,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr[-2_000:]
    rate = re.search(r"tps = ([\d.]+)", completed.stdout)
    latency = re.search(r"latency average = ([\d.]+)", completed.stdout)
    assert rate is not None, completed.stdout
    assert latency is not None, completed.stdout
    return float(rate[1]), float(latency[1])


Part = Callable[[str, int], Awaitable[None]]


def _run(part: Part, dsn: str, jobs: int) -> tuple[float, float]:
    """When it began and ended."""

    async def timed() -> tuple[float, float]:
        began = time.time()
        await part(dsn, jobs)
        return began, time.time()

    return asyncio.run(timed())


def rate_of(part: Part, dsn: str, jobs: int) -> float:
    """Jobs per second of two processes, from the first that begins to the last that ends."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * PROCESSES))
        spans = list(pool.map(_run, [part] * PROCESSES, [dsn] * PROCESSES, [jobs // PROCESSES] * PROCESSES))
    return jobs / (max(end for _, end in spans) - min(start for start, _ in spans))


async def callers(call: Callable[[], Awaitable[Any]], jobs: int) -> None:
    """So many calls, by `CALLERS` at a time."""
    left = iter(range(jobs))

    async def some() -> None:
        for _ in left:
            await call()

    await asyncio.gather(*(some() for _ in range(CALLERS)))


# ── procrastinate ────────────────────────────────────────────────────────────────────────────────────────────────────


def _procrastinate(dsn: str) -> Any:
    import procrastinate

    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn, min_size=4, max_size=CALLERS))

    @app.task(name="nothing")
    async def nothing(pointer: str) -> None:
        pass

    return app


async def procrastinate_install(dsn: str) -> None:
    app = _procrastinate(dsn)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def procrastinate_fill(dsn: str, jobs: int) -> None:
    app = _procrastinate(dsn)
    async with app.open_async():
        for at in range(0, jobs, 1_000):
            await app.tasks["nothing"].batch_defer_async(*[{"pointer": PAYLOAD}] * min(1_000, jobs - at))


async def procrastinate_enqueue(dsn: str, jobs: int) -> None:
    app = _procrastinate(dsn)
    async with app.open_async():
        await callers(lambda: app.tasks["nothing"].defer_async(pointer=PAYLOAD), jobs)


async def procrastinate_work(dsn: str, _jobs: int) -> None:
    app = _procrastinate(dsn)
    async with app.open_async():
        await app.run_worker_async(
            wait=False, concurrency=CALLERS, install_signal_handlers=False, listen_notify=False, delete_jobs="never"
        )


# ── pgqueuer ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def _pgqueuer(dsn: str) -> Any:
    import pgqueuer

    async with asyncpg.create_pool(dsn, min_size=4, max_size=CALLERS) as pool:
        yield pgqueuer.AsyncpgPoolDriver(pool)


async def pgqueuer_install(dsn: str) -> None:
    import pgqueuer

    async with _pgqueuer(dsn) as driver:
        await pgqueuer.Queries(driver).install()


async def pgqueuer_fill(dsn: str, jobs: int) -> None:
    import pgqueuer

    async with _pgqueuer(dsn) as driver:
        queries = pgqueuer.Queries(driver)
        for at in range(0, jobs, 1_000):
            number = min(1_000, jobs - at)
            await queries.enqueue(["nothing"] * number, [PAYLOAD.encode()] * number, [0] * number)


async def pgqueuer_enqueue(dsn: str, jobs: int) -> None:
    import pgqueuer

    async with _pgqueuer(dsn) as driver:
        queries = pgqueuer.Queries(driver)
        await callers(lambda: queries.enqueue("nothing", PAYLOAD.encode()), jobs)


async def pgqueuer_work(dsn: str, _jobs: int) -> None:
    import pgqueuer
    from pgqueuer.types import QueueExecutionMode

    async with _pgqueuer(dsn) as driver:
        manager = pgqueuer.QueueManager(pgqueuer.Queries(driver))

        @manager.entrypoint("nothing")
        async def nothing(job: Any) -> None:
            pass

        await manager.run(
            batch_size=CALLERS,
            mode=QueueExecutionMode.drain,
            dequeue_timeout=timedelta(seconds=1),
            max_concurrent_tasks=2 * CALLERS,
        )


PACKAGES: dict[str, dict[str, Any]] = {
    "procrastinate": {
        "install": procrastinate_install,
        "fill": procrastinate_fill,
        "enqueue": procrastinate_enqueue,
        "work": procrastinate_work,
    },
    "pgqueuer": {
        "install": pgqueuer_install,
        "fill": pgqueuer_fill,
        "enqueue": pgqueuer_enqueue,
        "work": pgqueuer_work,
    },
}


def measured_package(on: setting.BenchServer, name: str, *, jobs: int, round_number: int) -> dict[str, float]:
    """Jobs worked and jobs enqueued per second, in a new database."""
    part = PACKAGES[name]
    with database(on, f"{name}_{round_number}") as dsn:
        asyncio.run(part["install"](dsn))
        asyncio.run(part["fill"](dsn, jobs))
        asyncio.run(execute(dsn, "VACUUM ANALYZE"))
        worked = rate_of(part["work"], dsn, jobs)
        enqueued = rate_of(part["enqueue"], dsn, jobs)
    return {"pairs": worked, "enqueues": enqueued}


def measured_plain(on: setting.BenchServer, *, jobs: int, round_number: int, connections: int) -> dict[str, float]:
    """Messages per second by pgbench, and the milliseconds of one alone."""
    with database(on, f"plain_queue_{round_number}") as dsn:
        asyncio.run(execute(dsn, PLAIN))
        alone = 500
        fill_plain(dsn, jobs + alone + connections)
        asyncio.run(execute(dsn, "VACUUM ANALYZE"))
        script = plain_script()
        rate, _ = pgbench(on, dsn, script, connections=connections, transactions=jobs)
        _, milliseconds = pgbench(on, dsn, script, connections=1, transactions=alone)
    return {"pairs": rate, "alone_ms": milliseconds}
