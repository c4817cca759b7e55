"""Which faults befall the whole system, drawn from a seed: the same seed plans the same faults, whatever they take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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


def planned_fault(seed: int, number: int) -> PlannedFault:
    """One of ten is a SIGSTOP past a lease, four are kills at a named point, the rest kills at any moment."""
    random = Random(f"{seed}/{number}")
    part, share = random.choice(PARTS), random.random()
    pause, away = round(random.uniform(0.02, 0.3), 3), round(random.uniform(0.0, 0.4), 3)
    if number % 10 == 9:
        part = random.choice([*STEPS])
        return PlannedFault(number, part, "stop", pause, round(LEASE_SECONDS + random.uniform(0.2, 1.5), 3))
    if part in STEPS and share < 0.5:
        point = f"{random.choice(('before', 'after'))} {random.choice(STEPS[part])}"
        return PlannedFault(number, part, "point", pause, away, point)
    return PlannedFault(number, part, "kill", pause, away)


def fault_plan(seed: int, first: int = 0) -> Iterator[PlannedFault]:
    """Without end, from the fault of this number on."""
    number = first
    while True:
        yield planned_fault(seed, number)
        number += 1


def planned_faults(seed: int, count: int, first: int = 0) -> list[PlannedFault]:
    return list(islice(fault_plan(seed, first), count))
