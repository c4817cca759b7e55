"""The rows, what stands for each, and how a run is told in lines (page.py: in docs/faults.md)."""

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.results import FaultResults


def whole() -> bool:
    """`make faults`: everything, the long variants too."""
    return os.environ.get("METAGATE_FAULTS") == "all"  # noqa: TID251 - the suite's own switch


@dataclass(frozen=True, slots=True)
class FaultRow:
    """`tests`: node ids, or their beginnings; all of them must pass. `root`: needs rights or tools of their own.

    `ci`: how much of the row `make test` plays, and so CI.
    """

    name: str
    fault: str
    injection: str
    promises: str
    tests: tuple[str, ...]
    root: str = ""
    ci: str = "yes"


SERVER = "tests/faults/test_server.py::test_"
NETWORK = "tests/faults/test_network.py::test_"
DISK = "tests/faults/test_disk.py::test_"
FAILOVER = "tests/faults/test_failover.py::test_"
CROWD = "tests/faults/test_crowd.py::test_"
CLOCK = "tests/faults/test_clocks.py::test_"
WORKERS = "tests/faults/test_workers.py::test_"
OPERATOR = "tests/operator/test_faults.py::test_"
STARTING = "tests/operator/test_starting.py::test_"
ISSUERS = "tests/operator/issuers/"

ROWS = (
    FaultRow("F01", "Database crash", "kill -9 of the server and its children, back after 3 s", "I1 I2 I4 I5", (SERVER + "f01",)),
    FaultRow("F02", "One backend killed", "kill -9 of one backend", "I1 I2 I4 I5", (SERVER + "f02",)),
    FaultRow("F03", "Connections terminated", "`pg_terminate_backend` of all, every second", "I1 I2 I5", (SERVER + "f03",), ci="3 s of 10"),
    FaultRow("F04", "Planned restart", "SIGINT, start", "I1 I4 I5", (SERVER + "f04",)),
    FaultRow("F05", "Database frozen", "SIGSTOP of the server and its backends", "I4 I5 I11", (SERVER + "f05",), ci="3 s of 10"),
    FaultRow("F06", "One backend frozen", "SIGSTOP of one backend", "I4 I5", (SERVER + "f06",)),
    FaultRow("F07", "Network blackhole", "proxy: nothing passes", "I4 I5", (NETWORK + "f07",), ci="3 s of 10"),
    FaultRow("F08", "Reset storm", "proxy: RST to all, every 300 ms", "I2 I5 I11", (NETWORK + "f08",)),
    FaultRow("F09", "Connection refused", "proxy: nobody listens", "I4 I5", (NETWORK + "f09",)),
    FaultRow("F10", "Latency in steps", "proxy: 5, 25, 50, 100, 250 ms one way", "I4 I5", (NETWORK + "f10",), ci="nothing published"),
    FaultRow("F11", "Committed, answer lost", "proxy: a fifth of the replies is cut", "I1 I2", (NETWORK + "f11",)),
    FaultRow("F12", "Slow drip", "proxy: a byte every 50 ms", "I4", (NETWORK + "f12",)),
    FaultRow("F13", "Failover to a replica", "read-only for 3 s; streaming, synchronous, promoted", "I1 I2 I5", (FAILOVER + "f13",)),
    FaultRow("F14", "Asynchronous replica promoted", "primary killed while its standby lags", "I1 (reported)", (FAILOVER + "f14",)),
    FaultRow("F15", "Lock on the sessions' table", "`LOCK TABLE … ACCESS EXCLUSIVE` for 3 s", "I4 I5", (SERVER + "f15",)),
    FaultRow("F16", "Lock on one session", "`SELECT … FOR UPDATE`", "I4", (SERVER + "f16",)),
    FaultRow("F17", "Slow database", "a trigger that sleeps 300 ms", "I2 I4", (SERVER + "f17",)),
    FaultRow("F18", "fsync fails", "strace: EIO from fsync and fdatasync", "I1 I5", (DISK + "f18",), "ptrace, strace"),
    FaultRow("F19", "Disk full", "a tmpfs that is filled", "I1 I4 I5", (DISK + "f19",), "root (mount)"),
    FaultRow("F20", "max_connections", "all slots taken", "I4 I5 I11", (SERVER + "f20",)),
    FaultRow("F21", "Pool exhausted", "500 at once, 8 connections, database 50 ms away", "I4 I11", (CROWD + "f21",)),
    FaultRow("F22", "Long migration lock", "`ALTER TABLE` behind an open transaction", "I4", (SERVER + "f22",)),
    FaultRow("F23", "Herd", "5,000 bootstraps at once by fresh connections, 2 replicas", "I2 I4 I11", (CROWD + "f23",), ci="2,000 of 5,000"),
    FaultRow("F24", "Retry storm", "retries at once while the database is away", "I5", (CROWD + "f24",)),
    FaultRow("F25", "Clock skew of the gate", "libfaketime: 10 min ahead, 10 min behind", "I6 I8", (CLOCK + "f25",), "libfaketime"),
    FaultRow("F26", "Clock jump of the database", "libfaketime: an hour ahead, then two back", "I2 I3", (CLOCK + "f26",), "libfaketime"),
    FaultRow("F27", "Operator killed while publishing", "kill -9 at each step", "I3 I9", (OPERATOR + "f27",), "API server (scripted)"),
    FaultRow("F28", "Two operators", "no lease", "I3", (STARTING + "f28",), "API server (real)"),
    FaultRow("F29", "Silent watch", "the API server sends nothing more", "I9", (OPERATOR + "f29",), "API server (scripted)"),
    FaultRow("F30", "410 Gone", "in the middle of a watch", "I3 I9", (OPERATOR + "f30",), "API server (scripted)"),
    FaultRow("F31", "API server away", "its port is closed", "I9", (OPERATOR + "f31",), "API server (scripted)"),
    FaultRow("F32", "Lost, shuffled, replayed events", "a scripted API server", "I3", (OPERATOR + "f32",), "API server (scripted)"),
    FaultRow("F33", "A thousand invalid objects", "and one valid world", "I6 I9 I10", (OPERATOR + "f33",), "API server (scripted)"),
    FaultRow("F34", "Issuer's keys rotated, corrupt, empty", "a scripted issuer, tokens", "I6 I9",
        (ISSUERS + "test_jwks.py::", ISSUERS + "test_refreshing.py::")),
    FaultRow("F35", "Worker killed, gate drained", "kill -9 of a worker, of all at once; SIGTERM of one of two replicas", "I1 I2 I5", (WORKERS + "f35",)),
    FaultRow("F36", "Everything paused", "SIGSTOP of gate and database", "I5 I6", (WORKERS + "f36",), ci="13 s of 60"),
)  # fmt: skip


DECISIONS = "tests/faults/test_interrogate.py::test_"
TASKS = "tests/faults/test_asyncgate.py::test_"
ARTIFACTS = "tests/faults/test_depotgate.py::test_"
_OF_BOTH = ("F01", "F02", "F03", "F04", "F05", "F06", "F07", "F08", "F09", "F10", "F11", "F12", "F15")
_WITHOUT_LENGTH = frozenset({"F02", "F04"})
_LATENCY = "F10"
ALSO_OF_METAGATE = frozenset({"F01", "F05", "F07", "F11"})
"""Of InterroGate's rows on MetaGate's side those that `make test` plays: no request asks that database."""
ALSO_OF_METAGATE_BY_ASYNCGATE = frozenset({"F07"})
"""The same of AsyncGate's, which follows that database by the same code."""
ALSO_OF_METAGATE_BY_DEPOTGATE = frozenset({"F07"})
"""And of DepotGate's."""


def _two_database_rows(tests: str, also_of_metagate: frozenset[str], prefix: str = "") -> tuple[FaultRow, ...]:
    """The rows of MetaGate that the two databases of a gate can have, once on each where a request can notice."""
    by_name = {row.name: row for row in ROWS}
    made, promises = [], "I1 I2 I4 I5 I6 I7 I10 I11"
    for side in ("ledger", "metagate"):
        for name in _OF_BOTH:
            test = f"f10_latency_in_steps[{side}]" if name == _LATENCY else f"{side}[{name}]"
            fault = by_name[name].fault if name != "F15" else "Lock on a table that is read"
            played = side == "ledger" or name in {*also_of_metagate, _LATENCY}
            ci = (
                "no"
                if not played
                else "5 and 250 ms"
                if name == _LATENCY
                else "yes"
                if name in _WITHOUT_LENGTH
                else "shorter"
            )
            made.append(
                FaultRow(f"{prefix}{name} {side}", fault, by_name[name].injection, promises, (tests + test,), ci=ci)
            )
    made.append(FaultRow(f"{prefix}F21 ledger", "More than the queue holds", "200 at once, 50 ms there and back", promises,
        (tests + "f21",)))  # fmt: skip
    return tuple(made)


def _retry_storm(tests: str, prefix: str = "") -> FaultRow:
    [retried] = [row for row in ROWS if row.name == "F24"]
    promises = "I1 I2 I4 I5 I6 I7 I10 I11"
    return FaultRow(f"{prefix}F24 ledger", retried.fault, retried.injection, promises, (tests + "f24",))


ADMISSION_ROWS = (
    *_two_database_rows(DECISIONS, ALSO_OF_METAGATE),
    FaultRow("F23 ledger", "One root that all want", "64 callers at four processes for 30 s", "I4 I5",
        ("tests/integration/interrogate/test_fairness.py::test_nobody_starves",), ci="4 s of 30"),
    _retry_storm(DECISIONS),
)  # fmt: skip
"""InterroGate's."""
TASK_ROWS = (*_two_database_rows(TASKS, ALSO_OF_METAGATE_BY_ASYNCGATE, "AG "), _retry_storm(TASKS, "AG "))
"""AsyncGate's."""
DEPOT_ROWS = (
    *_two_database_rows(ARTIFACTS, ALSO_OF_METAGATE_BY_DEPOTGATE, "DG "),
    FaultRow("DG F19 store", "Store full", "a tmpfs that is filled", "I1 I2 I4 I5 I6 I7 I10 I11", (ARTIFACTS + "f19",), "root (mount)"),
)  # fmt: skip
"""DepotGate's."""
AWAY = "tests/integration/delegate/test_gates_away.py::test_"
KILLED = "tests/integration/delegate/test_killed.py::test_"
CREDENTIALS = "tests/integration/delegate/test_rotating_credentials.py::test_"
PLAN_ROWS = (
    FaultRow("DE gate stopped", "A gate away at a step", "SIGTERM of the gate that each of eight steps asks", "I1 I2 I4 I5", (AWAY + "away_at_a_step",)),
    FaultRow("DE gate silent", "A gate that answers nothing", "SIGSTOP of DepotGate", "I1 I2 I4 I5", (AWAY + "a_gate_that_answers",)),
    FaultRow("DE InterroGate", "InterroGate away between admissions", "SIGTERM after the first of five", "I1 I2 I4 I5", (AWAY + "interrogate_away",)),
    FaultRow("DE killed", "DeleGate killed", "kill -9 before and after each step of a plan", "I1 I2 I5", (KILLED + "killed_while",)),
    FaultRow("DE key", "The key of a tenant rotated, withdrawn", "a new key in its file; a Principal without it", "I5 I6", (CREDENTIALS + "nobody_notices", CREDENTIALS + "a_withdrawn_key")),
)  # fmt: skip
"""DeleGate's, which has no database: what befalls the gates that it asks, and itself. A plan that was answered is there (I1), once (I2)."""
EVERY = (*ROWS, *ADMISSION_ROWS, *TASK_ROWS, *DEPOT_ROWS, *PLAN_ROWS)


def rows_of(nodeid: str) -> list[str]:
    return [row.name for row in EVERY if any(nodeid.startswith(test) for test in row.tests)]


def outcome(result: FaultResults) -> str:
    outcomes = set(result.outcomes.values())
    if "failed" in outcomes:
        return "FAILED"
    return "passed" if "passed" in outcomes else "skipped"


EVERY_ROW = ("acked", "refused", "lost", "duplicate", "mixed", "unacked", "replayed")


def lines(all_found: Mapping[str, FaultResults]) -> list[str]:
    printed = []
    for row in EVERY:
        if (result := all_found.get(row.name)) is None:
            continue
        figures = result.figures
        text = f"{row.name}  {row.fault:<38}{outcome(result):<8}"
        if "worst" in figures:
            text += " ".join(f"{name} {figures[name]}" for name in EVERY_ROW)
            text += f"  worst {figures['worst'] * 1_000:.0f} ms  recovery {figures['recovery']:.2f} s"
        printed.append(
            text + (f"  {extra(figures)}" if extra(figures) else "") + "".join(f"  ({why})" for why in result.reasons)
        )
    passed = sum(outcome(all_found[row.name]) == "passed" for row in ROWS if row.name in all_found)
    for gate, rows in (
        ("InterroGate", ADMISSION_ROWS),
        ("AsyncGate", TASK_ROWS),
        ("DepotGate", DEPOT_ROWS),
        ("DeleGate", PLAN_ROWS),
    ):
        if played := [all_found[row.name] for row in rows if row.name in all_found]:
            good = sum(outcome(result) == "passed" for result in played)
            whose = gate if gate == "DeleGate" else f"{gate}'s databases"
            printed.append(f"Faults of {whose}: {good}/{len(rows)} passed")
    sums = {
        name: sum(value.figures.get(name, 0) for value in all_found.values()) for name in ("lost", "duplicate", "mixed")
    }
    return [
        *printed,
        f"Faults: {passed}/{len(ROWS)} passed, " + ", ".join(f"{name} {value}" for name, value in sums.items()),
    ]


def extra(figures: Mapping[str, Any]) -> str:
    known = {*EVERY_ROW, "calls", "worst", "worst_wall", "recovery", "broken"}
    return ", ".join(f"{name.replace('_', ' ')} {_said(value)}" for name, value in figures.items() if name not in known)


def _said(value: Any) -> str:
    """Shares by step as `5: 100 %`."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}: {share:.0%}" for name, share in value.items())
    return str(value)


def machine() -> str:
    model = platform.processor() or platform.machine()
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    return f"{os.cpu_count()} processors ({model}), Linux {platform.release().split('-')[0]}"
