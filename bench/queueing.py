"""`make bench-async`: what a task costs AsyncGate from its lease to its end.

Beside it stand the same receipts over HTTP, pgbench with the same functions, two plain queue statements, procrastinate
and pgqueuer; and what a million tasks change. Every figure is a ratio of two things measured in one run, with durable
commits; rounds alternate. A *pair* is a lease and its completion, over HTTP, one task at a time: two requests and two
receipts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import console
import ledger
import load
import machine
import other_queues
import setting
import uvloop
from ulid import ULID

from asyncgate import receipt_forms
from asyncgate.lease import Claim
from asyncgate.schema import ASYNCGATE, BROKER
from asyncgate.task import EMITTER
from legivellum.identity import api_keys
from legivellum.postgres.migrations import migrate
from memorygate.schema import WRITER, migrate_ledger

RESULTS = Path(__file__).resolve().parent / "results"
SERVE = "from {gate}.main import main; main()"
PASSWORD = "of-the-benchmark"
CAPABILITY = "bench"
WORKER = "worker"
MINTER = "minter"
GOALS = {
    "receipts": 0.5,
    "pgbench": 3.0,
    "plain queue": 0.4,
    "procrastinate": 4.0,
    "alone": 2.0,
    "size": 1.3,
    "enqueue": 0.5,
}
LEASE_ID = re.compile(rb'"lease_id": ?"([0-9A-Z]{26})"')
BATCH = 200

Script = Generator[bytes, tuple[int, bytes], None]
"""What one connection asks: requests out, status and body in."""


# ── the load ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class ScriptConnection(asyncio.Protocol):
    """A connection that asks what its script says, each request after the answer to the one before."""

    def __init__(self, script: Script, done: asyncio.Future[None]) -> None:
        self.script, self.done, self.buffer = script, done, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.write(next(self.script, None))

    def write(self, request: bytes | None) -> None:
        if request is None:
            self.transport.close()
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self.buffer.find(load.LENGTH, 0, end)
        length = int(self.buffer[at + len(load.LENGTH) : self.buffer.find(b"\r", at)]) if at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        status, body = int(self.buffer[9:12]), self.buffer[end + 4 :]
        self.buffer = b""
        try:
            self.write(self.script.send((status, body)))
        except StopIteration:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc) if exc is not None else self.done.set_result(None)


def drive(port: int, scripts: Sequence[Script]) -> None:
    """Run each script on a connection of its own, to its end."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        finished = []
        for script in scripts:
            done: asyncio.Future[None] = loop.create_future()
            await loop.create_connection(
                lambda script=script, done=done: ScriptConnection(script, done), "127.0.0.1", port
            )
            finished.append(done)
        await asyncio.gather(*finished)

    uvloop.run(run())


@dataclass(slots=True)
class PairTally:
    """What was done between `warm` and `until`, in seconds of `time.perf_counter`."""

    warm: float = 0.0
    until: float = 0.0
    pairs: list[float] = field(default_factory=list)
    """Seconds of each whole pair."""
    firsts: list[float] = field(default_factory=list)
    """Seconds of each first request: the lease."""
    statuses: dict[int, int] = field(default_factory=dict)
    empty: int = 0

    def start(self, *, warm: float, seconds: float) -> None:
        self.warm = time.perf_counter() + warm
        self.until = self.warm + seconds

    @property
    def rate(self) -> float:
        return len(self.pairs) / (self.until - self.warm)

    def count(self, status: int) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1


def milliseconds(seconds: Sequence[float], quantile: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))] * 1_000 if ordered else float("nan")


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class BenchCaller:
    """A principal of the benchmark's tenant."""

    tenant: UUID
    name: str
    type: str
    key: str = field(default_factory=lambda: api_keys.mint().key)

    def head(self, path: str) -> bytes:
        return (
            b"POST %s HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\nContent-Type: application/json\r\nContent-Length: "
            % (path.encode(), self.key.encode())
        )

    def post(self, path: str, body: object) -> bytes:
        content = json.dumps(body).encode()
        return b"%s%d\r\n\r\n%s" % (self.head(path), len(content), content)


def pair_script(worker: BenchCaller, tally: PairTally, end: str = "/complete") -> Script:
    """Lease one task and end its lease, again and again."""
    lease = worker.post("/lease", {"capabilities": [CAPABILITY], "most": 1, "wait_seconds": 0})
    claim: dict[str, object] = {"lease_id": "0" * 26}
    if end == "/complete":
        claim |= {"status": "success", "outcome_kind": "response_text", "outcome_text": "read 4711 words"}
    before, _, after = worker.post(end, claim).partition(b"0" * 26)
    while (began := time.perf_counter()) < tally.until:
        status, body = yield lease
        leased = time.perf_counter()
        tally.count(status)
        match = LEASE_ID.search(body) if status == 200 else None
        if match is None:
            if status == 200:
                tally.empty += 1
                return
            continue
        status, _ = yield before + match[1] + after
        tally.count(status)
        ended = time.perf_counter()
        if status == 200 and began >= tally.warm and ended < tally.until:
            tally.pairs.append(ended - began)
            tally.firsts.append(leased - began)


def accepted_receipt(minter: BenchCaller, task_id: str, recipient: str = EMITTER) -> dict[str, object]:
    return {
        "receipt_id": str(ULID()),
        "task_id": task_id,
        "obligation_id": task_id,
        "phase": "accepted",
        "principal_ai": minter.name,
        "recipient_ai": recipient,
        "task_type": "index",
        "task_summary": "index a document",
        "created_at": "2027-01-01T00:00:00Z",
    }


def completed_receipt(minter: BenchCaller, task_id: str, cause: object) -> dict[str, object]:
    return {
        "receipt_id": str(ULID()),
        "task_id": task_id,
        "obligation_id": task_id,
        "phase": "complete",
        "principal_ai": minter.name,
        "status": "success",
        "outcome_kind": "response_text",
        "outcome_text": "read 4711 words",
        "caused_by_receipt_id": cause,
        "completed_at": "2027-01-01T00:00:01Z",
    }


def receipts_script(minter: BenchCaller, tally: PairTally) -> Script:
    """Two receipts, one after the other: an obligation that is opened and closed by its principal."""
    while (began := time.perf_counter()) < tally.until:
        opened = accepted_receipt(minter, str(ULID()), minter.name)
        status, _ = yield minter.post("/receipts", opened)
        tally.count(status)
        if status != 201:
            continue
        first = time.perf_counter()
        closed = completed_receipt(minter, str(opened["task_id"]), opened["receipt_id"])
        status, _ = yield minter.post("/receipts", closed)
        tally.count(status)
        ended = time.perf_counter()
        if status == 201 and began >= tally.warm and ended < tally.until:
            tally.pairs.append(ended - began)
            tally.firsts.append(first - began)


def batches_script(requests: Iterator[bytes], tally: PairTally, check: Callable[[bytes], None]) -> Script:
    """Requests of all connections in turn, until there is none."""
    for request in requests:
        began = time.perf_counter()
        status, body = yield request
        tally.count(status)
        if status == 200:
            check(body)
            tally.pairs.append(time.perf_counter() - began)


# ── what is served ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class QueueUnderLoad:
    """A ledger and an AsyncGate on one database, and who asks them."""

    on: setting.BenchServer
    minter: BenchCaller
    worker: BenchCaller
    ledger_port: int
    port: int
    process: int

    @property
    def database(self) -> str:
        return self.on.superuser.replace("/postgres?", "/metagate?")

    def mint(self, task_ids: Sequence[str], *, connections: int = 8) -> float:
        """Accepted receipts whose obligations AsyncGate is asked to hold; seconds."""
        chunks = [task_ids[at : at + BATCH] for at in range(0, len(task_ids), BATCH)]
        requests = [
            self.minter.post("/receipts/batch", {"receipts": [accepted_receipt(self.minter, name) for name in chunk]})
            for chunk in chunks
        ]
        return self._send(self.ledger_port, requests, _receipts_stored, connections)

    def close(self, task_ids: Sequence[str], *, connections: int = 8) -> float:
        """The second receipts of obligations that the minter holds itself; seconds."""
        chunks = [task_ids[at : at + BATCH] for at in range(0, len(task_ids), BATCH)]
        requests = [
            self.minter.post(
                "/receipts/batch", {"receipts": [completed_receipt(self.minter, name, None) for name in chunk]}
            )
            for chunk in chunks
        ]
        return self._send(self.ledger_port, requests, _receipts_stored, connections)

    def park(self, task_ids: Sequence[str], *, connections: int = 8, at_once: int = BATCH) -> float:
        """Tasks whose obligations are minted; seconds."""
        requests = [
            self.minter.post(
                "/tasks/batch", {"items": [{"task": self.task(name)} for name in task_ids[at : at + at_once]]}
            )
            for at in range(0, len(task_ids), at_once)
        ]
        return self._send(self.port, requests, _tasks_parked, connections)

    def task(self, task_id: str) -> dict[str, object]:
        return {
            "task_id": task_id,
            "principal_ai": self.minter.name,
            "payload_pointer": f"s3://documents/{task_id}",
            "capability": CAPABILITY,
        }

    def fill(self, number: int) -> None:
        """So many tasks that wait."""
        task_ids = [str(ULID()) for _ in range(number)]
        self.mint(task_ids)
        self.park(task_ids)

    def _send(self, port: int, requests: Sequence[bytes], check: Callable[[bytes], None], connections: int) -> float:
        tally, left = PairTally(), iter(requests)
        began = time.perf_counter()
        drive(port, [batches_script(left, tally, check) for _ in range(connections)])
        assert tally.statuses == {200: len(requests)}, tally.statuses
        return time.perf_counter() - began


def _receipts_stored(body: bytes) -> None:
    statuses = {item["status"] for item in json.loads(body)["items"]}
    assert statuses <= {201}, body[:500]


def _tasks_parked(body: bytes) -> None:
    statuses = {item["status"] for item in json.loads(body)["items"]}
    assert statuses <= {201}, body[:500]


async def publish(on: setting.BenchServer, *callers: BenchCaller) -> None:
    emitters = [ledger.BenchEmitter(caller.tenant, caller.name, caller.type, (), caller.key) for caller in callers]
    await ledger.publish(on, *emitters)


@contextlib.contextmanager
def process(gate: str, environ: dict[str, str], *, workers: int) -> Iterator[tuple[int, int]]:
    """A gate as a process; its port and its id."""
    port, prefix = setting.free_port(), gate.upper()
    environ = {
        **os.environ,  # noqa: TID251
        **{f"{prefix}_{name}": value for name, value in environ.items()},
        f"{prefix}_PORT": str(port),
        f"{prefix}_WORKERS": str(workers),
        f"{prefix}_RATE_PER_SECOND": "0",
    }
    running = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(gate=gate), "serve"], env=environ, stderr=subprocess.DEVNULL
    )
    try:
        setting._until_ready(port, running)  # noqa: SLF001 - the benchmark's own
        yield port, running.pid
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)


def as_role(dsn: str, role: str) -> str:
    before, _, after = dsn.partition("@")
    return f"{before.partition('://')[0]}://{role}:{PASSWORD}@{after}"


@contextlib.contextmanager
def served(*, workers: int) -> Iterator[QueueUnderLoad]:
    """PostgreSQL with the schemas of MetaGate, the ledger and AsyncGate, and the two gates on it."""
    with contextlib.ExitStack() as stack:
        on = stack.enter_context(setting.base())
        owner = on.postgres.dsn()
        asyncio.run(migrate_ledger(owner, passwords={WRITER: PASSWORD}))
        asyncio.run(migrate(ASYNCGATE, owner, passwords={BROKER: PASSWORD}))
        tenant = uuid4()
        minter, worker = BenchCaller(tenant, MINTER, "principal"), BenchCaller(tenant, WORKER, "worker")
        asyncio.run(publish(on, minter, worker))
        identity = on.postgres.dsn("metagate_identity")
        ledger_port, _ = stack.enter_context(
            process(
                "memorygate",
                {"DATABASE_URL": as_role(owner, WRITER), "IDENTITY_DATABASE_URL": identity},
                workers=workers,
            )
        )
        port, pid = stack.enter_context(
            process(
                "asyncgate",
                {"DATABASE_URL": as_role(owner, BROKER), "IDENTITY_DATABASE_URL": identity},
                workers=workers,
            )
        )
        yield QueueUnderLoad(on, minter, worker, ledger_port, port, pid)


# ── pairs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def pairs(gate: QueueUnderLoad, *, connections: int, seconds: float, end: str = "/complete") -> PairTally:
    """A 503 of a machine that others use too is counted, and is no pair. The line never runs dry."""
    tally = PairTally()
    tally.start(warm=0.5, seconds=seconds)
    drive(gate.port, [pair_script(gate.worker, tally, end) for _ in range(connections)])
    assert set(tally.statuses) <= {200, 503}, tally.statuses
    assert tally.empty == 0, "the line ran dry"
    return tally


def drain(gate: QueueUnderLoad, connections: int) -> PairTally:
    """Pairs until nothing waits."""
    tally = PairTally()
    tally.start(warm=0, seconds=600)
    drive(gate.port, [pair_script(gate.worker, tally) for _ in range(connections)])
    return tally


def receipt_pairs(gate: QueueUnderLoad, *, connections: int, seconds: float) -> PairTally:
    tally = PairTally()
    tally.start(warm=0.5, seconds=seconds)
    drive(gate.ledger_port, [receipts_script(gate.minter, tally) for _ in range(connections)])
    assert set(tally.statuses) <= {201, 503}, tally.statuses
    return tally


# The two functions that a pair is, each with one item, as pgbench sends them. The prefix of ids is made here.
FUNCTIONS = """
SELECT lease_id AS lease FROM asyncgate.lease({prefix}, ARRAY['{tenant}']::uuid[], ARRAY['worker'], ARRAY[1],
ARRAY[NULL]::integer[], ARRAY[NULL]::text[], ARRAY[1], ARRAY['bench'], {issued}, {reassigned}, {expired}) \\gset
SELECT outcome FROM asyncgate.end_leases({prefix}, ARRAY['{tenant}']::uuid[], ARRAY[:lease]::text[], ARRAY['worker'],
'complete', ARRAY[{claim}], ARRAY[sha256(convert_to(:lease, 'UTF8'))], ARRAY[NULL]::text[], ARRAY['0 s']::interval[],
ARRAY[NULL]::text[], {expired}, {poisoned});
"""


def quoted(form: str) -> str:
    """As a text of SQL; a colon would begin one of pgbench's variables."""
    escaped = form.replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3a").replace("\x1e", "\\x1e")
    return f"E'{escaped}'"


def pgbench_script(tenant: UUID) -> Path:
    claim = receipt_forms.claim_form(
        Claim(
            tenant,
            WORKER,
            "0" * 26,
            {"status": "success", "outcome_kind": "response_text", "outcome_text": "read 4711 words"},
            b"",
        )
    )
    assert isinstance(claim, str), claim
    text = FUNCTIONS.format(
        prefix=f"('{ledger.ulid_prefix()}' || upper(substr(md5(random()::text), 1, 12)))",
        tenant=tenant,
        issued=quoted(receipt_forms.lease_issued()),
        reassigned=quoted(receipt_forms.reassigned()),
        expired=quoted(receipt_forms.expired()),
        poisoned=quoted(receipt_forms.poisoned()),
        claim=quoted(claim),
    )
    path = Path(tempfile.mkdtemp(prefix="async-pgbench-")) / "pair.sql"
    leasing, ending = text.strip().split("\\gset")
    path.write_text(f"{' '.join(leasing.split())} \\gset\n{' '.join(ending.split())}\n")
    return path


def beside_others(gate: QueueUnderLoad, arguments: argparse.Namespace) -> dict[str, Any]:
    """Pairs, and everything that they are compared with, by turns on one server."""
    script = pgbench_script(gate.minter.tenant)
    families = {"Python": gate.process, "PostgreSQL": gate.on.postgres.server_pid or 0}
    shares = machine.ProcessorShares(families)
    rounds: dict[str, list[float]] = {}
    alone: dict[str, list[float]] = {name: [] for name in ("p50", "p99", "pgbench", "plain queue")}
    late = 0

    def note(name: str, rate: float) -> None:
        rounds.setdefault(name, []).append(rate)

    gate.fill(2_000)
    pairs(gate, connections=arguments.connections, seconds=0.1)
    for number in range(arguments.rounds):
        console.step(f"beside others: round {number + 1} of {arguments.rounds}")
        needed = round(arguments.tasks * 1.5)
        gate.fill(needed)
        with shares.watching():
            tally = pairs(gate, connections=arguments.connections, seconds=arguments.seconds)
        late += tally.statuses.get(503, 0)
        note("AsyncGate", tally.rate)
        single = pairs(gate, connections=1, seconds=min(3.0, arguments.seconds))
        alone["p50"].append(milliseconds(single.pairs, 0.5))
        alone["p99"].append(milliseconds(single.pairs, 0.99))
        note("receipts", receipt_pairs(gate, connections=arguments.connections, seconds=arguments.seconds).rate)
        gate.fill(arguments.pgbench_tasks + 300)
        rate, _ = other_queues.pgbench(
            gate.on, gate.database, script, connections=arguments.connections, transactions=arguments.pgbench_tasks
        )
        note("pgbench", rate)
        _, one = other_queues.pgbench(gate.on, gate.database, script, connections=1, transactions=200)
        alone["pgbench"].append(one)
        plain = other_queues.measured_plain(
            gate.on, jobs=arguments.tasks, round_number=number, connections=arguments.connections
        )
        note("plain queue", plain["pairs"])
        alone["plain queue"].append(plain["alone_ms"])
        for name in other_queues.PACKAGES:
            part = other_queues.measured_package(gate.on, name, jobs=arguments.jobs, round_number=number)
            note(name, part["pairs"])
            note(f"{name} enqueue", part["enqueues"])
    ours = rounds["AsyncGate"]
    return {
        "per_second": {name: round(statistics.median(rates)) for name, rates in rounds.items()},
        "ratios": {
            name: ratios([mine / theirs for mine, theirs in zip(ours, rates, strict=True)])
            for name, rates in rounds.items()
            if name != "AsyncGate" and not name.endswith("enqueue")
        },
        "alone_ms": {name: round(statistics.median(values), 2) for name, values in alone.items()},
        "alone": ratios([mine / theirs for mine, theirs in zip(alone["p50"], alone["pgbench"], strict=True)]),
        "late": late,
        "cpu_shares": shares.shares,
    }


def ratios(by_round: Sequence[float]) -> dict[str, Any]:
    return {
        "ratio": round(statistics.median(by_round), 2),
        "ratios_by_round": [round(ratio, 2) for ratio in by_round],
    }


# ── enqueue, many processes, commits ─────────────────────────────────────────────────────────────────────────────────


def enqueueing(gate: QueueUnderLoad, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tasks per second by batches beside the two receipts of each by POST /receipts/batch; and one task a request."""
    batches, receipts, singles = [], [], []
    for number in range(arguments.rounds):
        console.step(f"enqueue: round {number + 1} of {arguments.rounds}")
        task_ids = [str(ULID()) for _ in range(arguments.tasks)]
        gate.mint(task_ids)
        batches.append(arguments.tasks / gate.park(task_ids))
        own = [str(ULID()) for _ in range(arguments.tasks)]
        receipts.append(arguments.tasks / receipts_twice(gate, own))
        one_by_one = [str(ULID()) for _ in range(arguments.tasks)]
        gate.mint(one_by_one)
        requests = [gate.minter.post("/tasks", gate.task(name)) for name in one_by_one]
        tally, left = PairTally(), iter(requests)
        began = time.perf_counter()
        drive(gate.port, [single_script(left, tally) for _ in range(arguments.connections)])
        assert set(tally.statuses) <= {201, 503}, tally.statuses
        singles.append(tally.statuses[201] / (time.perf_counter() - began))
    return {
        "per_second": {
            "batches": round(statistics.median(batches)),
            "receipts": round(statistics.median(receipts)),
            "one by one": round(statistics.median(singles)),
        },
        **ratios([mine / theirs for mine, theirs in zip(batches, receipts, strict=True)]),
    }


def single_script(requests: Iterator[bytes], tally: PairTally) -> Script:
    for request in requests:
        status, _ = yield request
        tally.count(status)


def receipts_twice(gate: QueueUnderLoad, task_ids: Sequence[str]) -> float:
    """Seconds of an accepted and a complete receipt for each, in batches that hold both."""
    half = BATCH // 2
    requests = []
    for at in range(0, len(task_ids), half):
        receipts = []
        for name in task_ids[at : at + half]:
            opened = accepted_receipt(gate.minter, name, gate.minter.name)
            receipts += [opened, completed_receipt(gate.minter, name, opened["receipt_id"])]
        requests.append(gate.minter.post("/receipts/batch", {"receipts": receipts}))
    return gate._send(gate.ledger_port, requests, _receipts_stored, 8)  # noqa: SLF001 - the benchmark's own


COMMITS = "SELECT xact_commit FROM pg_stat_database WHERE datname = 'metagate'"
RECEIPTS = "SELECT sum(receipts)::bigint FROM memorygate.tally"


def many_processes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Eight processes of the gate: no request passes its deadline. And the commits and receipts of a task, from before
    it is parked until it has ended.
    """
    with served(workers=8) as gate:
        gate.fill(1_000)
        drain(gate, arguments.connections)
        time.sleep(1.5)  # statistics of PostgreSQL are written once a second
        task_ids = [str(ULID()) for _ in range(arguments.tasks)]
        gate.mint(task_ids)
        before = [asyncio.run(ledger.fetch(gate.on, query))[0][0] for query in (COMMITS, RECEIPTS)]
        gate.park(task_ids)
        tally = drain(gate, arguments.connections)
        time.sleep(1.5)
        after = [asyncio.run(ledger.fetch(gate.on, query))[0][0] for query in (COMMITS, RECEIPTS)]
        done = len(tally.pairs)
    return {
        "processes": 8,
        "pairs": done,
        "late": sum(number for status, number in tally.statuses.items() if status != 200),
        "commits_per_task": round((after[0] - before[0]) / done, 2),
        "receipts_per_task": round((after[1] - before[1]) / done, 2),
    }


# ── a million tasks ──────────────────────────────────────────────────────────────────────────────────────────────────

# From a task that is parked: as many more that are held back, leased, of another mailbox or waiting behind it.
FILL = """
INSERT INTO asyncgate.task (
    tenant, task_id, obligation_id, principal_ai, capability, minter, root_task_id, depth, authority, escalation_to,
    document, digest, ttl_seconds, max_ttl_seconds, max_renewals, max_lifetime_seconds, max_leases, accepted_by,
    accepted_at, available_at, seq, waits, evidence, cause, number, lease_id, holder, issued_by, issued_at, lease_until,
    latest_expiry, renewals_left)
SELECT t.tenant, 'fill-' || n, 'fill-' || n, t.principal_ai,
       CASE kind WHEN 0 THEN 'other' ELSE t.capability END,
       t.minter, 'fill-' || n, 0, t.authority, t.escalation_to, t.document, t.digest, t.ttl_seconds, t.max_ttl_seconds,
       t.max_renewals, t.max_lifetime_seconds, t.max_leases, t.accepted_by, t.accepted_at,
       now() + CASE kind WHEN 3 THEN interval '0' ELSE interval '1 day' END, nextval('asyncgate.line'), 0, '{}',
       t.cause, 0, CASE kind WHEN 2 THEN lpad(n::text, 26, '0') END,
       CASE kind WHEN 2 THEN 'other' END,
       CASE kind WHEN 2 THEN t.cause END, CASE kind WHEN 2 THEN now() END,
       CASE kind WHEN 2 THEN now() + interval '1 day' END, CASE kind WHEN 2 THEN now() + interval '1 day' END,
       CASE kind WHEN 2 THEN 3 END
FROM (SELECT * FROM asyncgate.task LIMIT 1) AS t, generate_series($1::bigint, $2::bigint) AS n,
     LATERAL (SELECT n % 4) AS k(kind)
"""


async def fill_tasks(gate: QueueUnderLoad, number: int) -> None:
    connection = await asyncpg.connect(gate.database)
    try:
        await connection.execute("SET synchronous_commit = off")
        for first in range(1, number + 1, ledger.ROWS_AT_ONCE):
            await connection.execute(FILL, first, min(first + ledger.ROWS_AT_ONCE - 1, number), timeout=300)
        await connection.execute("VACUUM ANALYZE asyncgate.task", timeout=300)
    finally:
        await connection.close()


def beside_tasks(arguments: argparse.Namespace) -> dict[str, Any]:
    """How long a lease takes among a thousand tasks and among a million. Each is released again, so that the line stays
    as long as it is.
    """
    with served(workers=arguments.workers) as small, served(workers=arguments.workers) as large:
        small.fill(1_000)
        large.fill(1_000)
        started = time.perf_counter()
        asyncio.run(fill_tasks(large, arguments.rows))
        console.step(f"filled in {time.perf_counter() - started:.0f} s")
        times: dict[str, list[list[float]]] = {"small": [], "large": []}
        for gate in (small, large):
            pairs(gate, connections=8, seconds=1, end="/lease/release")
        for number in range(arguments.rounds):
            console.step(f"beside tasks: round {number + 1} of {arguments.rounds}")
            turns = [("small", small), ("large", large)]
            for name, gate in turns if number % 2 else reversed(turns):
                tally = pairs(gate, connections=8, seconds=arguments.seconds, end="/lease/release")
                times[name].append(tally.firsts)

    def by_quantile(quantile: float) -> dict[str, list[float]]:
        return {name: [milliseconds(seconds, quantile) for seconds in of] for name, of in times.items()}

    p50, p99 = by_quantile(0.5), by_quantile(0.99)
    return {
        "tasks": arguments.rows,
        "p50_ms": {name: round(statistics.median(values), 2) for name, values in p50.items()},
        "p99_ms": {name: round(statistics.median(values), 2) for name, values in p99.items()},
        **ratios([large / small for small, large in zip(p99["small"], p99["large"], strict=True)]),
    }


def shown(result: dict[str, Any]) -> None:
    if "beside" in result:
        part = result["beside"]
        console.table(
            f"Pairs of a lease and its completion, {result['connections']} connections",
            ("", "pairs per second", "AsyncGate ÷", "goal"),
            [
                [
                    name,
                    rate,
                    part["ratios"].get(name, {}).get("ratio"),
                    GOALS.get(name),
                ]
                for name, rate in part["per_second"].items()
            ],
            f"one pair alone: {part['alone_ms']} ms, ÷ pgbench {part['alone']['ratio']}, goal {GOALS['alone']}; "
            f"late {part['late']}; processors {part['cpu_shares']}",
        )
    for name in ("enqueue", "processes", "size"):
        if name in result:
            console.step(f"{name}: {result[name]}, goal {GOALS.get(name, 'no 503')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=8_000, help="at least what is leased in one measurement")
    parser.add_argument("--pgbench-tasks", type=int, default=1_000)
    parser.add_argument("--jobs", type=int, default=4_000, help="of procrastinate and pgqueuer")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["beside", "enqueue", "processes", "size"])
    arguments = parser.parse_args()
    kept = RESULTS / "async.json"
    result: dict[str, Any] = {
        "machine": machine.described(),
        "goals": GOALS,
        **{name: vars(arguments)[name] for name in ("rounds", "seconds", "connections", "workers", "tasks")},
        "load_average_before": os.getloadavg()[0],
    }
    if arguments.only is not None and kept.exists():
        result = {**json.loads(kept.read_text()), **result}
    if arguments.only in {None, "beside", "enqueue"}:
        with served(workers=arguments.workers) as gate:
            if arguments.only != "enqueue":
                result["beside"] = beside_others(gate, arguments)
            if arguments.only != "beside":
                result["enqueue"] = enqueueing(gate, arguments)
    if arguments.only in {None, "processes"}:
        result["processes"] = many_processes(arguments)
    if arguments.only in {None, "size"}:
        result["size"] = beside_tasks(arguments)
    shown(result)
    RESULTS.mkdir(exist_ok=True)
    kept.write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {kept}")


if __name__ == "__main__":
    main()
