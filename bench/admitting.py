"""`make bench-interrogate`: what a decision of InterroGate costs beside pgbench writing the same rows, on many trees
and on one; and beside a million rows that are there already.

Every figure is a ratio of two things measured in one run, with durable commits; rounds alternate. Every request is
admitted (a denied one writes less), names no target and carries no Idempotency-Key. That a decision reads at most a
dozen rows is a test (tests/integration/interrogate/test_bounded_reads.py); what `decide` costs is `deciding.py`.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import asyncpg
import console
import ledger
import load
import machine
import policy_agent
import setting

from interrogate.schema import INTERROGATE
from interrogate.schema import WRITER as GATE_WRITER
from legivellum.postgres.migrations import migrate
from memorygate.schema import WRITER as LEDGER_WRITER
from memorygate.schema import migrate_ledger
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.models import PolicyProfileSpec
from metagate_store.publisher import Publisher
from metagate_store.rows import Change

RESULTS = Path(__file__).resolve().parent / "results"
SERVE = "from interrogate.main import main; main()"
PASSWORD = "of-the-benchmark"
CAPABILITY = "doc.write"
GOALS = {"many": 0.5, "single": 0.4, "p99": 2.0, "size": 1.2}
# Every limit is set, so that every one is judged; none is reached.
POLICY: dict[str, Any] = {
    "limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 1_000_000_000, "maxRepeatsPerCapability": 1_000_000_000},
    "budget": {"initial": 32},
    "surfaces": [
        {"surfaceId": "public", "principals": ["*"], "capabilities": {"allow": ["doc.*"]}, "parentage": "Tenant"}
    ],
}


@dataclass(frozen=True, slots=True)
class BenchTree:
    """An admitted root."""

    root: str
    receipt: str


@dataclass(frozen=True, slots=True)
class GateUnderLoad:
    """A served gate on a database of its own, and who asks it."""

    on: setting.BenchServer
    caller: ledger.BenchEmitter
    port: int
    process: int

    def request(self, path: str, causality: dict[str, object]) -> bytes:
        body = json.dumps(
            {
                "tenant_id": str(self.caller.tenant),
                "surface_id": "public",
                "policy_profile_id": "front-desk",
                "payload_kind": "task",
                "payload": {"text": "Review the draft and answer the mail."},
                "causality": {"capability_id": CAPABILITY, **causality},
            }
        ).encode()
        return (
            b"POST %s HTTP/1.1\r\nHost: bench\r\nX-API-Key: %s\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (path.encode(), self.caller.key.encode(), len(body), body)
        )

    def root_request(self, root: str) -> bytes:
        return self.request(
            "/v1/evaluate",
            {"root_task_id": root, "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0},
        )

    def child_request(self, tree: BenchTree, path: str = "/v1/evaluate") -> bytes:
        """Without a task id: each time that it is sent it is a new task."""
        return self.request(
            path,
            {
                "root_task_id": tree.root,
                "parent_task_id": tree.root,
                "caused_by_receipt_id": tree.receipt,
                "spawn_depth": 1,
            },
        )

    def trees(self, names: Sequence[str]) -> list[BenchTree]:
        """Roots of these names, admitted over HTTP."""
        requests = [self.root_request(name) for name in names]
        load.drive("127.0.0.1", self.port, requests, connections=16, seconds=60, warm=0, sharing="once")
        rows = asyncio.run(
            ledger.fetch(
                self.on,
                "SELECT task_id, receipt_id FROM interrogate.admitted WHERE depth = 0 AND task_id = ANY ($1)",
                list(names),
            )
        )
        assert len(rows) == len(names), "a root was not admitted"
        return [BenchTree(row["task_id"], row["receipt_id"]) for row in rows]


async def publish_policy(on: setting.BenchServer, tenant: UUID) -> None:
    body = PolicyProfileSpec.model_validate(POLICY).declared()
    row = setting._row(  # noqa: SLF001 - the benchmark's own
        tenant=str(tenant), name="front-desk", body=body, policy_hash=digest(canonical(body)), generation=1
    )
    publisher = await Publisher.open(on.publisher)
    await publisher.load()
    await publisher.publish(Change(upserts={"policy_profile": [row]}))
    await publisher.close()


@contextlib.contextmanager
def served(*, workers: int) -> Iterator[GateUnderLoad]:
    """A PostgreSQL with MetaGate's, the ledger's and the gate's schema, and the gate on it."""
    with setting.base() as on:
        owner = on.postgres.dsn()
        asyncio.run(migrate_ledger(owner, passwords={LEDGER_WRITER: PASSWORD}))
        asyncio.run(migrate(INTERROGATE, owner, passwords={GATE_WRITER: PASSWORD}))
        caller = ledger.ledger_principal("bench", "principal")
        asyncio.run(ledger.publish(on, caller))
        asyncio.run(publish_policy(on, caller.tenant))
        before, _, after = owner.partition("@")
        port = setting.free_port()
        environ = {
            **os.environ,  # noqa: TID251
            "INTERROGATE_DATABASE_URL": f"{before.partition('://')[0]}://{GATE_WRITER}:{PASSWORD}@{after}",
            "INTERROGATE_IDENTITY_DATABASE_URL": on.postgres.dsn("metagate_identity"),
            "INTERROGATE_PORT": str(port),
            "INTERROGATE_WORKERS": str(workers),
            "INTERROGATE_RATE_PER_SECOND": "0",
        }
        process = subprocess.Popen([sys.executable, "-c", SERVE, "serve"], env=environ, stderr=subprocess.DEVNULL)
        try:
            setting._until_ready(port, process)  # noqa: SLF001
            yield GateUnderLoad(on, caller, port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def ask(gate: GateUnderLoad, requests: list[bytes], arguments: argparse.Namespace, seconds: float) -> load.Tally:
    """Requests in turn over all connections. Every answer is an admission, or a 503 of a machine shared with others."""
    tally = load.drive(
        "127.0.0.1", gate.port, requests, connections=arguments.connections, seconds=seconds, warm=0.5, sharing="turns"
    )
    assert set(tally.statuses) <= {200, 503}, tally.statuses
    assert tally.statuses.get(503, 0) <= 0.01 * tally.statuses[200], tally.statuses
    return tally


def decided(gate: GateUnderLoad, requests: list[bytes], arguments: argparse.Namespace, seconds: float) -> load.Tally:
    """As `ask`, and each answer has its receipt."""
    before = admitted(gate)
    tally = ask(gate, requests, arguments, seconds)
    assert admitted(gate) - before >= tally.statuses[200], "an answer without a receipt"
    return tally


def admitted(gate: GateUnderLoad) -> int:
    rows = asyncio.run(ledger.fetch(gate.on, "SELECT sum(receipts)::bigint FROM memorygate.tally"))
    return int(rows[0][0] or 0)


class DecisionCounts(NamedTuple):
    """So far. `moved`: made again, because what a decision rests on had changed before it was stored."""

    stored: float
    moved: float


def counts(gate: GateUnderLoad) -> DecisionCounts:
    with urllib.request.urlopen(f"http://127.0.0.1:{gate.port}/metrics") as answer:
        text = answer.read().decode()

    def total(name: str) -> float:
        return sum(map(float, re.findall(rf"^interrogate_{name}_total(?:{{.*}})? ([0-9.e+]+)$", text, re.MULTILINE)))

    return DecisionCounts(total("decisions"), total("moved"))


# The rows that one admitted request leaves or changes, by one prepared statement without a question. The gate shares 16
# rows of the tally; here each connection has its own, so that the reference does not wait for a lock it need not take.
INSERT = """
WITH new AS MATERIALIZED (
    SELECT '{prefix}' || upper(substr(md5(random()::text), 1, 16)) AS id, '{root}' || :n AS root
), r AS (
    INSERT INTO memorygate.receipt (
        tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by, body,
        digest, previous, chain)
    SELECT '{tenant}', id, clock_timestamp(), 'admission', 'accepted', id, root, 1, id, '{cause}', E'{body}',
           decode('{hash}', 'hex'), decode('{hash}', 'hex'), decode('{hash}', 'hex') FROM new
), chained AS (
    INSERT INTO memorygate.task AS t (tenant, task_id, root_task_id, length, head)
    SELECT '{tenant}', root, root, 1, decode('{hash}', 'hex') FROM new
    ON CONFLICT (task_id, tenant) DO UPDATE SET length = t.length + 1, head = excluded.head
), task AS (
    INSERT INTO memorygate.task (tenant, task_id, root_task_id) SELECT '{tenant}', id, root FROM new
), tally AS (
    INSERT INTO memorygate.tally AS t (tenant, slot, receipts, last_stored_at)
    VALUES ('{tenant}', pg_backend_pid(), 1, clock_timestamp())
    ON CONFLICT (tenant, slot) DO UPDATE SET
        receipts = t.receipts + 1, last_stored_at = greatest(t.last_stored_at, excluded.last_stored_at)
), counted AS (
    INSERT INTO interrogate.root AS t (tenant, root_task_id, version, descendants)
    SELECT '{tenant}', root, 1, 1 FROM new
    ON CONFLICT (root_task_id, tenant) DO UPDATE SET version = t.version + 1, descendants = t.descendants + 1
), repeated AS (
    INSERT INTO interrogate.capability AS t (tenant, root_task_id, capability_id, admissions)
    SELECT '{tenant}', root, '{capability}', 1 FROM new
    ON CONFLICT (root_task_id, capability_id, tenant) DO UPDATE SET admissions = t.admissions + 1
)
INSERT INTO interrogate.admitted (
    tenant, task_id, root_task_id, parent_task_id, depth, budget, recent, receipt_id, principal_key, digest)
SELECT '{tenant}', id, root, root, 1, 31, '{recent}', id, 'bench', decode('{hash}', 'hex') FROM new;
"""
SAMPLE = """
SELECT r.body, a.recent FROM interrogate.admitted AS a
JOIN memorygate.receipt AS r ON r.receipt_id = a.receipt_id AND r.tenant = a.tenant WHERE a.depth = 1 LIMIT 1
"""


def pgbench_script(gate: GateUnderLoad, trees: int) -> Path:
    """Of a tenant of its own, with as many roots whose names are as long; the receipt is one that the gate wrote."""
    [sample] = asyncio.run(ledger.fetch(gate.on, SAMPLE))
    statement = INSERT.format(
        prefix=ledger.ulid_prefix(),
        tenant=uuid4(),
        root="root-",
        cause="0" * 26,
        # A colon would begin one of pgbench's variables.
        body=sample["body"].replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3a"),
        recent=sample["recent"],
        capability=CAPABILITY,
        hash="ab" * 32,
    )
    script = Path(tempfile.mkdtemp(prefix="interrogate-pgbench-")) / "insert.sql"
    script.write_text(f"\\set n random(0, {trees - 1})\n{statement.replace(chr(10), ' ').strip()}\n")
    return script


def pgbench(gate: GateUnderLoad, script: Path, *, connections: int, seconds: float) -> float:
    command = [str(setting._binary(gate.on)), "-n", "-M", "prepared", "-c", str(connections), "-j", "2"]  # noqa: SLF001
    database = gate.on.superuser.replace("/postgres?", "/metagate?")
    completed = subprocess.run(
        [*command, "-T", str(max(1, round(seconds))), "-f", str(script), database],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(re.search(r"tps = ([\d.]+)", completed.stdout)[1])


def beside_pgbench(gate: GateUnderLoad, arguments: argparse.Namespace) -> dict[str, Any]:
    """Many trees, pgbench with as many, one tree, and `check`, which decides and stores nothing: by turns."""
    trees = gate.trees([f"root-{number}" for number in range(arguments.roots)])
    many = [gate.child_request(tree) for tree in trees]
    check = [gate.child_request(tree, "/v1/check") for tree in trees]
    decided(gate, many, arguments, 1)
    script = pgbench_script(gate, arguments.roots)
    pgbench(gate, script, connections=arguments.connections, seconds=1)
    families = {"Python": gate.process, "PostgreSQL": gate.on.postgres.server_pid or 0}
    shares = {name: machine.ProcessorShares(families) for name in ("many", "single", "check", "pgbench")}
    tallies: dict[str, list[load.Tally]] = {"many": [], "single": [], "check": []}
    reference: list[float] = []
    again: dict[str, list[float]] = {"many": [], "single": []}
    for number in range(arguments.rounds):
        console.step(f"beside pgbench: round {number + 1} of {arguments.rounds}")
        before = counts(gate)
        with shares["many"].watching():
            tallies["many"].append(decided(gate, many, arguments, arguments.seconds))
        again["many"].append(moved_per_decision(before, counts(gate)))
        with shares["pgbench"].watching():
            reference.append(pgbench(gate, script, connections=arguments.connections, seconds=arguments.seconds))
        before = counts(gate)
        with shares["single"].watching():
            tallies["single"].append(decided(gate, [many[number]], arguments, arguments.seconds))
        again["single"].append(moved_per_decision(before, counts(gate)))
        with shares["check"].watching():
            tallies["check"].append(ask(gate, check, arguments, arguments.seconds))
    rows = {
        name: {
            "per_second": round(statistics.median(tally.rate for tally in measured)),
            "p50_ms": round(statistics.median(tally.quantile(0.5) for tally in measured), 1),
            "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in measured), 1),
            **ratios([tally.rate / limit for tally, limit in zip(measured, reference, strict=True)]),
            "late": sum(tally.statuses.get(503, 0) for tally in measured),
        }
        for name, measured in tallies.items()
    }
    p99 = [
        single.quantile(0.99) / many.quantile(0.99)
        for single, many in zip(tallies["single"], tallies["many"], strict=True)
    ]
    return {
        "rows": rows,
        "pgbench_per_second": round(statistics.median(reference)),
        "p99": ratios(p99),
        "moved_per_decision": {name: round(statistics.median(numbers), 2) for name, numbers in again.items()},
        "cpu_shares": {name: watched.shares for name, watched in shares.items()},
    }


def beside_agent(gate: GateUnderLoad, arguments: argparse.Namespace) -> dict[str, Any]:
    """The gate, Open Policy Agent without a record, and with its decision log in the gate's PostgreSQL: by turns."""
    binary = policy_agent.built()
    names = [f"beside-{number}" for number in range(arguments.roots)]
    many = [gate.child_request(tree) for tree in gate.trees(names)]
    database = gate.on.superuser.replace("/postgres?", "/metagate?")
    tallies: dict[str, list[load.Tally]] = {"gate": [], "bare": [], "logged": []}
    logged: list[float] = []
    decided(gate, many, arguments, 1)
    for number in range(arguments.rounds):
        console.step(f"beside Open Policy Agent: round {number + 1} of {arguments.rounds}")
        tallies["gate"].append(decided(gate, many, arguments, arguments.short_seconds))
        for name, dsn in (("bare", None), ("logged", database)):
            with policy_agent.agent(binary, dsn=dsn) as served:
                requests = [served.request(root, gate.caller.name, CAPABILITY) for root in names]
                measured = policy_agent.measured(
                    served, requests, connections=arguments.connections, seconds=arguments.short_seconds
                )
            tallies[name].append(measured["tally"])
            if dsn is not None:
                logged.append(measured["logged"] / sum(measured["tally"].statuses.values()))
    return {
        "version": policy_agent.VERSION,
        # Of the warm-up too, so it may be above one.
        "logged_per_answer": round(statistics.median(logged), 2),
        **{
            name: {
                "per_second": round(statistics.median(tally.rate for tally in measured)),
                "p50_ms": round(statistics.median(tally.quantile(0.5) for tally in measured), 1),
                "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in measured), 1),
                **ratios([tally.rate / own.rate for tally, own in zip(measured, tallies["gate"], strict=True)]),
            }
            for name, measured in tallies.items()
        },
    }


def moved_per_decision(before: DecisionCounts, after: DecisionCounts) -> float:
    return (after.moved - before.moved) / (after.stored - before.stored)


def ratios(by_round: Sequence[float]) -> dict[str, Any]:
    return {
        "ratio": round(statistics.median(by_round), 2),
        "ratios_by_round": [round(ratio, 2) for ratio in by_round],
    }


# What an admitted child leaves behind, once for each number.
FILL = """
WITH made AS MATERIALIZED (SELECT $4::text || lpad(n::text, 16, '0') AS id, n FROM generate_series($1::bigint, $2) AS n
), r AS (
    INSERT INTO memorygate.receipt (
        tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by, body,
        digest, previous, chain)
    SELECT $3::text::uuid, id, clock_timestamp(), 'admission', 'accepted', id, $5::text, n + 1, id, $6::text, $7::text,
           sha256(id::bytea), sha256('previous'), sha256('chain') FROM made
), t AS (
    INSERT INTO memorygate.task (tenant, task_id, root_task_id) SELECT $3::text::uuid, id, $5 FROM made
)
INSERT INTO interrogate.admitted (
    tenant, task_id, root_task_id, parent_task_id, depth, budget, recent, receipt_id, principal_key, digest)
SELECT $3::text::uuid, id, $5, $5, 1, 31, $8::text, id, 'bench', sha256(id::bytea) FROM made
"""
COUNTERS = """
WITH counted AS (
    UPDATE interrogate.root SET version = version + $3, descendants = descendants + $3
    WHERE root_task_id = $2 AND tenant = $1::text::uuid
), repeated AS (
    UPDATE interrogate.capability SET admissions = admissions + $3
    WHERE root_task_id = $2 AND tenant = $1::text::uuid
)
UPDATE memorygate.task SET length = length + $3 WHERE task_id = $2 AND tenant = $1::text::uuid
"""


async def fill(gate: GateUnderLoad, tree: BenchTree, descendants: int) -> None:
    """Descendants of a root, with what is counted of them. Their chain is not one: nothing here reads it."""
    [sample] = await ledger.fetch(gate.on, SAMPLE)
    prefix, tenant = ledger.ulid_prefix(), str(gate.caller.tenant)
    starts = iter(range(1, descendants + 1, ledger.ROWS_AT_ONCE))

    async def some() -> None:
        connection = await asyncpg.connect(gate.on.superuser.replace("/postgres?", "/metagate?"))
        try:
            await connection.execute("SET synchronous_commit = off")
            for first in starts:
                last = min(first + ledger.ROWS_AT_ONCE - 1, descendants)
                values = (tenant, prefix, tree.root, tree.receipt, sample["body"], sample["recent"])
                await connection.execute(FILL, first, last, *values)
        finally:
            await connection.close()

    await asyncio.gather(*(some() for _ in range(ledger.FILLERS)))
    await ledger.fetch(gate.on, COUNTERS, tenant, tree.root, descendants)


async def fill_large(gate: GateUnderLoad, tree: BenchTree, descendants: int) -> None:
    async with ledger.bare(gate.on):
        await fill(gate, tree, descendants)
    await ledger.fetch(gate.on, "ANALYZE memorygate.task, interrogate.admitted")


def beside_rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """One tree at a time: of a thousand descendants in a small database, of a thousand beside a million rows of another
    tree, and that other tree. Each round has new trees of a thousand.
    """
    with served(workers=arguments.workers) as small, served(workers=arguments.workers) as large:
        started = time.perf_counter()
        names = [f"small-{number}" for number in range(arguments.rounds + 1)]
        trees = {gate.port: gate.trees(names) for gate in (small, large)}
        [tree] = large.trees(["large"])
        for gate in (small, large):
            decided(gate, [gate.child_request(trees[gate.port][-1])], arguments, 0.5)
            for other in trees[gate.port]:
                asyncio.run(fill(gate, other, 1_000))
        asyncio.run(fill_large(large, tree, arguments.rows))
        filled = time.perf_counter() - started
        console.step(f"filled in {filled:.0f} s")
        tallies: dict[str, list[load.Tally]] = {"small": [], "unrelated": [], "descendants": []}
        decided(large, [large.child_request(tree)], arguments, 1)
        for number in range(arguments.rounds):
            console.step(f"beside rows: round {number + 1} of {arguments.rounds}")
            turns = [
                ("small", small, trees[small.port][number]),
                ("unrelated", large, trees[large.port][number]),
                ("descendants", large, tree),
            ]
            # Another one is first in every round: what comes first has the disk to itself for longer.
            for name, gate, of in itertools.islice(itertools.cycle(turns), number % 3, number % 3 + 3):
                measured = decided(gate, [gate.child_request(of)], arguments, arguments.short_seconds)
                tallies[name].append(measured)

    def cost(name: str) -> dict[str, Any]:
        pairs = zip(tallies["small"], tallies[name], strict=True)
        return {
            "per_second": round(statistics.median(tally.rate for tally in tallies[name])),
            "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in tallies[name]), 1),
            **ratios([few.rate / many.rate for few, many in pairs]),
        }

    return {"rows_before": arguments.rows, "filled_in_seconds": round(filled), **{name: cost(name) for name in tallies}}


def shown(result: dict[str, Any]) -> None:
    if "beside" in result:
        part = result["beside"]
        console.table(
            f"Beside pgbench with the same rows, {part['pgbench_per_second']:,} per second",
            ("", "per second", "p50 ms", "p99 ms", "÷ pgbench", "goal"),
            [
                [name, row["per_second"], row["p50_ms"], row["p99_ms"], row["ratio"], GOALS.get(name)]
                for name, row in part["rows"].items()
            ],
            f"p99 on one tree ÷ on many: {part['p99']['ratio']}, goal {GOALS['p99']}; made again per decision: "
            f"{part['moved_per_decision']}; processors: {part['cpu_shares']}",
        )
    if "agent" in result:
        part = result["agent"]
        console.table(
            f"Beside Open Policy Agent {part['version']}",
            ("", "per second", "p50 ms", "p99 ms", "÷ InterroGate"),
            [
                [name, row["per_second"], row["p50_ms"], row["p99_ms"], row["ratio"]]
                for name, row in ((name, part[name]) for name in ("gate", "bare", "logged"))
            ],
            f"in its log: {part['logged_per_answer']} of the answers (those of the warm-up too)",
        )
    if "size" in result:
        part = result["size"]
        console.table(
            f"Beside {part['rows_before']:,} rows: what a decision costs",
            ("", "per second", "p99 ms", "cost", "goal"),
            [
                [name, part[name]["per_second"], part[name]["p99_ms"], part[name]["ratio"], GOALS["size"]]
                for name in ("small", "unrelated", "descendants")
            ],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement beside pgbench")
    parser.add_argument("--short-seconds", type=float, default=3, help="of each measurement beside rows")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--roots", type=int, default=1_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["beside", "agent", "size"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {
        "machine": machine.described(),
        "goals": GOALS,
        **{name: vars(arguments)[name] for name in ("rounds", "seconds", "short_seconds", "connections", "workers")},
        "roots": arguments.roots,
        "load_average_before": os.getloadavg()[0],
    }
    if arguments.only in {None, "beside"}:
        with served(workers=arguments.workers) as gate:
            result["beside"] = beside_pgbench(gate, arguments)
    if arguments.only in {None, "agent"}:
        try:
            with served(workers=arguments.workers) as gate:
                result["agent"] = beside_agent(gate, arguments)
        except policy_agent.AgentAbsent as reason:
            console.step(f"LEFT OUT: the comparison with Open Policy Agent, for {reason}")
    if arguments.only in {None, "size"}:
        result["size"] = beside_rows(arguments)
    shown(result)
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "interrogate.json"
    kept.write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {kept}")


if __name__ == "__main__":
    main()
