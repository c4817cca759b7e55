"""Durable bootstraps per second through the served API, beside pgbench with the same statement on the same database.

Rounds alternate, so that whatever else the machine does hits both; the figure is the ratio of medians. What commits is
counted in the table afterwards: an answer without a row would be a lie.
"""

import argparse
import asyncio
import multiprocessing
import re
import statistics
import time
import urllib.request
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import console
import load
import machine
import setting

PACE = 1.5
"""Times pgbench: the rate at which latency is looked at as well. As many as are answered is a queue by definition."""

COLUMNS = ("", "per second", "pgbench", "ratio", "lowest", "highest", "p50 ms", "p99 ms", "p99.9 ms")


@dataclass(slots=True)
class BootstrapMeasurement:
    """One kind of bootstrap, round by round."""

    name: str
    tallies: list[load.Tally] = field(default_factory=list)
    pgbench: list[dict[str, float]] = field(default_factory=list)

    def as_row(self) -> dict[str, object]:
        rate = statistics.median(tally.rate for tally in self.tallies)
        limit = statistics.median(item["rate"] for item in self.pgbench)
        by_round = [tally.rate / item["rate"] for tally, item in zip(self.tallies, self.pgbench, strict=True)]
        return {
            "name": self.name,
            "per_second": round(rate),
            "pgbench_per_second": round(limit),
            "pgbench_mean_ms": statistics.median(item["mean_ms"] for item in self.pgbench),
            "ratio": round(rate / limit, 2),
            "ratios_by_round": [round(ratio, 2) for ratio in by_round],
            **quantiles(self.tallies),
        }


def quantiles(tallies: list[load.Tally]) -> dict[str, float]:
    """The medians of the rounds' latencies."""
    return {
        name: round(statistics.median(tally.quantile(q) for tally in tallies), 2)
        for name, q in (("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999))
    }


def row(one: dict[str, object]) -> list[object]:
    by_round = one["ratios_by_round"]
    assert isinstance(by_round, list)
    ends = (float(min(by_round)), float(max(by_round)))
    return [
        *(one[name] for name in ("name", "per_second", "pgbench_per_second", "ratio")),
        *ends,
        *(one[name] for name in ("p50_ms", "p99_ms", "p999_ms")),
    ]


def counted(on: setting.BenchServer, drive: partial[load.Tally], requests: list[bytes]) -> load.Tally:
    """A drive in which every answer is a packet and has a row."""
    before = asyncio.run(setting.opened(on))
    tally = drive(requests)
    rows = asyncio.run(setting.opened(on)) - before
    assert rows >= tally.statuses.get(200, 0), "an answer without a row"
    assert set(tally.statuses) == {200}, tally.statuses
    assert not tally.broken
    return tally


def main(arguments: argparse.Namespace) -> dict[str, Any]:
    """By API key, with and without the Idempotency-Key that the client always sends."""
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        requests = {
            "API key": (BootstrapMeasurement("API key"), False),
            "API key, Idempotency-Key": (BootstrapMeasurement("API key, Idempotency-Key"), True),
        }
        with setting.served_process(on, workers=arguments.workers) as (port, process):
            drive = partial(
                load.drive, "127.0.0.1", port, connections=arguments.connections, seconds=arguments.seconds, warm=0.5
            )
            shares = machine.ProcessorShares({"Python": process, "PostgreSQL": on.postgres.server_pid or 0})
            rows_before = batched(port)
            workers = machine.children(process) or [process]
            memory = {"at_rest": worker_megabytes(workers)}
            drive([booter.request() for booter in booters])
            postgres = on.postgres.server_pid or 0
            written, singles = 0, []
            paced: list[load.Tally] = []
            for number in range(arguments.rounds):
                console.step(f"bootstraps: round {number + 1} of {arguments.rounds}")
                for measured, keyed in requests.values():
                    before = asyncio.run(setting.written(on))
                    with shares.watching():
                        measured.tallies.append(counted(on, drive, [booter.request(keyed=keyed) for booter in booters]))
                    if keyed:
                        written += asyncio.run(setting.written(on)) - before
                    used = machine.cpu_seconds(postgres)
                    measured.pgbench.append(reference(on, booters, arguments, keyed=keyed))
                    if keyed:
                        singles.append((machine.cpu_seconds(postgres) - used) / measured.pgbench[-1]["transactions"])
                limit = requests["API key, Idempotency-Key"][0].pgbench[-1]["rate"]
                paced.append(drive([booter.request(keyed=True) for booter in booters], rate=PACE * limit))
                memory["under_load"] = max(memory.get("under_load", 0.0), worker_megabytes(workers))
            single = load.drive("127.0.0.1", port, [booters[0].request(keyed=True)], connections=1, seconds=1, warm=0.3)
            rows, statements = (after - before for after, before in zip(batched(port), rows_before, strict=True))
            time.sleep(1)
            memory["after"] = worker_megabytes(workers)
        alone = loader_alone([booters[0].request()], arguments.connections)
    result = {
        "rows": [measured.as_row() for measured, _ in requests.values()],
        "cpu_shares": shares.shares,
        "paced": {
            "per_second": round(statistics.median(tally.rate for tally in paced)),
            "to_pgbench": PACE,
            **quantiles(paced),
        },
        "one_connection_p50_ms": round(single.quantile(0.5), 2),
        "rows_per_statement": round(rows / statements, 1),
        "single_statement_us": round(1e6 * statistics.median(singles)),
        "worker_mb": memory,
        # Of the boots with an Idempotency-Key; the warm-up's are taken to come as fast as the others.
        "wal_bytes_per_bootstrap": round(
            written
            / sum(tally.rate * (arguments.seconds + 0.5) for tally in requests["API key, Idempotency-Key"][0].tallies)
        ),
        "load_generator_alone_per_second": round(alone.rate),
        "connections": arguments.connections,
        "workers": arguments.workers,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }
    print_tables(result)
    return result


def reference(
    on: setting.BenchServer, booters: list[setting.BenchPrincipal], arguments: argparse.Namespace, *, keyed: bool
) -> dict[str, float]:
    seconds = max(1, round(arguments.seconds))
    return setting.pgbench(on, booters, connections=arguments.connections, seconds=seconds, keyed=keyed)


def batched(port: int) -> tuple[float, float]:
    """Bootstraps and the statements that carried them, so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    matches = re.findall(r'^metagate_batch_rows_(sum|count)\{statement="bootstrap"\} ([0-9.e+]+)', text, re.MULTILINE)
    named = {name: float(value) for name, value in matches}
    return named.get("sum", 0.0), named.get("count", 0.0)


def worker_megabytes(workers: list[int]) -> float:
    """Megabytes of the largest worker."""
    return round(max(machine.rss_megabytes(worker) for worker in workers))


def print_tables(figures: dict[str, Any]) -> None:
    rows, shares, paced = figures["rows"], figures["cpu_shares"], figures["paced"]
    console.table(
        f"Durable bootstraps, {figures['connections']} connections, {figures['workers']} workers, "
        f"{figures['rounds']} rounds of {figures['seconds']} s",
        COLUMNS,
        [row(item) for item in rows],
        f"at {PACE:g} × pgbench ({paced['per_second']:,} a second, Idempotency-Key): p50 {paced['p50_ms']:.1f} ms, "
        f"p99 {paced['p99_ms']:.1f} ms\n  of the processors: "
        + ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
        + "; "
        "MB per worker: "
        + ", ".join(f"{name.replace('_', ' ')} {size}" for name, size in figures["worker_mb"].items()),
    )


def loader_alone(requests: list[bytes], connections: int) -> load.Tally:
    """The load generator against a server that does nothing: what it could do at most."""
    port = setting.free_port()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1400\r\n\r\n" + b"x" * 1400
    noop = multiprocessing.Process(target=load.serve_noop, args=(port, len(requests[0]), answer), daemon=True)
    noop.start()
    time.sleep(0.7)
    try:
        return load.drive("127.0.0.1", port, requests[:1], connections=connections, seconds=1, warm=0.3)
    finally:
        noop.terminate()
