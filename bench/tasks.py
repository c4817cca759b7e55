"""What a million and a hundred million stories a day take: calculated from what one cost (`make bench-whole`), and
simulated (part of `make bench-page`).

A story of three steps is a chain: it is asked for and planned, two steps are done side by side, one after them, and the
plan is ended. Each part asks processors of the gates, of workers and of PostgreSQL, one after the other, first come,
first served, and waits once more for what is neither (round trips, commits, polls): the time of a story alone that no
processor explains. The model is first shown the run that was measured, on its shared processors.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regions import Processors

DAY = 86_400
PEAK = 3
"""How much busier the busiest hour is than the average of the day."""
UTILISED = 0.6
CELL_PROCESSORS = 16
PARTS = (0.35, 0.25, 0.25, 0.15)
"""Of a story's work: asked for and planned; two steps side by side; one after them; the end."""
GATES = ("interrogate", "delegate", "memorygate", "asyncgate", "depotgate")


@dataclass(frozen=True, slots=True)
class StoryCost:
    """Seconds of processor of a story of three steps, and what it leaves behind."""

    gates: float
    workers: float
    database: float
    waiting: float
    receipts: float
    commits: float
    wal: float
    disk: float

    @property
    def processors(self) -> float:
        return self.gates + self.workers + self.database

    @property
    def per_cell(self) -> float:
        """Stories a day for which a cell is planned."""
        return CELL_PROCESSORS * UTILISED / self.database * DAY / PEAK


@dataclass(frozen=True, slots=True)
class SimulatedCell:
    """`shared`: everything on the database's processors, as where it was measured. `clients`: so many, each with one
    story at a time, instead of arrivals at random.
    """

    name: str
    per_second: float
    gates: int
    workers: int
    database: int
    shared: bool = False
    clients: int = 0


def story_cost(measured: Mapping[str, Any]) -> StoryCost:
    cost, alone = measured["cost"]["3"], measured["alone"]["3"]["p50_ms"] / 1_000
    gates = sum(cost[f"cpu {name}"] for name in GATES)
    workers, database = cost["cpu workers"], cost["cpu PostgreSQL"]
    # Two steps run side by side: half of their part is not on the path of a story that is alone.
    path = (gates + workers + database) * (1 - PARTS[1] / 2)
    waiting = max(0.0, alone - path)
    return StoryCost(gates, workers, database, waiting, cost["receipts"], cost["writes"], cost["wal"], cost["disk"])


def simulate(cell: SimulatedCell, cost: StoryCost, stories: int = 20_000, seed: int = 1) -> dict[str, Any]:
    chance = random.Random(seed)
    database = Processors(cell.database)
    gates = database if cell.shared else Processors(cell.gates)
    workers = database if cell.shared else Processors(cell.workers)
    order = itertools.count()
    events: list[tuple[float, int, Iterator[tuple[Processors, float]], float]] = []
    milliseconds: list[float] = []
    remaining = stories

    def begin(when: float) -> None:
        nonlocal remaining
        if remaining:
            remaining -= 1
            heapq.heappush(events, (when, next(order), visits(), when))

    def visits() -> Iterator[tuple[Processors, float]]:
        for share in PARTS:
            for processors, seconds in ((gates, cost.gates), (workers, cost.workers), (database, cost.database)):
                yield processors, seconds * share * chance.expovariate(1)

    when = last = 0.0
    for _ in range(cell.clients or stories):
        begin(when)
        when += 0.0 if cell.clients else chance.expovariate(cell.per_second)
    while events:
        now, _, parts, asked = heapq.heappop(events)
        last = max(last, now)
        visit = next(parts, None)
        if visit is not None:
            done = visit[0].take(now, visit[1]) + cost.waiting / (3 * len(PARTS))
            heapq.heappush(events, (done, next(order), parts, asked))
            continue
        milliseconds.append(1_000 * (now - asked))
        if cell.clients:
            begin(now)
    ordered = sorted(milliseconds)
    return {
        "name": cell.name,
        "per_second": round(len(ordered) / last, 1),
        "p50_ms": round(statistics.median(ordered)),
        "p99_ms": round(ordered[int(0.99 * len(ordered))]),
        "database_busy": f"{database.used / last / cell.database:.0%}",
    }


def up(value: float) -> int:
    return int(value) + (value > int(value))


def cells(cost: StoryCost, measured: Mapping[str, Any]) -> Sequence[SimulatedCell]:
    def cell(name: str, stories: float, database: int) -> SimulatedCell:
        peak = stories / DAY * PEAK
        workers = max(2, up(peak * cost.workers / UTILISED))
        return SimulatedCell(name, peak, max(5, up(peak * cost.gates / UTILISED)), workers, database)

    run, processors = measured["at_once"]["3"], measured["machine"]["processors"]
    million, most = 1e6, cost.per_cell
    return (
        SimulatedCell("the run that was measured", 0, processors, processors, processors, True, run["clients"]),
        cell("the busiest hour of 10⁶ a day, 4 processors of PostgreSQL", million, 4),
        cell("the busiest hour of 10⁶ a day, 8", million, 8),
        cell(f"the busiest hour of {most / million:.1f} · 10⁶ a day, {CELL_PROCESSORS}", most, CELL_PROCESSORS),
        cell(f"half as much again, {CELL_PROCESSORS}", most * 1.5, CELL_PROCESSORS),
    )


COLUMNS = (
    "Stories a day", "at the peak, 1/s", "processors of gates", "of workers", "of PostgreSQL", "commits/s on average",
    "WAL MB/s at the peak", "10⁶ receipts a day", "GB a day",
)  # fmt: skip


def taken(stories: float, cost: StoryCost) -> list[str]:
    """A row of the table: what so many stories a day take."""
    average = stories / DAY
    peak = average * PEAK
    needed = ((5, cost.gates), (2, cost.workers), (2, cost.database))
    return [
        f"{stories:,.0f}", f"{peak:,.0f}",
        *(f"{max(least, up(peak * seconds / UTILISED)):,}" for least, seconds in needed),
        f"{average * cost.commits:,.0f}", f"{peak * cost.wal / 1e6:,.1f}",
        f"{stories * cost.receipts / 1e6:,.0f}", f"{stories * cost.disk / 1e9:,.0f}",
    ]  # fmt: skip


def costs_of_steps(by_steps: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    rows = (
        ("Receipts", "receipts", 1, 0),
        ("Commits that write", "writes", 1, 0),
        ("Write-ahead log, kB", "wal", 1_000, 0),
        ("On disk after VACUUM, kB, with indexes and the gates' own rows", "disk", 1_000, 0),
        *((f"Processor of {name}, ms", f"cpu {name}", 0.001, 1) for name in (*GATES, "workers", "PostgreSQL")),
    )
    return [
        [title, *(f"{by_steps[steps][name] / unit:,.{digits}f}" for steps in ("3", "20"))]
        for title, name, unit, digits in rows
    ]


def section(measured: Mapping[str, Any], words: str) -> list[str]:
    """docs/scale.md's part about the whole of the gates. `words` is tasks.md, with `{…}` where a figure stands."""
    cost = story_cost(measured)
    simulated = [simulate(cell, cost) for cell in cells(cost, measured)]
    alone, run, flood, ratios = (measured[name] for name in ("alone", "at_once", "flood", "ratios"))
    free, limited = flood["no limit"], flood["60 a minute"]
    shown = ("name", "per_second", "p50_ms", "p99_ms", "database_busy")
    return words.format(
        date=measured["machine"]["date"], worker_processes=measured["workers"],
        processors=measured["machine"]["processors"],
        receipts=f"{cost.receipts:.0f}",
        costs=table(("A story of", "3 steps", "20 steps"), costs_of_steps(measured["cost"])),
        alone_p50=f"{alone['3']['p50_ms']:,.0f}", alone_p99=f"{alone['3']['p99_ms']:,.0f}",
        alone_20=f"{alone['20']['p50_ms']:,.0f}", clients=run["3"]["clients"],
        rate=f"{run['3']['per_second']:.1f}", rate_20=f"{run['20']['per_second']:.1f}",
        reference_ms=f"{measured['reference']['story_ms']:.0f}", latency_ratio=f"{ratios['latency']:.1f}",
        rate_ratio=f"{ratios['rate']:.1%}", commits=f"{cost.commits:.0f}",
        commit_kb=f"{cost.wal / cost.commits / 1_000:.1f}",
        gate_mb=f"{max(size for name, size in measured['memory'].items() if name != 'a worker'):.0f}",
        worker_mb=f"{measured['memory']['a worker']:.0f}",
        database_share=f"{cost.database / cost.processors:.0%}", gates_share=f"{cost.gates / cost.processors:.0%}",
        flood_clients=free["clients"], flood_ratio=free["p99_ratio"], flood_p50=free["p50_ratio"],
        flood_admitted=f"{free['admitted']:,}", limited_ratio=limited["p99_ratio"], limited_p50=limited["p50_ratio"],
        limited_refused=f"{limited['refused']:,}", limited_admitted=f"{limited['admitted']:,}",
        peak=PEAK, utilised=f"{UTILISED:.0%}",
        days=table(COLUMNS, [taken(stories, cost) for stories in (1e6, 1e7, 1e8)]),
        simulated_rate=simulated[0]["per_second"], simulated_p50=f"{simulated[0]['p50_ms']:,}",
        run_p50=f"{run['3']['p50_ms']:,.0f}",
        cells=table(
            ("What arrives", "ended, 1/s", "p50 ms", "p99 ms", "PostgreSQL busy"),
            [[item[name] for name in shown] for item in simulated],
        ),
        cell_processors=CELL_PROCESSORS, per_cell=f"{cost.per_cell / 1e6:.1f}", number_of_cells=up(1e8 / cost.per_cell),
        disk_per_million=f"{cost.disk * 1e6 / 1e9:,.0f}", terabytes_a_year=f"{cost.disk * 365e6 / 1e12:,.0f}",
    ).splitlines()  # fmt: skip


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
    return "\n".join(lines)
