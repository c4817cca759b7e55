"""`make bench-herd`: 5,000 clients that boot at the same moment, each once, over a connection of its own.

By API key and by a token that nobody has seen, each with an Idempotency-Key. A client that is refused or cut off tries
again after what it is told (`Retry-After`, with jitter), as the client does. Counted: the time until the last one is
answered, refusals, retries, and lost ones: without an answer in the end, or answered without a row.
"""

import argparse
import asyncio
import heapq
import json
import os
import random
import re
import select
import socket
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

from legivellum.gate.serving import open_at_most

RESULTS = Path(__file__).resolve().parent / "results" / "herd.json"
RETRY_AFTER = re.compile(rb"retry-after: (\d+)", re.IGNORECASE)
STARTUP = re.compile(rb"metagate-startup-id: ([0-9a-f-]{36})")
ATTEMPTS = 8


@dataclass(slots=True)
class HerdResult:
    """What became of them. `answered`: seconds after the start; `startups`: the sessions they were told of."""

    answered: list[float] = field(default_factory=list)
    startups: list[str] = field(default_factory=list)
    refused: int = 0
    cut: int = 0
    lost: int = 0


class HerdLoad:
    """Sockets and epoll, nothing between: 5,000 tasks of an event loop would take longer than what they measure."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.address = ("127.0.0.1", port)
        self.waiting = [(0.0, 0, n, request) for n, request in enumerate(requests)]  # (when, attempt, who, request)
        self.open: dict[int, tuple[socket.socket, list[bytes], int, int, bytes]] = {}
        self.poll = select.epoll(len(requests))
        self.herd = HerdResult()

    def run(self) -> HerdResult:
        self.began = time.perf_counter()
        while self.waiting or self.open:
            now = time.perf_counter() - self.began
            while self.waiting and self.waiting[0][0] <= now:
                self.connect(*heapq.heappop(self.waiting)[1:])
                if len(self.open) % 64 == 0:
                    self.hear(0)  # who was let in early is not kept waiting by those who still come
            until = self.waiting[0][0] - now if self.waiting else 1.0
            self.hear(max(0.0, min(until, 1.0)))
        self.poll.close()
        return self.herd

    def connect(self, attempt: int, principal: int, request: bytes) -> None:
        made = socket.socket()
        made.setblocking(False)
        made.connect_ex(self.address)
        self.open[made.fileno()] = (made, [], attempt, principal, request)
        self.poll.register(made.fileno(), select.EPOLLOUT)

    def hear(self, seconds: float) -> None:
        for number, event in self.poll.poll(seconds):
            made, parts, attempt, principal, request = self.open[number]
            try:
                if event & select.EPOLLOUT:
                    made.send(request)
                    self.poll.modify(number, select.EPOLLIN)
                    continue
                data = made.recv(16_384)
            except OSError:
                data = b""
            if data:
                parts.append(data)
                if not complete(b"".join(parts)):
                    continue
            self.poll.unregister(number)
            made.close()
            del self.open[number]
            self.judge(b"".join(parts), attempt, principal, request)

    def judge(self, answer: bytes, attempt: int, principal: int, request: bytes) -> None:
        now = time.perf_counter() - self.began
        if answer[9:12] == b"200":
            match = STARTUP.search(answer)
            assert match is not None
            self.herd.answered.append(now)
            self.herd.startups.append(match[1].decode())
            return
        pause = 0.1 * 2**attempt
        if complete(answer):
            self.herd.refused += 1
            summary = RETRY_AFTER.search(answer)
            pause = float(summary[1]) if summary else pause
        else:
            self.herd.cut += 1
        if attempt + 1 < ATTEMPTS:
            heapq.heappush(self.waiting, (now + pause * random.uniform(0.5, 1.5), attempt + 1, principal, request))
        else:
            self.herd.lost += 1


def complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    at = head.find(load.LENGTH)
    return bool(separator) and at >= 0 and len(body) >= int(head[at + len(load.LENGTH) :].partition(b"\r")[0])


def send_all(port: int, requests: list[bytes]) -> HerdResult:
    return HerdLoad(
        port, [request.replace(load.KEY_SLOT, os.urandom(16).hex().encode(), 1) for request in requests]
    ).run()


async def without_row(on: setting.BenchServer, herd: HerdResult) -> int:
    connection = await asyncpg.connect(on.superuser)
    try:
        rows = await connection.fetchval(
            "SELECT count(*) FROM metagate.startup WHERE startup_id = ANY($1::uuid[])", herd.startups
        )
    finally:
        await connection.close()
    return len(set(herd.startups)) - int(rows) + len(herd.startups) - len(set(herd.startups))


def summary(herds: list[tuple[HerdResult, int]]) -> dict[str, Any]:
    last = [max(herd.answered) for herd, _ in herds]
    return {
        "last_answered_s": round(statistics.median(last), 2),
        "last_by_round_s": [round(item, 2) for item in last],
        "half_answered_s": round(statistics.median(statistics.median(herd.answered) for herd, _ in herds), 2),
        "refused": sum(herd.refused for herd, _ in herds),
        "retries": sum(herd.refused + herd.cut - herd.lost for herd, _ in herds),
        "cut_off": sum(herd.cut for herd, _ in herds),
        "lost": sum(herd.lost + gone for herd, gone in herds),
    }


def measured(on: setting.BenchServer, arguments: argparse.Namespace) -> dict[str, Any]:
    booters = asyncio.run(setting.publish(on, arguments.principals))
    issuer = tokens.BenchIssuer()
    asyncio.run(issuer.publish(on, booters))
    keys = [load.closing(booters[n % len(booters)].request(keyed=True)) for n in range(arguments.clients)]
    herds: dict[str, list[tuple[HerdResult, int]]] = {"API key": [], "new RS256 token": []}
    with setting.served(on, workers=arguments.workers) as port:
        for number in range(arguments.rounds + 1):
            console.step(f"herd: round {number} of {arguments.rounds}{' (cold)' if number == 0 else ''}")
            fresh = issuer.requests("RS256", booters, arguments.clients)
            asked = {"API key": keys, "new RS256 token": [load.closing(matrix.keyed(item)) for item in fresh]}
            for name, requests in asked.items():
                herd = send_all(port, requests)
                herds[name].append((herd, asyncio.run(without_row(on, herd))))
                time.sleep(1)
    # The first round by key meets processes that were just started and know no packet.
    return {
        "API key, cold": summary(herds["API key"][:1]),
        **{name: summary(result[1:]) for name, result in herds.items()},
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
        result = measured(on, arguments)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(
        json.dumps({"machine": machine.described(), **vars(arguments), "herds": result}, indent=2) + "\n"
    )
    console.table(
        f"{arguments.clients:,} one-shot clients at once, {arguments.rounds} rounds",
        ("", "last s", "half s", "refused", "retries", "cut off", "lost"),
        [
            [
                name,
                *(item[key] for key in ("last_answered_s", "half_answered_s", "refused", "retries", "cut_off", "lost")),
            ]
            for name, item in result.items()
        ],
    )


if __name__ == "__main__":
    main()
