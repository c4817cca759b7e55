"""docs/scale.md: what more than one machine takes, calculated from the figures of one (part of `make bench-page`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

UTILISED = 0.6
"""How busy replicas and database are planned to be at the peak."""

ROWS = 4
"""Of a statement where little is busy. At the limit there are many more, and each is cheaper."""

DAY = 86_400
RETENTION_DAYS = 3


@dataclass(frozen=True, slots=True)
class CostFigures:
    """Microseconds of processor per boot, bytes per boot and per row, megabytes of a worker."""

    worker: float
    statement: float
    row: float
    commit: float
    wal: float
    startup_bytes: float
    key_bytes: float
    world_bytes: float
    worker_mb: float


@dataclass(frozen=True, slots=True)
class FleetSize:
    """`restarts`: boots of each pod per day. `peak_within`: seconds in which `peak` pods boot at worst."""

    name: str
    pods: int
    bindings: int
    tenants: int
    restarts: float
    peak: int
    peak_within: float


FLEETS = (
    FleetSize("one cluster, 5,000 pods, all restarted in a minute", 5_000, 500, 50, 3, 5_000, 60),
    FleetSize("a region, 10⁵ pods, all restarted in a minute", 100_000, 5_000, 1_000, 3, 100_000, 60),
    FleetSize("10⁴ tenants of 20 pods, a tenth restarted in a minute", 200_000, 40_000, 10_000, 3, 20_000, 60),
    FleetSize("10⁶ pods, all restarted in ten minutes", 1_000_000, 50_000, 10_000, 3, 1_000_000, 600),
    FleetSize("10⁶ pods, all restarted in a minute", 1_000_000, 50_000, 10_000, 3, 1_000_000, 60),
)


def figures(results: Mapping[str, Any]) -> CostFigures:
    micro = results["regions"]["microseconds"]
    world = results["scale"]["worlds"][-1]["bytes_per_row"]
    part = results["bench"]["bootstrap"]
    return CostFigures(
        worker=micro["worker"],
        statement=micro["statement"],
        row=micro["row"],
        commit=micro["commit"],
        wal=part["wal_bytes_per_bootstrap"],
        startup_bytes=world["startup"],
        key_bytes=world["idempotency key"],
        world_bytes=world["principal, binding, subject"],
        worker_mb=part["worker_mb"]["under_load"],
    )


def taken(fleet: FleetSize, of: CostFigures) -> Sequence[object]:
    """A row of the table: what the fleet's peak and its days take."""
    rate = fleet.peak / fleet.peak_within
    workers = rate * of.worker / 1e6 / UTILISED
    processors = rate * (of.statement / ROWS + of.row) / 1e6 / UTILISED
    boots = fleet.pods * fleet.restarts
    disk = boots * RETENTION_DAYS * of.startup_bytes + boots * of.key_bytes + fleet.bindings * of.world_bytes
    return (
        fleet.name,
        f"{rate:,.0f}",
        f"{max(2, _up(workers))}",
        f"{max(2, _up(processors))}",
        f"{rate * of.wal / 1e6:,.1f}",
        f"{boots / DAY:,.0f}",
        f"{disk / 1e9:,.1f}",
    )


def _up(value: float) -> int:
    return int(value) + (value > int(value))


COLUMNS = (
    "Fleet",
    "boots/s at the peak",
    "worker processes",
    "processors of PostgreSQL",
    "WAL MB/s",
    "boots/s on average",
    "GB on disk",
)

SIMULATED = (
    ("name", "What arrives"),
    ("last_answered_s", "last answered, s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("refused", "503, asked again"),
    ("rows_per_commit", "rows per commit"),
    ("commits_per_second", "commits/s"),
    ("database_busy", "database busy"),
)


def page(results: Mapping[str, Any], head: str) -> list[str]:
    """`head` is fleet.md: the words, with `{…}` where a figure or a table stands."""
    of = figures(results)
    herd = results["herd"]["herds"]["API key"]["last_answered_s"]
    filled = head.format(
        date=results["bench"]["machine"]["date"],
        worker=round(of.worker),
        statement=round(of.statement),
        row=round(of.row),
        rows=ROWS,
        commit=f"{of.commit / 1_000:.1f}",
        wal=f"{of.wal:,.0f}",
        startup=f"{of.startup_bytes:,.0f}",
        key=f"{of.key_bytes:,.0f}",
        worker_mb=f"{of.worker_mb:.0f}",
        utilised=f"{UTILISED:.0%}",
        retention=RETENTION_DAYS,
        herd=herd,
        herd_simulated=results["regions"]["regions"][0]["last_answered_s"],
        fleets="\n".join(_table(COLUMNS, [taken(fleet, of) for fleet in FLEETS])),
        regions="\n".join(
            _table(
                [says for _, says in SIMULATED],
                [[f"{region[name]:,}" if name != "name" else region[name] for name, _ in SIMULATED]
                 for region in results["regions"]["regions"]],
            )
        ),
    )  # fmt: skip
    return filled.splitlines()


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
