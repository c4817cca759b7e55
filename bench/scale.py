"""`make bench-scale`: what a bootstrap costs with a thousand Bindings, a hundred thousand, and a million beside ten
million startup sessions.

The worlds are built by SQL, on disk, each in a PostgreSQL of its own with the same settings (128 MB of buffers: the
largest world is many times that). They are asked in turn, by API key with an Idempotency-Key, for principals spread
over the whole world. Every principal has a subject, as pods have; a tenth has an API key, all of which a process holds
in memory. Building takes minutes and several gigabytes: `--data` keeps it for the next run.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent))

import asyncpg
import console
import load
import machine
import setting

from legivellum.identity import api_keys

RESULTS = Path(__file__).resolve().parent / "results" / "scale.json"
ASKED = 1_000
"""Principals of each world that boot while it is measured."""


@dataclass(frozen=True, slots=True)
class ScaleSize:
    bindings: int
    startups: int

    @property
    def name(self) -> str:
        return f"{self.bindings:,} Bindings, {self.startups:,} startups"

    @property
    def tenants(self) -> int:
        return max(1, self.bindings // 1_000)


WORLDS = (ScaleSize(1_000, 0), ScaleSize(100_000, 100_000), ScaleSize(1_000_000, 10_000_000))

# The template is the one principal that was published.
PEOPLE = """
CREATE TEMP TABLE namespaces AS SELECT n, gen_random_uuid() AS tenant FROM generate_series(0, {tenants} - 1) AS n;
INSERT INTO metagate.tenant (tenant, namespace, created_at) SELECT tenant, 'scale-' || n, now() FROM namespaces;
CREATE TEMP TABLE people AS SELECT g.n, s.tenant, 'worker-' || g.n AS name
    FROM generate_series(1, {bindings}) AS g (n) JOIN namespaces AS s ON s.n = g.n % {tenants};
INSERT INTO metagate.principal (tenant, principal_key, type, scope, rights, suspended, generation, owner, content,
        revision)
    SELECT p.tenant, p.name, t.type, t.scope, t.rights, false, 1, gen_random_uuid(), t.content, t.revision
    FROM people AS p, (SELECT * FROM metagate.principal LIMIT 1) AS t;
INSERT INTO metagate.binding (tenant, principal_key, name, digest, components, sla_seconds, profile, manifest,
        generation, owner, content, revision, compiled_at)
    SELECT p.tenant, p.name, p.name, t.digest, t.components, t.sla_seconds, t.profile, t.manifest, 1, gen_random_uuid(),
        t.content, t.revision, t.compiled_at
    FROM people AS p, (SELECT * FROM metagate.binding LIMIT 1) AS t;
INSERT INTO metagate.subject (issuer, subject, tenant, principal_key, owner, content, revision)
    SELECT 'https://kubernetes.default.svc', 'system:serviceaccount:' || p.tenant || ':' || p.name, p.tenant, p.name,
        gen_random_uuid(), t.content, t.revision
    FROM people AS p, (SELECT * FROM metagate.principal LIMIT 1) AS t;
INSERT INTO metagate.api_key (sha256, key_id, tenant, principal_key, owner, content, revision)
    SELECT encode(sha256(('scale-' || p.n)::bytea), 'hex'), lpad(p.n::text, 10, '0'), p.tenant, p.name,
        gen_random_uuid(), t.content, t.revision
    FROM people AS p, (SELECT * FROM metagate.principal LIMIT 1) AS t WHERE p.n % 10 = 0;
"""

DAYS = """
DO $$ DECLARE day timestamptz; BEGIN
    FOR day IN SELECT date_trunc('day', now(), 'UTC') - make_interval(days => d) FROM generate_series(0, 3) AS d LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS metagate.%I PARTITION OF metagate.startup FOR VALUES FROM (%L) TO (%L) '
            'WITH (fillfactor = 80)', 'startup_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'),
            metagate.id_at(day), metagate.id_at(day + interval '1 day'));
    END LOOP;
END $$
"""

# The last 72 hours, oldest first; a session in a hundred never became ready.
SESSIONS = """
INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at,
    revision, late, status, principal_key, component_key, digest, pod_uid, pod_name, pod_node)
SELECT p.tenant, uuidv7(s.shift), uuidv7(s.shift), now() + s.shift, now() + s.shift + interval '2 min',
    CASE WHEN s.n % 100 > 0 THEN now() + s.shift + interval '7 s' END, b.compiled_at, b.revision,
    CASE WHEN s.n % 100 > 0 THEN false END, CASE WHEN s.n % 100 > 0 THEN 'READY' ELSE 'OPEN' END,
    p.name, 'indexer_1', b.digest, gen_random_uuid()::text, p.name || '-7d9c5b7f4-x2x7k', 'node-' || s.n % 1000
FROM (
    SELECT n, (n - {startups}) * (interval '72 hours' / {startups}) AS shift FROM generate_series({first}, {last}) AS n
) AS s
JOIN people AS p ON p.n = 1 + (s.n::bigint * 7919) % {bindings}
JOIN metagate.binding AS b ON b.tenant = p.tenant AND b.principal_key = p.name
"""

# Idempotency keys live for a day.
KEYS = """
INSERT INTO metagate.idempotency (tenant, principal_key, key, startup_id, packet_id, opened_at, deadline_at,
    compiled_at, revision, component_key, digest, pod_uid)
SELECT tenant, principal_key, md5(startup_id::text), startup_id, packet_id, opened_at, deadline_at, compiled_at,
    revision, component_key, digest, pod_uid
FROM metagate.startup WHERE startup_id > metagate.id_at(now() - interval '24 hours')
ORDER BY tenant, principal_key, md5(startup_id::text)
"""

SIZES = """
SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = 'metagate' AND c.relkind = 'r' AND c.relname ~ $1
"""


async def build(on: setting.BenchServer, world: ScaleSize) -> list[dict[str, str]]:
    """Fills the database; the principals that will be asked, with their keys."""
    await setting.publish(on, 1)
    connection = await asyncpg.connect(on.superuser)
    numbers: dict[str, Any] = {"tenants": world.tenants, "bindings": world.bindings, "startups": max(1, world.startups)}
    try:
        await connection.execute("SET synchronous_commit = off; SET work_mem = '256MB'; SET max_parallel_workers = 2")
        await connection.execute(PEOPLE.format(**numbers))
        await connection.execute("CREATE UNIQUE INDEX ON people (n); ANALYZE people; ANALYZE metagate.binding")
        await connection.execute(DAYS)
        for first in range(1, world.startups + 1, 500_000):
            last = min(first + 499_999, world.startups)
            await connection.execute(SESSIONS.format(**numbers, first=first, last=last))
            console.step(f"{world.name}: {last:,} startups")
        await connection.execute(KEYS)
        requests = await people_with_keys(connection, world)
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()
    return requests


async def people_with_keys(connection: asyncpg.Connection, world: ScaleSize) -> list[dict[str, str]]:
    step = max(1, world.bindings // ASKED)
    rows = await connection.fetch("SELECT tenant, name FROM people WHERE n % $1 = 0 ORDER BY n LIMIT $2", step, ASKED)
    keys = [api_keys.mint() for _ in rows]
    await connection.executemany(
        "INSERT INTO metagate.api_key (sha256, key_id, tenant, principal_key, owner, content, revision) "
        "VALUES ($1, $2, $3, $4, gen_random_uuid(), '', (SELECT max(revision) FROM metagate.revision))",
        [
            (key.sha256, api_keys.id_of(key.key.encode()), row["tenant"], row["name"])
            for key, row in zip(keys, rows, strict=True)
        ],
    )
    return [
        {"tenant": str(row["tenant"]), "name": row["name"], "key": key.key} for key, row in zip(keys, rows, strict=True)
    ]


async def sizes(on: setting.BenchServer) -> dict[str, float]:
    """Bytes per row with indexes, and all of it in gigabytes."""
    connection = await asyncpg.connect(on.superuser)
    try:
        result: dict[str, float] = {}
        for name, tables in (
            ("startup", "^startup_"),
            ("idempotency key", "^idempotency$"),
            ("principal, binding, subject", "^(principal|binding|subject)$"),
        ):
            table = {"startup": "startup", "idempotency key": "idempotency"}.get(name, "binding")
            rows = await connection.fetchval(f"SELECT count(*) FROM metagate.{table}")
            size = await connection.fetchval(SIZES, tables)
            result[name] = round(float(size) / rows) if rows else 0
        result["gigabytes"] = round(
            float(await connection.fetchval("SELECT pg_database_size(current_database())")) / 1e9, 2
        )
        return result
    finally:
        await connection.close()


def prepared(directory: Path, world: ScaleSize) -> tuple[setting.BenchServer, list[dict[str, str]], ExitStack]:
    """The world's server, built now unless it is there already."""
    stack = ExitStack()
    known = directory / f"{world.bindings}.json"
    if not known.exists():  # nothing there, or what was given up half-way
        shutil.rmtree(directory / str(world.bindings), ignore_errors=True)
    on = stack.enter_context(setting.base(directory / str(world.bindings)))
    if not known.exists():
        console.step(f"building {world.name}")
        known.write_text(json.dumps(asyncio.run(build(on, world))))
        known.chmod(0o600)
    return on, json.loads(known.read_text()), stack


def measured(directory: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    worlds = WORLDS[: arguments.worlds]
    with ExitStack() as stack:
        ports, requests, result = [], [], []
        for world in worlds:
            on, asked, kept = prepared(directory, world)
            stack.enter_context(kept)
            began = time.perf_counter()
            port, process = stack.enter_context(setting.served_process(on, workers=arguments.workers, patience=60))
            took = time.perf_counter() - began
            booters = [setting.BenchPrincipal(UUID(item["tenant"]), item["name"], item["key"]) for item in asked]
            ports.append(port)
            requests.append([booter.request(keyed=True) for booter in booters])
            load.drive("127.0.0.1", port, requests[-1], connections=64, seconds=1, sharing="turns")
            worker = max(machine.rss_megabytes(item) for item in (*machine.children(process), process))
            result.append(
                {
                    "name": world.name,
                    "bindings": world.bindings,
                    "startups": world.startups,
                    "ready_seconds": round(took, 1),
                    "worker_mb": round(worker),
                    "bytes_per_row": asyncio.run(sizes(on)),
                }
            )
        tallies: list[list[load.Tally]] = [[] for _ in worlds]
        for number in range(arguments.rounds):
            console.step(f"scale: round {number + 1} of {arguments.rounds}")
            for at, port in enumerate(ports):
                tally = load.drive(
                    "127.0.0.1",
                    port,
                    requests[at],
                    connections=64,
                    seconds=arguments.seconds,
                    warm=0.5,
                    sharing="turns",
                )
                assert set(tally.statuses) == {200}, tally.statuses
                tallies[at].append(tally)
        for at, item in enumerate(tallies):
            costs = [small.rate / tally.rate for small, tally in zip(tallies[0], item, strict=True)]
            result[at] |= {
                "per_second": round(statistics.median(tally.rate for tally in item)),
                "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in item), 2),
                "cost": round(statistics.median(costs), 2),
                "costs_by_round": [round(cost, 2) for cost in costs],
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="where the worlds are kept (default: nowhere, afterwards)")
    parser.add_argument("--worlds", type=int, default=len(WORLDS), help="only the smallest so many")
    parser.add_argument("--build", action="store_true", help="build, and measure nothing")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    directory = arguments.data or Path(tempfile.mkdtemp(prefix="metagate-scale-"))
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    try:
        if arguments.build:
            for world in WORLDS[: arguments.worlds]:
                prepared(directory, world)[2].close()
            return
        result = measured(directory, arguments)
    finally:
        if arguments.data is None:
            shutil.rmtree(directory, ignore_errors=True)
    RESULTS.parent.mkdir(exist_ok=True)
    of = {"workers": arguments.workers, "rounds": arguments.rounds, "seconds": arguments.seconds}
    RESULTS.write_text(json.dumps({"machine": machine.described(), **of, "worlds": result}, indent=2) + "\n")
    console.table(
        f"How large the world is, 64 connections, {arguments.rounds} rounds of {arguments.seconds} s",
        (
            "",
            "per second",
            "cost",
            "lowest",
            "highest",
            "p99 ms",
            "ready s",
            "worker MB",
            "GB on disk",
            "B per startup",
        ),
        [
            [
                item["name"],
                item["per_second"],
                item["cost"],
                float(min(item["costs_by_round"])),
                float(max(item["costs_by_round"])),
                item["p99_ms"],
                item["ready_seconds"],
                item["worker_mb"],
                item["bytes_per_row"]["gigabytes"],
                item["bytes_per_row"]["startup"],
            ]
            for item in result
        ],
    )


if __name__ == "__main__":
    main()
