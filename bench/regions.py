"""Past one machine: what a fleet's restart would meet, simulated with the costs that were measured here.

A boot costs a worker some Python time and PostgreSQL some processor time (the shares of `make bench`, divided by its
rate), and a durable commit some waiting (what one connection alone waits for). Workers batch as the gate does: at most
two statements in flight, at most 64 rows, whatever waits travels together. What is not answered by the deadline, which
runs from when it was read, is a 503, and its client comes back after a second, with jitter, as the client does. The
model is first shown the herd that was measured (`make bench-herd`) on the same two processors.
"""

import heapq
import itertools
import json
import random
import statistics
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, IN_FLIGHT, QUEUE, DEADLINE = 64, 2, 2_048, 0.45


@dataclass(frozen=True, slots=True)
class ServiceCosts:
    """Seconds: of a worker per boot; of the database's processors per statement and per row; of waiting per commit; of
    the load generator per boot, where it shares the processors.
    """

    worker: float
    statement: float
    row: float
    commit: float
    client: float


@dataclass(frozen=True, slots=True)
class SimulatedRegion:
    """`shared`: everything on the same processors, as where it was measured."""

    name: str
    pods: int
    within: float
    workers: int
    database_processors: int
    shared: bool = False


class Processors:
    """So many of them, first come, first served."""

    def __init__(self, number: int) -> None:
        self.free = [0.0] * number
        self.used = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When work that is ready `now` is done."""
        end = max(now, heapq.heappop(self.free)) + seconds
        heapq.heappush(self.free, end)
        self.used += seconds
        return end


@dataclass(slots=True)
class SimulatedWorker:
    processors: Processors
    queue: deque[tuple[float, float]] = field(default_factory=deque)  # (first asked, due)
    in_flight: int = 0


@dataclass(slots=True)
class SimulatedOutcome:
    answered: list[float] = field(default_factory=list)  # seconds since the first attempt
    ends: list[float] = field(default_factory=list)
    refused: int = 0
    statements: int = 0


def simulate(region: SimulatedRegion, costs: ServiceCosts, seed: int = 1) -> dict[str, Any]:
    chance = random.Random(seed)
    database = Processors(region.database_processors)
    workers = [SimulatedWorker(database if region.shared else Processors(1)) for _ in range(region.workers)]
    outcome = SimulatedOutcome()
    order = itertools.count()
    events: list[tuple[float, int, str, Any]] = []

    def at(when: float, what: str, about: Any) -> None:
        heapq.heappush(events, (when, next(order), what, about))

    for _ in range(region.pods):
        arrives = chance.uniform(0, region.within)
        at(arrives, "ask", (chance.choice(workers), arrives))
    while events:
        now, _, what, about = heapq.heappop(events)
        if what == "ask":
            worker, first = about
            done = worker.processors.take(now, costs.worker + (costs.client if region.shared else 0))
            at(done, "queue", (worker, first, done + DEADLINE))  # what waits to be read has no deadline yet
        elif what == "queue":
            worker, first, due = about
            if len(worker.queue) >= QUEUE or now > due:
                outcome.refused += 1
                at(now + chance.uniform(0.5, 1.5), "ask", (chance.choice(workers), first))
            else:
                worker.queue.append((first, due))
                at(now, "send", worker)
        elif what == "send":
            worker = about
            if worker.in_flight < IN_FLIGHT and worker.queue:
                batch = []
                while worker.queue and len(batch) < ROWS:
                    first, due = worker.queue.popleft()
                    if now <= due:
                        batch.append(first)
                    else:
                        outcome.refused += 1
                        at(now + chance.uniform(0.5, 1.5), "ask", (chance.choice(workers), first))
                if batch:
                    worker.in_flight += 1
                    outcome.statements += 1
                    done = database.take(now, costs.statement + costs.row * len(batch)) + costs.commit
                    at(done, "commit", (worker, batch))
        else:
            worker, batch = about
            worker.in_flight -= 1
            outcome.answered += [now - first for first in batch]
            outcome.ends.append(now)
            at(now, "send", worker)
    seconds = max(outcome.ends)
    answered = sorted(outcome.answered)
    return {
        "name": region.name,
        "pods": region.pods,
        "within_s": region.within,
        "workers": region.workers,
        "database_processors": region.database_processors,
        "last_answered_s": round(seconds, 2),
        "p50_ms": round(1_000 * statistics.median(answered), 1),
        "p99_ms": round(1_000 * answered[int(0.99 * len(answered))], 1),
        "refused": outcome.refused,
        "database_busy": round(database.used / seconds / region.database_processors, 2),
        "commits_per_second": round(outcome.statements / seconds),
        "rows_per_commit": round(len(answered) / outcome.statements, 1),
    }


def measured_costs() -> ServiceCosts:
    """From the rows with an Idempotency-Key."""
    bench = json.loads((RESULTS / "bench.json").read_text())
    part, processors = bench["bootstrap"], bench["machine"]["processors"]
    rate = statistics.mean(row["per_second"] for row in part["rows"])
    share = {name: of * processors / rate for name, of in part["cpu_shares"].items()}
    alone = part["one_connection_p50_ms"] / 1_000
    # pgbench's statements carry one row, the gate's carry several: what is left is the statement's own. A run that did
    # not look is taken at its worst: pgbench left no processor idle, and all that could wait travelled together.
    limit = statistics.mean(row["pgbench_per_second"] for row in part["rows"])
    single = part.get("single_statement_us", 1e6 * processors * (1 - part["cpu_shares"].get("others", 0)) / limit) / 1e6
    several = part.get("rows_per_statement", part["connections"] / (part["workers"] * IN_FLIGHT))
    row = max(0.0, (share["PostgreSQL"] * several - single) / (several - 1))
    statement = (share["PostgreSQL"] - row) * several
    waiting = max(0.0, alone - share["Python"] - statement - row - share["load generator"])
    return ServiceCosts(share["Python"], statement, row, waiting, share["load generator"])


def regions() -> tuple[SimulatedRegion, ...]:
    return (
        SimulatedRegion("the herd that was measured", 5_000, 0.05, 2, 2, shared=True),
        SimulatedRegion("10⁵ pods in a minute, 2 replicas, 2 processors", 100_000, 60, 2, 2),
        SimulatedRegion("10⁵ pods in a minute, 4 replicas, 4 processors", 100_000, 60, 4, 4),
        SimulatedRegion("10⁵ pods in 5 s, 4 replicas, 4 processors", 100_000, 5, 4, 4),
        SimulatedRegion("10⁵ pods in 5 s, 8 replicas, 8 processors", 100_000, 5, 8, 8),
        SimulatedRegion("10⁶ pods in a minute, 8 replicas, 8 processors", 1_000_000, 60, 8, 8),
        SimulatedRegion("10⁶ pods in a minute, 12 replicas, 16 processors", 1_000_000, 60, 12, 16),
    )


def main() -> None:
    costs = measured_costs()
    result = [simulate(region, costs) for region in regions()]
    micro = {name: round(1e6 * getattr(costs, name)) for name in ServiceCosts.__slots__}
    (RESULTS / "regions.json").write_text(json.dumps({"microseconds": micro, "regions": result}, indent=2) + "\n")
    print(json.dumps({"microseconds": micro}))
    for item in result:
        print(item)


if __name__ == "__main__":
    main()
