"""`make bench-herd`: 5,000 clients that boot at the same moment, each once, over a connection of its own.

By API key and by a token that nobody has seen, each with an Idempotency-Key. A client that is refused or cut off tries
again after what it is told (`Retry-After`, with jitter), as the client does. Counted: the time until the last one is
answered, refusals, retries, and lost ones: without an answer in the end, or answered without a row.
"""

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import asyncpg
import console
import load
import machine
import matrix
import setting
import tokens
import uvloop

from legivellum_http.serving import open_at_most

RESULTS = Path(__file__).resolve().parent / "results" / "herd.json"
RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
STARTUP = re.compile(rb"metagate-startup-id: ([0-9a-f-]{36})")
ATTEMPTS = 8


@dataclass(slots=True)
class Herd:
    """What became of them. `answered`: seconds after the start; `startups`: the sessions they were told of."""

    answered: list[float] = field(default_factory=list)
    startups: list[str] = field(default_factory=list)
    refused: int = 0
    cut: int = 0
    lost: int = 0


class OneShot(asyncio.Protocol):
    """Asks, and hands over everything up to the end of the connection."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.parts: list[bytes] = []
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.parts.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            if exc is None:
                self.done.set_result(b"".join(self.parts))
            else:
                self.done.set_exception(exc)


async def client(port: int, request: bytes, herd: Herd, began: float) -> None:
    request = request.replace(load.KEY_SLOT, os.urandom(16).hex().encode(), 1)
    for attempt in range(ATTEMPTS):
        pause = 0.1 * 2**attempt
        try:
            _, protocol = await asyncio.get_running_loop().create_connection(
                lambda: OneShot(request), "127.0.0.1", port
            )
            answer = await asyncio.wait_for(protocol.done, 5)
        except (OSError, TimeoutError):
            herd.cut += 1
        else:
            if answer[9:12] == b"200":
                herd.answered.append(time.perf_counter() - began)
                found = STARTUP.search(answer)
                assert found is not None
                herd.startups.append(found[1].decode())
                return
            herd.refused += 1
            told = RETRY_AFTER.search(answer)
            pause = float(told[1]) if told else pause
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
    herd.lost += 1


async def stampede(port: int, requests: list[bytes]) -> Herd:
    herd = Herd()
    began = time.perf_counter()
    await asyncio.gather(*(client(port, request, herd, began) for request in requests))
    return herd


async def without_row(on: setting.Base, herd: Herd) -> int:
    connection = await asyncpg.connect(on.superuser)
    try:
        rows = await connection.fetchval(
            "SELECT count(*) FROM metagate.startup WHERE startup_id = ANY($1::uuid[])", herd.startups
        )
    finally:
        await connection.close()
    return len(set(herd.startups)) - int(rows) + len(herd.startups) - len(set(herd.startups))


def told(herds: list[tuple[Herd, int]]) -> dict[str, Any]:
    last = [max(herd.answered) for herd, _ in herds]
    return {
        "last_answered_s": round(statistics.median(last), 2),
        "last_by_round_s": [round(each, 2) for each in last],
        "half_answered_s": round(statistics.median(statistics.median(herd.answered) for herd, _ in herds), 2),
        "refused": sum(herd.refused for herd, _ in herds),
        "retries": sum(herd.refused + herd.cut - herd.lost for herd, _ in herds),
        "cut_off": sum(herd.cut for herd, _ in herds),
        "lost": sum(herd.lost + gone for herd, gone in herds),
    }


def measured(on: setting.Base, arguments: argparse.Namespace) -> dict[str, Any]:
    booters = asyncio.run(setting.publish(on, arguments.principals))
    issuer = tokens.Issuer()
    asyncio.run(issuer.publish(on, booters))
    keys = [load.closing(booters[n % len(booters)].request(keyed=True)) for n in range(arguments.clients)]
    herds: dict[str, list[tuple[Herd, int]]] = {"API key": [], "new RS256 token": []}
    with setting.served(on, workers=arguments.workers) as port:
        for number in range(arguments.rounds + 1):
            console.step(f"herd: round {number} of {arguments.rounds}{' (cold)' if number == 0 else ''}")
            fresh = issuer.requests("RS256", booters, arguments.clients)
            asked = {"API key": keys, "new RS256 token": [load.closing(matrix.keyed(one)) for one in fresh]}
            for name, requests in asked.items():
                herd = uvloop.run(stampede(port, requests))
                herds[name].append((herd, asyncio.run(without_row(on, herd))))
                time.sleep(1)
    # The first round by key meets processes that were just started and know no packet.
    return {
        "API key, cold": told(herds["API key"][:1]),
        **{name: told(found[1:]) for name, found in herds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=5_000)
    parser.add_argument("--principals", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    open_at_most(arguments.clients)
    with setting.base() as on:
        found = measured(on, arguments)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine.described(), **vars(arguments), "herds": found}, indent=2) + "\n")
    console.table(
        f"{arguments.clients:,} one-shot clients at once, {arguments.rounds} rounds",
        ("", "last s", "half s", "refused", "retries", "cut off", "lost"),
        [
            [
                name,
                *(one[key] for key in ("last_answered_s", "half_answered_s", "refused", "retries", "cut_off", "lost")),
            ]
            for name, one in found.items()
        ],
    )


if __name__ == "__main__":
    main()
