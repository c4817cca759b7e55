"""`make bench FULL=1`: how the caller shows who it is × connections × workers × keep-alive or not, beside pgbench.

Every request carries an Idempotency-Key, as the client's do. One round measures each cell once, in turn, and pgbench
with the same statement at each number of connections; rounds are added to those that are there already, so that a
machine which must do other things between them can.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import console
import load
import machine
import setting
import tokens

RESULTS = Path(__file__).resolve().parent / "results" / "matrix.json"
CONNECTIONS = (1, 16, 64, 256)
WORKERS = (1, 2)
KINDS = ("API key", "seen token", "new RS256", "new ES256")
WARM = 0.2
MOST_PER_SECOND = {1: 1_000, 16: 7_000, 64: 8_000, 256: 8_000}
"""More new tokens than a measurement can use, by connections."""


class RequestRound:
    """What is asked in one round. Tokens are signed before it: an RSA signature costs more than what the gate does."""

    def __init__(self, issuer: tokens.BenchIssuer, booters: list[setting.BenchPrincipal], seconds: float) -> None:
        self.many = {many: int(rate * (seconds + WARM)) for many, rate in MOST_PER_SECOND.items()}
        item = sum(self.many.values()) * len(WORKERS) * 2  # with keep-alive and without
        self.fresh = {
            "new RS256": iter(issuer.requests("RS256", booters, item)),
            "new ES256": iter(issuer.requests("ES256", booters, item)),
        }
        self.again = {
            "API key": [booter.request(keyed=True) for booter in booters],
            "seen token": [keyed(request) for request in issuer.requests("RS256", booters, len(booters))],
        }

    def of(self, kind: str, connections: int) -> list[bytes]:
        if kind in self.again:
            return self.again[kind]
        return [keyed(item) for item in itertools.islice(self.fresh[kind], self.many[connections])]


def keyed(request: bytes) -> bytes:
    return request.replace(b"Host: bench\r\n", b"Host: bench\r\nIdempotency-Key: %s\r\n" % load.KEY_SLOT, 1)


def cells() -> Iterator[tuple[int, bool, str]]:
    for connections in CONNECTIONS:
        for keep in (True, False):
            for kind in KINDS:
                yield connections, keep, kind


def one_round(
    on: setting.BenchServer, issuer: tokens.BenchIssuer, booters: list[setting.BenchPrincipal], seconds: float
) -> dict[str, Any]:
    result: dict[str, Any] = {"pgbench": {}, "cells": []}
    timing = RequestRound(issuer, booters, seconds)
    with ExitStack() as stack:
        ports = {workers: stack.enter_context(setting.served(on, workers=workers)) for workers in WORKERS}
        for port in ports.values():
            load.drive(
                "127.0.0.1", port, [booter.request() for booter in booters], connections=16, seconds=0.5, warm=0.2
            )
        for connections, keep, kind in cells():
            if keep and kind == KINDS[0]:
                reference = setting.pgbench(on, booters, connections=connections, seconds=2, keyed=True)
                result["pgbench"][str(connections)] = reference
                console.step(f"{connections} connections; pgbench {reference['rate']:,.0f} per second")
            for workers, port in ports.items():
                requests = timing.of(kind, connections)
                tally = load.drive(
                    "127.0.0.1",
                    port,
                    requests if keep else [load.closing(request) for request in requests],
                    connections=connections,
                    seconds=seconds,
                    warm=WARM,
                    sharing="once" if kind.startswith("new") else "turns" if connections == 1 else "own",
                    keep=keep,
                )
                assert set(tally.statuses) <= {200, 503}, tally.statuses
                result["cells"].append(
                    {
                        "kind": kind,
                        "connections": connections,
                        "keep_alive": keep,
                        "workers": workers,
                        "rate": tally.rate,
                        "late": tally.statuses.get(503, 0),
                        "broken": tally.broken,
                        **{name: tally.quantile(q) for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
                    }
                )
    return result


def summed(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per cell: medians over the rounds, and the ratio to pgbench of each round."""
    rows = []
    for at, cell in enumerate(rounds[0]["cells"]):
        entry = [timing["cells"][at] for timing in rounds]
        limits = [timing["pgbench"][str(cell["connections"])]["rate"] for timing in rounds]
        ratios = [item["rate"] / limit for item, limit in zip(entry, limits, strict=True)]
        rows.append(
            {
                **{name: cell[name] for name in ("kind", "connections", "keep_alive", "workers")},
                "per_second": round(statistics.median(item["rate"] for item in entry)),
                "ratio": round(statistics.median(ratios), 2),
                "lowest": round(min(ratios), 2),
                "highest": round(max(ratios), 2),
                **{
                    f"{name}_ms": round(statistics.median(item[name] for item in entry), 2)
                    for name in ("p50", "p99", "p999")
                },
                "late": sum(item["late"] for item in entry),
                "broken": sum(item["broken"] for item in entry),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5, help="of each cell")
    parser.add_argument("--add", action="store_true", help="to the rounds that were measured before")
    arguments = parser.parse_args()
    rounds = json.loads(RESULTS.read_text())["rounds"] if arguments.add and RESULTS.exists() else []
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        issuer = tokens.BenchIssuer()
        asyncio.run(issuer.publish(on, booters))
        for number in range(arguments.rounds):
            console.step(f"matrix: round {len(rounds) + 1} ({number + 1} of {arguments.rounds})")
            rounds.append(one_round(on, issuer, booters, arguments.seconds))
            result = {
                "machine": machine.described(),
                "seconds": arguments.seconds,
                "pgbench": {
                    item: round(statistics.median(timing["pgbench"][item]["rate"] for timing in rounds))
                    for item in map(str, CONNECTIONS)
                },
                "rows": summed(rounds),
                "rounds": rounds,
            }
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    columns = ("kind", "connections", "keep_alive", "workers", "per_second", "ratio", "lowest", "highest")
    latencies = ("p50_ms", "p99_ms", "p999_ms")
    console.table(
        f"Every way to boot, {len(rounds)} rounds",
        (*(name.replace("_", " ") for name in columns), *latencies),
        [[row[name] for name in (*columns, *latencies)] for row in summed(rounds)],
    )


if __name__ == "__main__":
    main()
