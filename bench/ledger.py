"""`make bench-ledger`: what a receipt costs beside pgbench, a page of a long inbox beside a short one, how fast the
relay drains.

Every figure is a ratio of two things measured in one run on one database, with durable commits. The reference of the
first is one prepared statement that inserts the same three rows without asking anything.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

sys.path.insert(0, str(Path(__file__).resolve().parent))

import asyncpg
import load
import setting
import uvloop
from ulid import ULID

from legivellum.gate.cursors import encode_time
from legivellum.identity import api_keys
from memorygate.schema import WRITER, migrate_ledger
from metagate_operator.ledger.ledger_client import HttpLedgerClient, LedgerAccess
from metagate_operator.ledger.relay import DRAINERS, Relay, RelayPace
from metagate_store.outbox import OutboxStore
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, TenantRow

RESULTS = Path(__file__).resolve().parent / "results"
SERVE = "from memorygate.main import main; main()"
COUNTER = itertools.count()


@dataclass(frozen=True, slots=True)
class BenchEmitter:
    tenant: UUID
    name: str
    type: str
    rights: tuple[str, ...] = ()
    key: str = ""


def ledger_principal(name: str, kind: str, *rights: str) -> BenchEmitter:
    return BenchEmitter(uuid4(), name, kind, rights, api_keys.mint().key)


async def publish(on: setting.BenchServer, *people: BenchEmitter) -> None:
    publisher = await Publisher.open(on.publisher)
    await publisher.load()
    principal = [{"tenant": str(person.tenant), "principal_key": person.name} for person in people]
    rows = setting._row  # noqa: SLF001 - the benchmark's own
    await publisher.publish(
        Change(
            tenants=[
                TenantRow(tenant, f"bench-{name}", datetime.now(UTC))
                for tenant, name in {person.tenant: person.name for person in people}.items()
            ],
            upserts={
                "principal": [
                    rows(
                        **at, type=item.type, scope="Namespace", rights=list(item.rights), suspended=False, generation=1
                    )
                    for item, at in zip(people, principal, strict=True)
                ],
                "api_key": [
                    rows(
                        sha256=api_keys.digest_of(item.key),
                        key_id=api_keys.id_of(item.key.encode()),
                        expires_at=None,
                        **at,
                    )
                    for item, at in zip(people, principal, strict=True)
                ],
            },
        )
    )
    await publisher.close()


@contextlib.contextmanager
def served(on: setting.BenchServer, writer: str, *, workers: int) -> Iterator[int]:
    port = setting.free_port()
    environ = {
        **os.environ,  # noqa: TID251
        "MEMORYGATE_DATABASE_URL": writer,
        "MEMORYGATE_IDENTITY_DATABASE_URL": on.postgres.dsn("metagate_identity"),
        "MEMORYGATE_PORT": str(port),
        "MEMORYGATE_WORKERS": str(workers),
        "MEMORYGATE_RATE_PER_SECOND": "0",
    }
    process = subprocess.Popen([sys.executable, "-c", SERVE, "serve"], env=environ, stderr=subprocess.DEVNULL)
    try:
        setting._until_ready(port, process)  # noqa: SLF001
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def ulid_prefix() -> str:
    return str(ULID())[:10]


class ReceiptConnection(load.LoadConnection):
    """Every receipt is a new one. `root`: one task for all, or each its own.

    What it sends is written once and only numbered afterwards: the load shares the machine with what it measures.
    """

    def __init__(self, principal: BenchEmitter, root: str | None, *rest: object) -> None:
        super().__init__(b"", *rest)  # type: ignore[arg-type]
        receipt = {
            "receipt_id": f"{ulid_prefix()}%016d",
            "task_id": root or "t%016d",
            "obligation_id": "o%016d",
            "phase": "accepted",
            "principal_ai": principal.name,
            "task_type": "index",
            "task_summary": "index a document",
            "created_at": "2027-01-01T00:00:00Z",
            "metadata": {"component": "indexer_1", "attempt": 1},
        }
        body = json.dumps(receipt).encode()
        self.numbers = body.count(b"%016d")
        self.template = (
            b"POST /receipts HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s"
            % (principal.key.encode(), len(body) + self.numbers * (16 - len(b"%016d")), body)
        )

    def ask(self) -> None:
        self.request = self.template % ((next(COUNTER),) * self.numbers)
        super().ask()


def emit(port: int, principal: BenchEmitter, root: str | None, *, connections: int, seconds: float) -> load.Tally:
    async def drive() -> load.Tally:
        loop = asyncio.get_running_loop()
        tally = load.Tally(seconds=seconds)
        start = time.perf_counter() + 0.5
        finished = []
        for _ in range(connections):
            done = loop.create_future()
            await loop.create_connection(
                lambda done=done: ReceiptConnection(principal, root, tally, start + seconds, start, done),
                "127.0.0.1",
                port,
            )
            finished.append(done)
        await asyncio.gather(*finished)
        return tally

    tally = uvloop.run(drive())
    # A machine that others use too may make an answer late; that is a 503, and it is counted as nothing.
    assert set(tally.statuses) <= {201, 503}, tally.statuses
    assert tally.statuses.get(503, 0) <= 0.01 * tally.statuses[201], tally.statuses
    return tally


# What one stored receipt writes, by one prepared statement and without a question: the physical limit of the same rows.
INSERT = """
WITH new AS (SELECT '{prefix}' || upper(substr(md5(random()::text), 1, 16)) AS id, md5(random()::text) AS task), r AS (
    INSERT INTO memorygate.receipt (
        tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by, body,
        digest, previous, chain)
    SELECT '{tenant}', id, clock_timestamp(), 'obligation', 'accepted', task, task, 1, task, NULL, E'{body}',
           decode('{hash}', 'hex'), decode('{hash}', 'hex'), decode('{hash}', 'hex') FROM new
), t AS (
    INSERT INTO memorygate.task (tenant, task_id, root_task_id, length, head)
    SELECT '{tenant}', task, task, 1, decode('{hash}', 'hex') FROM new
)
INSERT INTO memorygate.obligation (
    tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at, moved_by, custody_at)
SELECT '{tenant}', 'obligation', task, task, 'bench', 'bench', 'open', id, clock_timestamp(), id, clock_timestamp()
FROM new;
"""


def pgbench(on: setting.BenchServer, body: str, *, connections: int, seconds: int) -> float:
    script = Path(tempfile.mkdtemp(prefix="ledger-pgbench-")) / "insert.sql"
    script.write_text(
        INSERT.format(prefix=ulid_prefix(), tenant=uuid4(), body=body.replace(":", "\\x3a"), hash="ab" * 32).replace(
            "\n", " "
        )
    )
    command = [str(setting._binary(on)), "-n", "-M", "prepared", "-c", str(connections), "-j", "2", "-T", str(seconds)]  # noqa: SLF001
    database = on.superuser.replace("/postgres?", "/metagate?")
    done = subprocess.run([*command, "-f", str(script), database], check=True, capture_output=True, text=True)
    return float(re.search(r"tps = ([\d.]+)", done.stdout)[1])


async def fetch(on: setting.BenchServer, query: str, *args: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(on.superuser.replace("/postgres?", "/metagate?"))
    try:
        return await connection.fetch(query, *args)
    finally:
        await connection.close()


def posts(
    on: setting.BenchServer, writer: str, principal: BenchEmitter, arguments: argparse.Namespace
) -> dict[str, object]:
    spread, single, reference = [], [], []
    seconds, connections = arguments.seconds, arguments.connections
    with served(on, writer, workers=arguments.workers) as port:
        emit(port, principal, None, connections=connections, seconds=1)
        [row] = asyncio.run(fetch(on, "SELECT body FROM memorygate.receipt LIMIT 1"))
        for n in range(arguments.rounds):
            before = asyncio.run(fetch(on, "SELECT sum(receipts) FROM memorygate.tally"))[0][0]
            tally = emit(port, principal, None, connections=connections, seconds=seconds)
            after = asyncio.run(fetch(on, "SELECT sum(receipts) FROM memorygate.tally"))[0][0]
            assert after - before >= tally.statuses[201], "an answer without a row"
            spread.append(tally)
            reference.append(pgbench(on, row[0], connections=connections, seconds=int(seconds)))
            single.append(emit(port, principal, f"root{n}", connections=connections, seconds=seconds))

    def rate(tallies: list[load.Tally]) -> float:
        return statistics.median(tally.statuses[201] / tally.seconds for tally in tallies)

    limit = statistics.median(reference)
    return {
        "posts_per_second": round(rate(spread)),
        "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in spread), 1),
        "single_root_per_second": round(rate(single)),
        "pgbench_per_second": round(limit),
        "ratio": round(rate(spread) / limit, 2),
        "single_root_ratio": round(rate(single) / limit, 2),
        "late": sum(tally.statuses.get(503, 0) for tally in (*spread, *single)),
        "wanted": 0.6,
    }


# One row of the ledger and one obligation for each number: what `append` leaves behind of an accepted receipt, all but
# every `$5`th obligation closed. A second of ledger time apart, so that the rows lie in several months.
FILL = """
WITH made AS (
    SELECT left(ulid_floor(now() + $1 * interval '1 second'), 10) || lpad(n::text, 16, '0') AS id, 'fill-' || n AS task,
           n % $5 = 0 AS open, now() + n * interval '1 second' AS at
    FROM generate_series($1::bigint, $2::bigint) AS n
), r AS (
    INSERT INTO receipt (
        tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by, body,
        digest, previous, chain)
    SELECT $3::text::uuid, id, at, 'obligation', 'accepted', task, task, 1, task, NULL, $4,
           decode($6, 'hex'), decode($6, 'hex'), decode($6, 'hex') FROM made
)
INSERT INTO obligation (
    tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at, moved_by, custody_at,
    closed_by, closed_at)
SELECT $3::text::uuid, 'obligation', task, task, 'bench', 'bench', CASE WHEN open THEN 'open' ELSE 'success' END, id,
       at, id, at, CASE WHEN open THEN NULL ELSE id END, CASE WHEN open THEN NULL ELSE at END
FROM made
"""
MIDDLE = """
SELECT custody_at, obligation_id FROM memorygate.obligation
WHERE state = 'open' AND tenant = $1 AND custodian = 'bench' AND kind = 'obligation'
ORDER BY custody_at, obligation_id OFFSET $2 LIMIT 1
"""
FILLERS = 2
ROWS_AT_ONCE = 50_000


async def fill(on: setting.BenchServer, tenant: UUID, body: str, last: int, *, still_open: int) -> None:
    numbers = iter(range(1, last + 1, ROWS_AT_ONCE))

    async def some() -> None:
        connection = await asyncpg.connect(on.superuser.replace("/postgres?", "/metagate?"))
        try:
            await connection.execute("SET search_path = memorygate; SET synchronous_commit = off")
            for at in numbers:
                to = min(at + ROWS_AT_ONCE - 1, last)
                await connection.execute(FILL, at, to, str(tenant), body, last // still_open, "cd" * 32)
        finally:
            await connection.close()

    await asyncio.gather(*(some() for _ in range(FILLERS)))


@contextlib.asynccontextmanager
async def bare(on: setting.BenchServer) -> AsyncIterator[None]:
    """Without the indexes that no constraint needs, which are built again afterwards: filling takes a third of the
    time, and the same rows are indexed by the same definitions.
    """
    connection = await asyncpg.connect(on.superuser.replace("/postgres?", "/metagate?"))
    try:
        indexes = await connection.fetch(
            "SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition "
            "FROM pg_index AS i WHERE NOT i.indisunique "
            "AND i.indrelid IN ('memorygate.receipt'::regclass, 'memorygate.obligation'::regclass)"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['name']}")
        yield
        await connection.execute("SET maintenance_work_mem = '1GB'")
        for index in indexes:
            await connection.execute(index["definition"].replace(" ON ONLY ", " ON "))
        await connection.execute("ANALYZE memorygate.receipt; ANALYZE memorygate.obligation; CHECKPOINT")
    finally:
        await connection.close()


async def two_inboxes(
    on: setting.BenchServer, few: BenchEmitter, many: BenchEmitter, arguments: argparse.Namespace
) -> None:
    [row] = await fetch(on, "SELECT body FROM memorygate.receipt LIMIT 1")
    async with bare(on):
        await fill(on, few.tenant, row[0], 1_000, still_open=1_000)
        await fill(on, many.tenant, row[0], arguments.receipts, still_open=arguments.open)


def inbox(on: setting.BenchServer, writer: str, arguments: argparse.Namespace) -> dict[str, object]:
    """p99 of a page at few and at many; a page in the middle of the many too."""
    few, many = ledger_principal("bench", "principal"), ledger_principal("bench", "principal")
    asyncio.run(publish(on, few, many))
    started = time.perf_counter()
    asyncio.run(two_inboxes(on, few, many, arguments))
    filling = time.perf_counter() - started

    def page(principal: BenchEmitter, query: str = "") -> bytes:
        return f"GET /inbox{query} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {principal.key}\r\n\r\n".encode()

    [half] = asyncio.run(fetch(on, MIDDLE, many.tenant, arguments.open // 2))
    cursor = encode_time(f"inbox/{many.tenant}/{many.name}/obligation", half[0], half[1])
    requests = {"few": page(few), "many": page(many), "middle": page(many, f"?cursor={cursor}")}
    times: dict[str, list[float]] = {name: [] for name in requests}
    with served(on, writer, workers=arguments.workers) as port:
        for _ in range(arguments.rounds + 1):
            for name, request in requests.items():
                tally = load.drive("127.0.0.1", port, [request], connections=4, seconds=2, warm=0.5)
                assert set(tally.statuses) == {200}, tally.statuses
                times[name].append(tally.quantile(0.99))
    small, large, middle = (statistics.median(times[name]) for name in requests)
    return {
        "open": arguments.open,
        "receipts": arguments.receipts,
        "filled_in_seconds": round(filling),
        "p99_ms_at_1000": round(small, 1),
        "p99_ms": round(large, 1),
        "p99_ms_in_the_middle": round(middle, 1),
        "ratio": round(max(large, middle) / small, 2),
        "wanted": 2.0,
    }


def relay(
    on: setting.BenchServer, writer: str, witness: BenchEmitter, arguments: argparse.Namespace
) -> dict[str, object]:
    """Startups opened while nobody relays, and the time until the outbox is empty at full speed. Then bootstraps beside
    no relay, one at the pace it has by default, and one at full speed, by turns; new startups keep it busy.
    """
    booters = asyncio.run(setting.publish(on, 64))
    requests = [booter.request() for booter in booters]
    key = Path(tempfile.mkdtemp(prefix="ledger-bench-")) / "key"
    key.write_text(witness.key)
    paces: dict[str, float | None] = {"alone": None, "gentle": RelayPace().rest, "full": 0.0}
    p99: dict[str, list[float]] = {name: [] for name in paces}
    delivered: dict[str, list[float]] = {name: [] for name in paces}
    with setting.served(on, workers=1, METAGATE_LEDGER_URL="http://mirrored") as api:
        load.drive("127.0.0.1", api, requests, connections=64, seconds=arguments.seconds * 2)
        waiting = asyncio.run(fetch(on, WAITING))[0][0]
        with served(on, writer, workers=arguments.workers) as port:
            access = LedgerAccess(f"http://127.0.0.1:{port}", api_key_file=key)
            took = asyncio.run(_drain(on, access, time.perf_counter()))
            load.drive("127.0.0.1", api, requests, connections=64, seconds=arguments.seconds * 2)
            for _ in range(arguments.rounds):
                for name, rest in paces.items():
                    with relaying(on, access.url, key, rest):
                        before = asyncio.run(fetch(on, DELIVERED))[0][0]
                        tally = load.drive("127.0.0.1", api, requests, connections=8, seconds=4)
                        after = asyncio.run(fetch(on, DELIVERED))[0][0]
                    p99[name].append(tally.quantile(0.99))
                    delivered[name].append((after - before) / 5)
    quiet, gentle, full = (statistics.median(p99[name]) for name in paces)
    return {
        "startups": waiting,
        "startups_per_second": round(waiting / took),
        "bootstrap_p99_ms": round(quiet, 1),
        "bootstrap_p99_ms_at_default_pace": round(gentle, 1),
        "bootstrap_p99_ms_at_full_speed": round(full, 1),
        "startups_per_second_at_default_pace_beside_bootstraps": round(statistics.median(delivered["gentle"])),
        "startups_per_second_at_full_speed_beside_bootstraps": round(statistics.median(delivered["full"])),
        "ratio": round(gentle / quiet, 2),
        "ratio_at_full_speed": round(full / quiet, 2),
        "wanted": {"startups_per_second": 5_000, "ratio": 1.15},
    }


WAITING = "SELECT count(*) FROM metagate.outbox WHERE event = 'OPEN'"
DELIVERED = "SELECT coalesce(sum(startups), 0)::bigint FROM memorygate.tally"


@contextlib.contextmanager
def relaying(on: setting.BenchServer, url: str, key: Path, rest: float | None) -> Iterator[None]:
    """A relay in a process of its own that rests so much; none for None."""
    if rest is None:
        yield
        return
    process = subprocess.Popen(
        [sys.executable, __file__, "--relay", on.publisher, url, str(key), str(rest)], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(1)  # what starting a process costs is not what is measured
        yield
    finally:
        process.kill()
        process.wait()


async def _drain(on: setting.BenchServer, access: LedgerAccess, started: float) -> float:
    outboxes = [OutboxStore(on.publisher) for _ in range(DRAINERS)]
    pace = RelayPace(rows=256, rest=0, idle_seconds=0.01)
    work = asyncio.create_task(Relay(outboxes, HttpLedgerClient(access), pace=pace).run())
    counting = await asyncpg.connect(on.superuser.replace("/postgres?", "/metagate?"))
    try:
        while await counting.fetchval("SELECT EXISTS (SELECT FROM metagate.outbox)"):
            await asyncio.sleep(0.1)
        return time.perf_counter() - started
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await counting.close()
        for outbox in outboxes:
            await outbox.close()


async def _relay_for_ever(publisher: str, url: str, key: str, rest: str) -> None:
    access = LedgerAccess(url, api_key_file=Path(key))
    outboxes = [OutboxStore(publisher) for _ in range(DRAINERS)]
    pace = RelayPace(rest=float(rest)) if float(rest) else RelayPace(rows=256, rest=0)
    await Relay(outboxes, HttpLedgerClient(access), pace=pace).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--relay", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--receipts", type=int, default=10_000_000, help="in the ledger of the long inbox")
    parser.add_argument("--open", type=int, default=1_000_000, help="of them open")
    parser.add_argument("--only", choices=["posts", "inbox", "relay"])
    arguments = parser.parse_args()
    if arguments.relay:
        asyncio.run(_relay_for_ever(*arguments.relay))
    result: dict[str, object] = {}
    with setting.base() as on:
        word = "of-the-benchmark"
        asyncio.run(migrate_ledger(on.postgres.dsn(), passwords={WRITER: word}))
        before, _, after = on.postgres.dsn().partition("@")
        writer = f"{before.partition('://')[0]}://{WRITER}:{word}@{after}"
        emitter, witness = ledger_principal("bench", "principal"), ledger_principal("metagate", "service", "witness")
        asyncio.run(publish(on, emitter, witness))
        if arguments.only in {None, "posts"}:
            result["posts"] = posts(on, writer, emitter, arguments)
            print(json.dumps(result["posts"]), flush=True)
        else:
            with served(on, writer, workers=1) as port:
                emit(port, emitter, None, connections=1, seconds=0.2)
        if arguments.only in {None, "relay"}:
            result["relay"] = relay(on, writer, witness, arguments)
            print(json.dumps(result["relay"]), flush=True)
        if arguments.only in {None, "inbox"}:
            result["inbox"] = inbox(on, writer, arguments)
            print(json.dumps(result["inbox"]), flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "ledger.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
