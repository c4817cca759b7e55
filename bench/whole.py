"""`make bench-whole`: what a story costs, from a call of an MCP tool to its end, at the whole of the gates.

Every gate is a process of its own, workers of the library are processes too, PostgreSQL is one server with durable
commits, and all of it shares this machine with the load generator. Latency runs from the moment the client sends its
call to the moment at which the database stored the receipt that ends the plan: one clock.

The reference is pgbench on the same server: transactions that insert as many bytes as one commit of a story wrote on
average, as many of them as a story makes. What stories cost beyond it is what gates and workers do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import console
import httpx
import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.databases import ROLES, Server
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, gate_group, plan_tenant, plans_policy
from tests.integration.depotgate.conftest import make_depot
from tests.integration.interrogate.gate_fixture import problemata_row
from tests.integration.memorygate.conftest import new_id

from metagate_postgres import EmbeddedPostgres
from metagate_store.publisher import Publisher
from metagate_store.rows import Change

RESULTS = Path(__file__).resolve().parent / "results"
GATES = ("memorygate", "asyncgate", "depotgate", "interrogate", "admitting")
NAMES = {"admitting": "delegate"}
MCP = "2026-07-28"
SINK = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}
OUTPUT = {"mime": "text/markdown"}
STORY: dict[str, Any] = {
    "capability": "document.review",
    "parameters": {
        "type": "object", "required": ["documents"],
        "properties": {"documents": {"type": "array", "items": {"type": "string"}}},
    },
    "escalation": [],
    "result": "merge",
    "steps": [
        {
            "id": "read", "forEach": "documents", "capability": "document.work", "authority": SINK,
            "job": {"inputs": [{"name": "document", "pointer": "${item}"}], "output": OUTPUT},
        },
        {
            "id": "merge", "capability": "document.work", "authority": SINK,
            "job": {"inputs": [{"name": "parts", "step": "read"}], "output": OUTPUT},
        },
    ],
}  # fmt: skip
"""As many documents as are named are read, one step each, and merged."""
PROBLEMATA = {
    "version": "1", "payloadKind": "plan_request",
    "gateway": {"policyProfileRef": {"name": "front"}, "surfaceId": "desk", "principals": ["service"]},
    "capabilities": [{"id": "document.review"}],
}  # fmt: skip
WORKER = """
from legivellum_worker import Output, Work, Worker
worker = Worker(wait_seconds=5)
@worker.on("document.work")
def work(work: Work) -> Output:
    inputs = work.inputs()
    return Output(b" ".join(inputs[name] for name in sorted(inputs))[:4096].decode(), "text/markdown")
worker.run(parallel=4)
"""
"""It does what every worker does (input, output, end) and nothing else."""
DOCUMENT = b"The lighthouse keeper wrote down the weather of every day. " * 20
ENDED = """
    SELECT r.obligation_id, r.stored_at FROM memorygate.receipt AS r
    WHERE r.tenant = $1 AND r.obligation_id = ANY ($2) AND r.kind = 'obligation' AND r.phase = 'complete'
"""
COUNTERS = """
    SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS writes,
           (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS transactions,
           (SELECT count(*) FROM memorygate.receipt) AS receipts, pg_database_size(current_database()) AS disk
"""


@dataclass
class BenchTenant:
    """One tenant's client, and its workers, each a process of its own."""

    tenant: PlanTenant
    http: httpx.AsyncClient
    documents: list[str] = field(default_factory=list)
    sent: dict[str, float] = field(default_factory=dict)
    """When each story was asked for, by its id."""
    refused: int = 0
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_workers(self, number: int) -> None:
        group = self.tenant.gates
        key = group.directory / f"{self.tenant.namespace}.key"
        key.write_text(self.tenant.principals["worker"].key, encoding="ascii")
        urls = {f"METAGATE_{NAMES.get(gate, gate).upper()}_URL": group.url(gate) for gate in GATES}
        environment = {**urls, "METAGATE_API_KEY_FILE": str(key), "METAGATE_SPAWN_PROFILE": "front"}
        for _ in range(number):
            self.workers.append(
                subprocess.Popen(
                    [sys.executable, "-c", WORKER],
                    env={**os.environ, **environment},  # noqa: TID251
                    stderr=subprocess.DEVNULL,
                )
            )

    def stop_workers(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.workers.clear()

    async def deposit(self, number: int) -> None:
        for count in range(number):
            answer = await self.http.post(
                f"{self.tenant.gates.url('depotgate')}/artifacts?role=input", content=b"%d " % count + DOCUMENT,
                headers={"Content-Type": "text/plain", **self.tenant.principals["principal"].headers},
            )  # fmt: skip
            self.documents.append(answer.raise_for_status().json()["pointer"])

    async def ask(self, documents: int) -> str | None:
        """Call the tool as an agent does. The story's id, or None where it was refused."""
        story_id = new_id()
        arguments = {
            "problemata_id": "desk", "capability": "document.review", "mode": "async", "idempotency_key": story_id,
            "input": {"documents": self.documents[:documents]},
            "causality": {
                "root_task_id": story_id, "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0,
            },
        }  # fmt: skip
        meta = {"io.modelcontextprotocol/protocolVersion": MCP, "io.modelcontextprotocol/clientCapabilities": {}}
        name = "problemata.passthrough"
        message = {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": name, "arguments": arguments, "_meta": meta},
        }  # fmt: skip
        headers = {
            "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MCP, "Mcp-Method": "tools/call",
            "Mcp-Name": name, **self.tenant.principals["principal"].headers,
        }  # fmt: skip
        began = time.time()
        answer = await self.http.post(f"{self.tenant.gates.url('interrogate')}/mcp", json=message, headers=headers)
        result = answer.json().get("result", {})
        if answer.status_code != 200 or result.get("isError", True):
            self.refused += 1
            return None
        self.sent[story_id] = began
        return story_id

    async def latencies(self, story_ids: Sequence[str], seconds: float = 120) -> list[float]:
        """Milliseconds from the call to the end of each plan and of its last task, as soon as all have ended."""
        connection = await asyncpg.connect(self.tenant.gates.database.superuser)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    closes = [f"{story_id}.close" for story_id in story_ids]
                    rows = await connection.fetch(ENDED, self.tenant.uid, [*story_ids, *closes])
                    ends = {row["obligation_id"]: row["stored_at"].timestamp() for row in rows}
                    if len(ends) == 2 * len(story_ids):
                        return [(ends[story_id] - self.sent[story_id]) * 1_000 for story_id in story_ids]
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()


@asynccontextmanager
async def bench_gates(directory: Path, postgres: EmbeddedPostgres) -> AsyncIterator[GateGroup]:
    """With the settings that are installed, but for limits of rate: those of tests poll ten times as often."""
    passwords = {role: postgres.password(role) for role in ROLES}
    server = Server(postgres.dsn("postgres", database="postgres"), passwords, postgres)
    await server.make_template()
    group = await gate_group(await make_depot(server), directory)
    for environment in group.environments.values():
        for name in [name for name in environment if name.endswith(("_IDENTITY_POLL_MS", "_PASS_SECONDS"))]:
            del environment[name]
    try:
        for name in GATES:
            group.launch(name)
        await group.until_ready(*GATES)
        yield group
    finally:
        await group.close()


async def bench_tenant(group: GateGroup, http: httpx.AsyncClient, documents: int, limit: str = "") -> BenchTenant:
    """`limit`: stories per minute that its policy admits, and no limit without."""
    forwarding = "{}/intents/{}"
    tenant = await plan_tenant(group, templates={"review": STORY})
    policy = plans_policy(forwarding.format(group.url("admitting"), tenant.namespace))
    desk = {**policy["surfaces"][0], "surfaceId": "desk", "kind": "McpGateway"}
    if limit:
        desk["rateLimit"] = {"requests": int(limit), "per": "1m", "burst": 5}
    policy["surfaces"].append(desk)
    await tenant.publish(policies={"front": policy})
    publisher = await Publisher.open(group.database.database.publisher)
    await publisher.load()
    await publisher.publish(Change(upserts={"problemata": [problemata_row(tenant.uid, "desk", PROBLEMATA, uuid4())]}))
    await publisher.close()
    made = BenchTenant(tenant, http)
    await made.deposit(documents)
    async with asyncio.timeout(30):
        # InterroGate follows what is published; until then the tool is unknown there.
        while await made.ask(min(2, documents)) is None:
            await asyncio.sleep(0.2)
    made.refused = 0
    return made


# ── what is measured ─────────────────────────────────────────────────────────────────────────────────────────────────


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values: Sequence[float]) -> dict[str, float]:
    return {
        "p50_ms": round(statistics.median(values), 1), "p99_ms": round(quantile(values, 0.99), 1),
        "stories": len(values),
    }  # fmt: skip


async def one_by_one(tenant: BenchTenant, documents: int, stories: int) -> list[float]:
    """Each is asked for when the one before has ended."""
    milliseconds: list[float] = []
    for _ in range(stories):
        story_id = await tenant.ask(documents)
        assert story_id is not None, "a story was refused"
        milliseconds += await tenant.latencies([story_id])
    return milliseconds


async def at_once(tenant: BenchTenant, documents: int, stories: int, clients: int) -> dict[str, float]:
    """So many clients, each with one story at a time."""
    numbers = iter(range(stories))
    milliseconds: list[float] = []

    async def client() -> None:
        for _ in numbers:
            milliseconds.extend(await one_by_one(tenant, documents, 1))

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    seconds = time.perf_counter() - began
    return {"per_second": round(stories / seconds, 2), "seconds": seconds, "clients": clients, **summary(milliseconds)}


class CostMeter:
    """Counters of the database and the processor time of every process."""

    def __init__(
        self, group: GateGroup, postgres: EmbeddedPostgres, workers: Sequence[subprocess.Popen[bytes]]
    ) -> None:
        self._group, self._postgres, self._workers = group, postgres, workers

    async def read(self, *, vacuumed: bool = False) -> dict[str, float]:
        connection = await asyncpg.connect(self._group.database.superuser)
        try:
            await connection.execute("SELECT pg_stat_force_next_flush()")
            if vacuumed:
                await connection.execute("VACUUM ANALYZE")
            row = await connection.fetchrow(COUNTERS)
        finally:
            await connection.close()
        processor = {
            f"cpu {NAMES.get(name, name)}": machine.cpu_seconds(process.pid)
            for name, process in self._group.processes.items()
        }
        processor["cpu workers"] = sum(machine.cpu_seconds(worker.pid) for worker in self._workers)
        assert self._postgres.server_pid is not None
        processor["cpu PostgreSQL"] = machine.cpu_seconds(self._postgres.server_pid)
        return {**{name: float(value) for name, value in dict(row).items()}, **processor}


def per_story(
    before: dict[str, float], after: dict[str, float], idle: dict[str, float], stories: int
) -> dict[str, float]:
    """What one story cost. `idle`: what the same time cost without any."""
    return {name: round((after[name] - before[name] - idle.get(name, 0.0)) / stories, 5) for name in after}


async def costs(
    tenant: BenchTenant, meter: CostMeter, documents: int, stories: int, clients: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Rate and latencies of so many stories, and what one of them costs: what polls anyway is taken off."""
    seconds = 3.0
    first = await meter.read()
    await asyncio.sleep(seconds)
    before = await meter.read(vacuumed=True)
    at_rest = await meter.read(vacuumed=True)
    rate = await at_once(tenant, documents, stories, clients)
    after = await meter.read()
    idle = {
        name: (before[name] - first[name]) * rate["seconds"] / seconds
        for name in after
        if name not in {"receipts", "disk", "wal", "writes"}
    }
    cost = per_story(before, after, idle, stories)
    stored = await meter.read(vacuumed=True)
    cost["disk"] = round((stored["disk"] - at_rest["disk"]) / stories)
    return rate, cost


@asynccontextmanager
async def flooding(tenant: BenchTenant, documents: int, clients: int) -> AsyncIterator[None]:
    """So many clients that ask as fast as they are answered, and wait for no end."""
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            await tenant.ask(documents)

    running = [asyncio.create_task(client()) for _ in range(clients)]
    try:
        await asyncio.sleep(1)
        yield
    finally:
        stop.set()
        await asyncio.gather(*running)


async def beside_flood(
    quiet: BenchTenant, noisy: BenchTenant, stories: int, clients: int, rounds: int
) -> dict[str, Any]:
    """Latencies of one tenant alone and beside another's flood, in turn."""
    alone: list[float] = []
    beside: list[float] = []
    asked, refused = len(noisy.sent), noisy.refused
    for _ in range(rounds):
        alone += await one_by_one(quiet, 2, stories)
        async with flooding(noisy, 2, clients):
            beside += await one_by_one(quiet, 2, stories)
        await noisy.latencies(list(noisy.sent))
    return {
        "alone": summary(alone), "beside": summary(beside),
        "p99_ratio": round(quantile(beside, 0.99) / quantile(alone, 0.99), 2),
        "p50_ratio": round(statistics.median(beside) / statistics.median(alone), 2),
        "admitted": len(noisy.sent) - asked, "refused": noisy.refused - refused, "clients": clients,
    }  # fmt: skip


def pgbench(postgres: EmbeddedPostgres, dsn: str, payload: int, clients: int, seconds: int) -> float:
    """Transactions per second, each with one row of so many bytes."""
    with tempfile.TemporaryDirectory(prefix="whole-pgbench-") as name:
        script = Path(name) / "insert.sql"
        script.write_text(f"INSERT INTO public.bench_reference (body) VALUES (repeat('x', {payload}));\n")
        command = [str(postgres.binaries / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "1"]
        output = subprocess.run(
            [*command, "-T", str(seconds), "-f", str(script), dsn], check=True, capture_output=True, text=True
        ).stdout
    rate = re.search(r"tps = ([\d.]+)", output)
    assert rate is not None
    return float(rate[1])


async def reference(
    group: GateGroup, postgres: EmbeddedPostgres, cost: dict[str, float], rate: dict[str, float]
) -> dict[str, float]:
    """As many commits and bytes as a story makes, by pgbench: alone and with as many clients."""
    dsn = group.database.superuser
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "CREATE TABLE public.bench_reference (id bigserial PRIMARY KEY, body text STORAGE PLAIN)"
        )
        # A row of pgbench has a header, an index entry and a commit record of its own beside its bytes.
        payload = max(1, min(7_000, int(cost["wal"] / cost["writes"]) - 250))
        one = await asyncio.to_thread(pgbench, postgres, dsn, payload, 1, 4)
        began = (await connection.fetchrow(COUNTERS), time.perf_counter())
        many = await asyncio.to_thread(pgbench, postgres, dsn, payload, int(rate["clients"]), 4)
        row = await connection.fetchrow(COUNTERS)
    finally:
        await connection.close()
    wal = float(row["wal"] - began[0]["wal"]) / float(row["writes"] - began[0]["writes"])
    return {
        "story_ms": round(1_000 * cost["writes"] / one, 2),
        "stories_per_second": round(many / cost["writes"], 1),
        "wal_per_commit": round(wal),
    }


async def measured(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    (directory / "postgres").mkdir(mode=0o755)
    (directory / "gates").mkdir()
    parts: dict[str, Any] = {}
    with EmbeddedPostgres(directory / "postgres") as postgres:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        async with (
            bench_gates(directory / "gates", postgres) as group,
            httpx.AsyncClient(timeout=60, limits=limits) as http,
        ):
            quiet = await bench_tenant(group, http, 19)
            quiet.start_workers(arguments.workers)
            meter = CostMeter(group, postgres, quiet.workers)
            await one_by_one(quiet, 2, 5)
            parts["alone"] = {
                "3": summary(await one_by_one(quiet, 2, arguments.stories)),
                "20": summary(await one_by_one(quiet, 19, max(3, arguments.stories // 5))),
            }
            console.step(f"one by one: {json.dumps(parts['alone'])}")
            parts["at_once"], parts["cost"] = {}, {}
            for documents, stories in ((2, arguments.stories * 2), (19, max(4, arguments.stories // 3))):
                rate, cost = await costs(quiet, meter, documents, stories, arguments.clients)
                parts["at_once"][str(documents + 1)], parts["cost"][str(documents + 1)] = rate, cost
                console.step(
                    f"{documents + 1} steps, {arguments.clients} clients: {json.dumps(rate)} {json.dumps(cost)}"
                )
            parts["reference"] = await reference(group, postgres, parts["cost"]["3"], parts["at_once"]["3"])
            parts["flood"] = {}
            for name, limit in (("no limit", ""), ("60 a minute", "60")):
                noisy = await bench_tenant(group, http, 2, limit)
                noisy.start_workers(1)
                part = await beside_flood(quiet, noisy, arguments.flood_stories, arguments.flood_clients, 2)
                parts["flood"][name] = part
                noisy.stop_workers()
                console.step(f"flood, {name}: {json.dumps(part)}")
            parts["memory"] = memory(group, quiet.workers)
            quiet.stop_workers()
    return parts


def memory(group: GateGroup, workers: Sequence[subprocess.Popen[bytes]]) -> dict[str, float]:
    """Megabytes of the largest process of each."""
    named = [*((NAMES.get(name, name), process.pid) for name, process in group.processes.items())]
    named += [("a worker", worker.pid) for worker in workers]
    highest: dict[str, float] = {}
    for title, parent in named:
        for pid in (parent, *machine.children(parent)):
            highest[title] = max(highest.get(title, 0.0), round(machine.rss_megabytes(pid), 1))
    return highest


def ratios(parts: dict[str, Any]) -> dict[str, float]:
    """Beside pgbench with the same commits and bytes."""
    return {
        "latency": round(parts["alone"]["3"]["p50_ms"] / parts["reference"]["story_ms"], 2),
        "rate": round(parts["at_once"]["3"]["per_second"] / parts["reference"]["stories_per_second"], 3),
        "steps_20_to_3": round(parts["cost"]["20"]["writes"] / parts["cost"]["3"]["writes"], 2),
    }


def show(parts: dict[str, Any]) -> None:
    console.table(
        "From a call of an MCP tool to the end of its plan",
        ("", "p50 ms", "p99 ms", "stories/s"),
        [
            *(
                [f"{steps} steps, one story at a time", part["p50_ms"], part["p99_ms"], None]
                for steps, part in parts["alone"].items()
            ),
            *(
                [f"{steps} steps, {part['clients']} clients", part["p50_ms"], part["p99_ms"], part["per_second"]]
                for steps, part in parts["at_once"].items()
            ),
        ],
    )
    names = list(parts["cost"]["3"])
    console.table(
        "What a story costs",
        ("", "3 steps", "20 steps"),
        [[name, *(part[name] for part in parts["cost"].values())] for name in names],
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=50, help="stories of three steps, one after the other (50)")
    parser.add_argument("--workers", type=int, default=2, help="processes of workers, with four threads each (2)")
    parser.add_argument("--clients", type=int, default=8, help="stories at once (8)")
    parser.add_argument("--flood-stories", type=int, default=12, help="stories beside a flood, each round (12)")
    parser.add_argument("--flood-clients", type=int, default=8, help="clients of the tenant that floods (8)")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    directory = Path(tempfile.mkdtemp(prefix="whole-bench-"))
    directory.chmod(0o755)
    try:
        parts = asyncio.run(measured(arguments, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    parts["ratios"] = ratios(parts)
    show(parts)
    result = {
        "machine": machine.described(), "workers": arguments.workers, "load_average_after": os.getloadavg()[0], **parts,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "whole.json").write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {RESULTS / 'whole.json'}")


if __name__ == "__main__":
    main()
