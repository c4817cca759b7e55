"""`make bench-asking`: how long people wait for answers about a large world.

10,000 Bindings of 10,000 Principals that share a Profile and a Manifest are declared as files and served by `metagate
dev` on a durable database; ten million startups of the last three days are added by SQL. Then the Manifest is changed
in a copy of the files: `metagate plan` against the files and against the running server, as processes, wall time.
And `GET /v1/admin/explain/startup/ID` of startups spread over all of them, and the pages of the console, one after the
other.

Building takes minutes and four gigabytes; nothing of it stays.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apply
import asyncpg
import browsing
import console
import httpx
import machine
import scale
import setting

from legivellum.identity.api_keys import MintedKey, mint

BINDINGS = 10_000
LOOKS = 12
PAGES = {
    "Overview": "/console",
    "Startups": "/console/startups",
    "Startups, failed ones": "/console/startups?status=FAILED",
    "Principals": "/console/principals",
    "One principal": "/console/principals/p4711",
    "Search": "/console/search?q=p47",
    "History": "/console/history",
    "Topology": "/console/topology",
}
RESULTS = Path(__file__).resolve().parent / "results" / "asking.json"

STARTUPS = """
INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at,
    revision, late, status, principal_key, component_key, digest)
SELECT b.tenant, uuidv7(s.shift), uuidv7(s.shift), now() + s.shift, now() + s.shift + interval '2 min',
    now() + s.shift + interval '7 s', b.compiled_at, b.revision, false, 'READY', b.principal_key, 'indexer_1', b.digest
FROM (
    SELECT n, (n - $3::bigint) * (interval '71 hours' / $3::bigint) AS shift
    FROM generate_series($1::bigint, $2::bigint) AS n
) AS s
JOIN people AS b ON b.n = 1 + (s.n * 7919) % $4::bigint
"""


def declare(folder: Path, admin: MintedKey) -> None:
    """A hundred files of a hundred principals with their Bindings each, and the two that all of them share."""
    folder.mkdir(parents=True)
    (folder / "profile.yaml").write_text(apply.document("Profile", "worker", {"capabilities": {"read": True}}))
    (folder / "manifest.yaml").write_text(apply.manifest("eu"))
    keys = [{"id": admin.id, "sha256": admin.sha256}]
    (folder / "admin.yaml").write_text(apply.document("Principal", "admin", {"type": "admin", "apiKeys": keys}))
    for first in range(0, BINDINGS, 100):
        names = [f"p{number}" for number in range(first, first + 100)]
        text = [apply.document("Principal", name, {"type": "component"}) for name in names]
        (folder / f"people-{first:05}.yaml").write_text("---\n".join([*text, *map(apply.binding, names)]))


async def fill(on: setting.BenchServer, startups: int) -> None:
    connection = await asyncpg.connect(on.superuser)
    try:
        while await connection.fetchval("SELECT count(*) FROM metagate.binding") < BINDINGS:
            await asyncio.sleep(0.5)
        await connection.execute("SET synchronous_commit = off; SET work_mem = '256MB'")
        await connection.execute(
            "CREATE TEMP TABLE people AS SELECT row_number() OVER () AS n, * FROM metagate.binding; ANALYZE people"
        )
        await connection.execute(scale.DAYS)
        for first in range(1, startups + 1, 500_000):
            last = min(first + 499_999, startups)
            await connection.execute(STARTUPS, first, last, startups, BINDINGS)
            console.step(f"{last:,} startups")
        await connection.execute("VACUUM ANALYZE metagate.startup")
    finally:
        await connection.close()


async def some(on: setting.BenchServer, number: int, *, startups: int) -> list[str]:
    """Ids of startups, from every hour of the three days."""
    connection = await asyncpg.connect(on.superuser)
    try:
        share = min(100.0, 500_000 / startups)  # percent: some thousands of ten million
        rows = await connection.fetch(f"SELECT startup_id FROM metagate.startup TABLESAMPLE SYSTEM ({share})")
        return [str(row[0]) for row in random.sample(rows, min(number, len(rows)))]
    finally:
        await connection.close()


async def explained(url: str, key: str, ids: list[str]) -> list[float]:
    """Milliseconds of each answer, one after the other."""
    took = []
    async with httpx.AsyncClient(base_url=url, headers={"X-API-Key": key}, timeout=10) as client:
        for item in ids:
            began = time.perf_counter()
            answer = await client.get(f"/v1/admin/explain/startup/{item}")
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
    return took


async def pages(url: str, key: str, startup: str) -> list[dict[str, Any]]:
    """Each page as somebody sees it who has signed in: milliseconds, over HTTP."""
    cookie = await asyncio.to_thread(browsing.signed_in, httpx.URL(url).port or 80, key)
    result = []
    async with httpx.AsyncClient(base_url=url, headers={"Cookie": cookie}, timeout=10) as client:
        for name, path in {**PAGES, "One startup": f"/console/startups/{startup}"}.items():
            took = []
            for _ in range(LOOKS):
                began = time.perf_counter()
                answer = await client.get(path)
                took.append((time.perf_counter() - began) * 1000)
                assert answer.status_code == 200, (path, answer.status_code)
                await asyncio.sleep(0.1)
            result.append(
                {"page": name, "median_ms": round(statistics.median(took), 1), "worst_ms": round(max(took), 1)}
            )
    return result


def planned(*arguments: str, key_file: Path) -> float:
    """Seconds of one `metagate plan`."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "metagate_cli.main", "plan", *arguments, "-o", "json"],
        env={**os.environ, "METAGATE_API_KEY_FILE": str(key_file), "METAGATE_URL": ""},  # noqa: TID251
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    took = time.perf_counter() - began
    assert done.returncode == 2, done.stderr
    [effect] = json.loads(done.stdout)["effects"]
    assert effect["count"] == BINDINGS
    return took


async def measured(on: setting.BenchServer, folder: Path, *, startups: int, rounds: int) -> dict[str, Any]:
    key_file = folder / "admin.key"
    async with apply.dev(folder / "resources", folder / "data", "--database-url", on.postgres.dsn(tcp=True)) as url:
        await fill(on, startups)
        key = key_file.read_text()
        ids = await some(on, 400, startups=startups)
        await explained(url, key, ids[:50])
        took = await explained(url, key, ids[50:])
        draft = folder / "draft"
        shutil.copytree(folder / "resources", draft, dirs_exist_ok=True)
        (draft / "manifest.yaml").write_text(apply.manifest("north"))
        now = str(folder / "resources")
        # in a thread: this loop goes on reading what the server says, which would wait otherwise
        files = [
            await asyncio.to_thread(planned, str(draft), "--against", now, key_file=key_file) for _ in range(rounds)
        ]
        console_pages = await pages(url, key, ids[0])
        server = [await asyncio.to_thread(planned, str(draft), "--url", url, key_file=key_file) for _ in range(rounds)]
    return {
        "bindings": BINDINGS,
        "startups": startups,
        "explain_startup_p50_ms": round(statistics.median(took), 1),
        "explain_startup_p99_ms": round(statistics.quantiles(took, n=100)[98], 1),
        "explain_startup_max_ms": round(max(took), 1),
        "plan_files_seconds": round(statistics.median(files), 2),
        "plan_server_seconds": round(statistics.median(server), 2),
        "pages": console_pages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--startups", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="metagate-asking-"))
    folder.chmod(0o755)
    admin = mint()
    declare(folder / "resources", admin)
    (folder / "admin.key").write_text(admin.key)
    try:
        with setting.base(folder / "database") as on:
            completed = asyncio.run(measured(on, folder, startups=arguments.startups, rounds=arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine.described(), **completed}, indent=2) + "\n")
    shown = completed.pop("pages")
    console.table("Asking about a large world", ("", "figure"), [list(pair) for pair in completed.items()])
    console.table("Pages of the console", ("", "median ms", "worst ms"), [list(item.values()) for item in shown])


if __name__ == "__main__":
    main()
