"""Which faults befall the whole system, drawn from a seed: the same seed plans the same faults, whatever they take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random
from typing import Final

LEDGER_DATABASE, METAGATE_DATABASE = "ledger database", "metagate database"
CALLS: Final = ("post_receipts", "deposit_plan", "admit", "enqueue", "task_receipts", "check_tasks")
REQUESTS: Final = ("/lease", "/lease/renew", "/complete", "/artifacts", "/close")
STEPS: Final[Mapping[str, tuple[str, ...]]] = {
    "memorygate": ("memorygate.append",),
    "asyncgate": ("asyncgate.enqueue", "asyncgate.lease_tasks", "asyncgate.end_leases", "asyncgate.renew"),
    "depotgate": ("depotgate.store",),
    "interrogate": ("interrogate.record", "interrogate.settle_forwards"),
    "admitting": CALLS,
    "worker": REQUESTS,
    "another worker": REQUESTS,
    "cognigate": REQUESTS[:-1],
    "another cognigate": REQUESTS[:-1],
}
"""What each process does that matters: a statement of a gate, a call of DeleGate's, a request of a worker's."""
DATABASES: Final = (LEDGER_DATABASE, METAGATE_DATABASE)
PARTS: Final = (*STEPS, *DATABASES)
MOMENTS: Final = ("before", "after")
LEASE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """`how`: `kill` (at once), `point` (before or after a step, by itself), `stop` (SIGSTOP for `seconds`).

    `pause`: seconds after the fault before it. `seconds`: for how long the part is away.
    """

    number: int
    part: str
    how: str
    pause: float
    seconds: float
    point: str = ""


def _turns() -> list[tuple[str, str, str]]:
    """Part, how and point of every fault that has its turn before any has its second."""
    points = [
        (part, "point", f"{moment} {step}") for part, steps in STEPS.items() for step in steps for moment in MOMENTS
    ]
    kills = [(part, "kill", "") for part in STEPS] * 4 + [(part, "kill", "") for part in DATABASES] * 8
    stops = [(part, "stop", "") for part in STEPS]
    others = len(points) + len(kills)
    return [*points, *kills, *(stops[number % len(stops)] for number in range(round(others / 9)))]


TURNS: Final = _turns()


@cache
def _block(seed: int, block: int) -> list[tuple[str, str, str]]:
    turns = list(TURNS)
    Random(f"{seed}/block/{block}").shuffle(turns)
    return turns


def planned_fault(seed: int, number: int) -> PlannedFault:
    """One of ten is a SIGSTOP past a lease, the rest are kills: at each named point, and at any moment."""
    random, (block, place) = Random(f"{seed}/{number}"), divmod(number, len(TURNS))
    part, how, point = _block(seed, block)[place]
    pause = round(random.uniform(0.02, 0.3), 3)
    away = LEASE_SECONDS + random.uniform(0.2, 1.5) if how == "stop" else random.uniform(0.0, 0.4)
    return PlannedFault(number, part, how, pause, round(away, 3), point)


def fault_plan(seed: int, first: int = 0) -> Iterator[PlannedFault]:
    """Without end, from the fault of this number on."""
    number = first
    while True:
        yield planned_fault(seed, number)
        number += 1


def planned_faults(seed: int, count: int, first: int = 0) -> list[PlannedFault]:
    return list(islice(fault_plan(seed, first), count))
