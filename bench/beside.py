"""What else a pod and an administrator ask, beside the bootstraps of the same run (part of `make bench FULL=1`).

- a bootstrap whose packet is known already: 304 instead of 200, and the row all the same;
- ready and failed: one conditional update each, a durable commit like a bootstrap's;
- an administrator who reads without a pause while pods boot, and what that costs the pods;
- people who watch the overview of the console, whose open page fetches itself again once in ten seconds at most.
"""

import argparse
import asyncio
import http.client
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import asyncpg
import browsing
import console
import load
import setting

from legivellum.identity import api_keys
from metagate_store.publisher import Publisher
from metagate_store.rows import Change

READERS = 4
NOBODY = "no console"
PEOPLE = {NOBODY: 0.2, "two open consoles": 0.2, "ten open consoles": 1.0}
"""Pages a second; without a console they are /livez, so that there are as many processes on the machine in any case."""
WATCHED_SECONDS = 4.0
CONSOLE = {"METAGATE_CONSOLE": "true", "METAGATE_CONSOLE_SECRET": "signs the cookies of this benchmark, only"}
LATE = 503
"""Past its deadline, on a machine that was too busy; counts as nothing."""

READS = (b"/v1/startups?limit=100", b"/v1/summary", b"/v1/admin/principals?limit=100", b"/v1/topology")


@dataclass(slots=True)
class ComparedLoads:
    boots: list[load.Tally] = field(default_factory=list)
    known: list[load.Tally] = field(default_factory=list)
    ready: list[load.Tally] = field(default_factory=list)
    failed: list[load.Tally] = field(default_factory=list)
    alone: list[load.Tally] = field(default_factory=list)
    beside: list[load.Tally] = field(default_factory=list)
    reads: list[load.Tally] = field(default_factory=list)
    watched: dict[str, list[load.Tally]] = field(default_factory=lambda: {name: [] for name in PEOPLE})
    pages: dict[str, list[load.Tally]] = field(default_factory=lambda: {name: [] for name in PEOPLE})


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    loads = ComparedLoads()
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        reader = asyncio.run(administrator(on, booters[0]))
        with setting.served(on, workers=arguments.workers, **CONSOLE) as port:
            drive = partial(
                load.drive, "127.0.0.1", port, connections=arguments.connections, seconds=arguments.seconds, warm=0.5
            )
            fresh = [booter.request(keyed=True) for booter in booters]
            known = [conditional(port, booter) for booter in booters]
            page = overview(port, reader)
            for number in range(arguments.rounds):
                console.step(f"beside bootstraps: round {number + 1} of {arguments.rounds}")
                loads.boots.append(drive(fresh))
                loads.known.append(drive(known))
                for status, tallies in (("ready", loads.ready), ("failed", loads.failed)):
                    opened = asyncio.run(sessions(on, booters, int(loads.boots[-1].rate * arguments.seconds)))
                    tallies.append(drive([report(status, *item) for item in opened], sharing="once"))
                pods = load.LoadPart(fresh, arguments.connections)
                loads.alone += load.drive_apart(port, pods, seconds=arguments.seconds)
                asking = load.LoadPart([read(path, reader) for path in READS], READERS)
                with_readers, reads = load.drive_apart(port, pods, asking, seconds=arguments.seconds)
                loads.beside.append(with_readers)
                loads.reads.append(reads)
                watch(port, pods, page, loads)
    packets = (*loads.boots, *loads.ready, *loads.failed, *loads.alone, *loads.beside, *loads.reads)
    packets += tuple(chain(*loads.watched.values(), *loads.pages.values()))
    assert all(set(tally.statuses) <= {304, LATE} for tally in loads.known), loads.known[0].statuses
    assert all(set(tally.statuses) <= {200, LATE} for tally in packets), [tally.statuses for tally in packets]
    return summary(loads, arguments)


def watch(port: int, pods: load.LoadPart, page: bytes, loads: ComparedLoads) -> None:
    """Pods boot while so many people look, in every order in which each comes first once."""
    names = list(PEOPLE)
    for turn in range(len(names)):
        for name in names[turn:] + names[:turn]:
            looking = load.LoadPart([LIVEZ if name == NOBODY else page], connections=1, rate=PEOPLE[name])
            booted, shown = load.drive_apart(port, pods, looking, seconds=WATCHED_SECONDS)
            loads.watched[name].append(booted)
            loads.pages[name].append(shown)


def summary(loads: ComparedLoads, arguments: argparse.Namespace) -> dict[str, Any]:
    def rates(tallies: Sequence[load.Tally]) -> list[float]:
        return [
            sum(count for status, count in tally.statuses.items() if status != LATE) / tally.seconds
            for tally in tallies
        ]

    def row(name: str, tallies: list[load.Tally], against: list[load.Tally]) -> dict[str, Any]:
        ratios = [item / other for item, other in zip(rates(tallies), rates(against), strict=True)]
        return {
            "name": name,
            "per_second": round(statistics.median(rates(tallies))),
            "to_bootstraps": round(statistics.median(ratios), 2),
            "lowest": round(min(ratios), 2),
            "highest": round(max(ratios), 2),
            "p50_ms": round(statistics.median(tally.quantile(0.5) for tally in tallies), 2),
            "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in tallies), 2),
            "late": sum(tally.statuses.get(LATE, 0) for tally in tallies),
        }

    rows = [
        row("bootstrap, 200", loads.boots, loads.boots),
        row("bootstrap, 304", loads.known, loads.boots),
        row("ready", loads.ready, loads.boots),
        row("failed", loads.failed, loads.boots),
        row("bootstrap, load in a process of its own", loads.alone, loads.alone),
        row(f"bootstrap beside {READERS} administrators", loads.beside, loads.alone),
        row("the administrators' reads", loads.reads, loads.alone),
        *(row(f"bootstrap beside {name}", tallies, loads.watched[NOBODY]) for name, tallies in loads.watched.items()),
        *(
            row(f"pages of {name}", tallies, loads.watched[NOBODY])
            for name, tallies in loads.pages.items()
            if name != NOBODY
        ),
    ]
    columns = ("name", "per_second", "to_bootstraps", "lowest", "highest", "p50_ms", "p99_ms")
    console.table(
        f"Beside bootstraps, {arguments.connections} connections, {arguments.rounds} rounds of {arguments.seconds} s",
        ("", "per second", "to bootstraps", "lowest", "highest", "p50 ms", "p99 ms"),
        [[row[name] for name in columns] for row in rows],
    )
    return {"rows": rows, "rounds": arguments.rounds, "seconds": arguments.seconds, "workers": arguments.workers}


def conditional(port: int, one: setting.BenchPrincipal) -> bytes:
    """The bootstrap of a principal that has the packet already."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(
        "POST",
        "/v1/bootstrap",
        json.dumps({"component_key": "indexer_1"}),
        {"X-API-Key": one.key, "Content-Type": "application/json"},
    )
    answer = connection.getresponse()
    etag = (answer.getheader("ETag") or "").encode()
    answer.read()
    connection.close()
    return one.request(keyed=True).replace(b"Host: bench\r\n", b"Host: bench\r\nIf-None-Match: %s\r\n" % etag, 1)


async def sessions(
    on: setting.BenchServer, booters: list[setting.BenchPrincipal], number: int
) -> list[tuple[setting.BenchPrincipal, str]]:
    by_name = {booter.name: booter for booter in booters}
    connection = await asyncpg.connect(on.superuser)
    try:
        rows = await connection.fetch(
            "SELECT principal_key, startup_id::text FROM metagate.startup WHERE status = 'OPEN' LIMIT $1", number
        )
    finally:
        await connection.close()
    return [(by_name[row[0]], row[1]) for row in rows]


def report(status: str, one: setting.BenchPrincipal, startup_id: str) -> bytes:
    more = {"build_version": "1.4.2"} if status == "ready" else {"error": "no connection to the index"}
    body = json.dumps({"startup_id": startup_id, **more}).encode()
    return (
        b"POST /v1/startup/%s HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (status.encode(), one.key.encode(), len(body), body)
    )


def read(path: bytes, key: str) -> bytes:
    return b"GET %s HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\n\r\n" % (path, key.encode())


LIVEZ = b"GET /livez HTTP/1.1\r\nHost: bench\r\nX-Request-Id: %s\r\n\r\n" % load.KEY_SLOT


def overview(port: int, key: str) -> bytes:
    """The console's first page, as somebody sees it who has signed in with the key."""
    return b"GET /console HTTP/1.1\r\nHost: bench\r\nX-Request-Id: %s\r\nCookie: %s\r\n\r\n" % (
        load.KEY_SLOT,
        browsing.signed_in(port, key).encode(),
    )


async def administrator(on: setting.BenchServer, beside: setting.BenchPrincipal) -> str:
    """The key of an admin in the tenant of the others."""
    key = api_keys.mint()
    principal = {"tenant": str(beside.tenant), "principal_key": "administrator"}
    row = setting._row  # noqa: SLF001 - the benchmark's own
    publisher = await Publisher.open(on.publisher)
    await publisher.load()
    await publisher.publish(
        Change(
            upserts={
                "principal": [
                    row(**principal, type="admin", scope="Namespace", rights=[], suspended=False, generation=1)
                ],
                "api_key": [
                    row(sha256=key.sha256, key_id=api_keys.id_of(key.key.encode()), expires_at=None, **principal)
                ],
            }
        )
    )
    await publisher.close()
    return key.key
