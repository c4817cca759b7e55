"""`make bench`: durable bootstraps per second through the served API, beside pgbench on the same database; what
recognising callers costs (`tokens.py`); and how long a changed file takes to be served (`apply.py`).

Rounds alternate, so that whatever else the machine does hits both; the figure is the ratio of medians. What commits is
counted in the table afterwards: an answer without a row would be a lie.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import apply
import load
import setting
import tokens

RESULTS = Path(__file__).resolve().parent / "results"


def loader_alone(requests: list[bytes], connections: int) -> dict[str, float]:
    """The load generator against a server that does nothing: what it could do at most."""
    port = setting.free_port()
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1400\r\n\r\n" + b"x" * 1400
    noop = multiprocessing.Process(target=load.serve_noop, args=(port, len(requests[0]), answer), daemon=True)
    noop.start()
    time.sleep(0.7)
    try:
        tally = load.drive("127.0.0.1", port, requests[:1], connections=connections, seconds=2, warm=0.3)
    finally:
        noop.terminate()
    return {"rate": round(tally.rate), "cpu_share": round(tally.cpu_seconds / 2.3, 2)}


def bootstraps(arguments: argparse.Namespace) -> dict[str, object]:
    with setting.base() as on:
        booters = asyncio.run(setting.publish(on, 64))
        requests = [booter.request() for booter in booters]
        api, reference = [], []
        with setting.served(on, workers=arguments.workers) as port:
            load.drive("127.0.0.1", port, requests, connections=arguments.connections, seconds=1)
            for _ in range(arguments.rounds):
                before = asyncio.run(setting.opened(on))
                tally = load.drive(
                    "127.0.0.1", port, requests, connections=arguments.connections, seconds=arguments.seconds
                )
                rows = asyncio.run(setting.opened(on)) - before
                assert rows >= tally.statuses.get(200, 0), "an answer without a row"
                assert set(tally.statuses) == {200}, tally.statuses
                assert not tally.broken
                api.append(tally)
                reference.append(
                    setting.pgbench(on, booters, connections=arguments.connections, seconds=int(arguments.seconds))
                )
        alone = loader_alone(requests, arguments.connections)
    rate = statistics.median(tally.rate for tally in api)
    pgbench_rate = statistics.median(one["rate"] for one in reference)
    return {
        "bootstraps_per_second": round(rate),
        "p50_ms": round(statistics.median(tally.quantile(0.5) for tally in api), 2),
        "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in api), 2),
        "pgbench_per_second": round(pgbench_rate),
        "pgbench_mean_ms": statistics.median(one["mean_ms"] for one in reference),
        "ratio": round(rate / pgbench_rate, 3),
        "ratios_by_round": [round(a.rate / b["rate"], 3) for a, b in zip(api, reference, strict=True)],
        "load_generator": {
            "alone_per_second": alone["rate"],
            "cpu_share_during_run": round(
                statistics.median(tally.cpu_seconds / (tally.seconds + 1) for tally in api), 2
            ),
        },
        "connections": arguments.connections,
        "workers": arguments.workers,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", choices=["bootstrap", "tokens", "apply"], help="one part alone")
    arguments = parser.parse_args()
    found: dict[str, object] = {"cores": os.cpu_count()}
    if arguments.only in {None, "bootstrap"}:
        found["bootstrap"] = bootstraps(arguments)
    if arguments.only in {None, "tokens"}:
        shorter = {"rounds": min(3, arguments.rounds), "seconds": min(2.0, arguments.seconds)}
        found["tokens"] = tokens.main(argparse.Namespace(**{**vars(arguments), **shorter}))
    if arguments.only in {None, "apply"}:
        found["apply"] = asyncio.run(apply.main())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "bench.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
