"""What the figures were measured on, and who used its processors meanwhile."""

import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def described() -> dict[str, object]:
    """For the head of a report."""
    cpu = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processors": os.cpu_count(),
        "processor": cpu[1].strip() if cpu else platform.machine(),
        "memory_gb": round(int(memory[1]) / 1e6) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def cpu_seconds(process: int) -> float:
    """What a process and its descendants have used, those that have ended included."""
    total = 0
    family = {process}
    for stat in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            pid, fields = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if pid in family or int(fields[1]) in family:
            family.add(pid)
            total += sum(map(int, fields[11:15]))
    return total / TICKS


def busy_seconds() -> float:
    """What all processors have worked since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    user, nice, system, _idle, _waiting, hard, soft, *_ = fields
    return (user + nice + system + hard + soft) / TICKS


def rss_megabytes(process: int) -> float:
    """What a process holds in memory, without its descendants."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def children(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


LOAD = "load generator"
OTHERS = "others"
"""Whatever else the machine did: large shares mean figures that say little."""


class ProcessorShares:
    """Processors used by this process (the load generator) and by families of others, added up over what is watched."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = processes
        self._used = dict.fromkeys((LOAD, *processes, OTHERS), 0.0)
        self._seconds = 0.0

    @contextmanager
    def watching(self) -> Iterator[None]:
        began, before = time.perf_counter(), self._now()
        yield
        self._seconds += time.perf_counter() - began
        for name, used in self._now().items():
            self._used[name] += used - before[name]

    def _now(self) -> dict[str, float]:
        ours = {
            LOAD: time.process_time(),
            **{name: cpu_seconds(process) for name, process in self._processes.items()},
        }
        return {**ours, OTHERS: busy_seconds() - sum(ours.values())}

    @property
    def shares(self) -> dict[str, float]:
        """Of all processors together, 0 to 1."""
        of = self._seconds * (os.cpu_count() or 1)
        return {name: round(used / of, 2) for name, used in self._used.items()} if of else {}
