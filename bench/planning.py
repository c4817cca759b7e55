"""`make bench-plans`: what a plan costs, from its expansion to its end.

The gates are processes of their own on one PostgreSQL with durable commits. Beside a plan stand the same number of
receipts, posted to the ledger in as many requests as DeleGate sends; rounds alternate. `--receipts` and `--rows` fill
the ledger with receipts of other tasks before plans are closed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import asyncpg
import console
import httpx
import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.databases import ROLES, Server
from tests.integration.delegate.driving import envelope
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant, serving_gates
from tests.integration.memorygate.conftest import new_id

from metagate_crds.canonical_json import canonical, digest
from metagate_crds.plans.expansion import plan_from_template
from metagate_crds.plans.plan import Plan, PlanOrigin
from metagate_crds.plans.template import PlanTemplate
from metagate_crds.validation import parse_spec
from metagate_postgres import EmbeddedPostgres

RESULTS = Path(__file__).resolve().parent / "results"
GOALS = {"expand_ms": 20.0, "small_p99_ms": 120.0, "large_ms": 1_000.0, "close_ms": 100.0, "rss_mb": 120.0}
SMALL = {"documents": ["s3://in/one", "s3://in/two"]}
ITEMS: dict[str, Any] = {"type": "object", "properties": {"items": {"type": "array"}}}
LARGE: dict[str, Any] = {
    "capability": "large", "parameters": ITEMS, "escalation": [],
    "steps": [
        {
            "id": f"g{number}", "forEach": "items", "capability": "large.work",
            "job": {"instruction": "Summarise.", "inputs": [{"name": "document", "value": "${item}"}]},
            **({"dependsOn": [f"g{number - 1}"]} if number else {}),
        }
        for number in range(4)
    ],
}  # fmt: skip
"""Four groups of 50, one after the other: 200 steps and 7,500 needs."""
FIFTY = {"items": list(range(50))}
ROWS_AT_ONCE = 250_000
_INDEXES = """
    SELECT c.relname AS name, pg_get_indexdef(c.oid) AS definition
    FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE i.indrelid = 'memorygate.receipt'::regclass AND NOT i.indisprimary
"""
_ROWS = """
    INSERT INTO memorygate.receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position,
                                    obligation_id, caused_by, body, digest, previous, chain)
    SELECT $1, $4 || lpad(n::text, 12, '0'), now(), 'obligation', CASE n % 2 WHEN 0 THEN 'accepted' ELSE 'complete' END,
           $4 || 'T' || lpad((n / 2)::text, 11, '0'), $4 || 'R' || lpad((n / 10)::text, 11, '0'), n % 10 + 1,
           $4 || 'T' || lpad((n / 2)::text, 11, '0'),
           CASE n % 10 WHEN 0 THEN NULL ELSE $4 || lpad((n - 1)::text, 12, '0') END,
           repeat('x', 200), hash, hash, hash
    FROM generate_series($2::bigint, $3::bigint) AS n, sha256('a row of the benchmark') AS hash
"""
Milliseconds = list[float]


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values: Milliseconds) -> dict[str, float]:
    return {
        "p50_ms": round(statistics.median(values), 1), "p99_ms": round(quantile(values, 0.99), 1), "times": len(values),
    }  # fmt: skip


# ── expanding ────────────────────────────────────────────────────────────────────────────────────────────────────────


def expanding(rounds: int) -> dict[str, Any]:
    """200 steps: order, ids, digest, bytes; beside the RFC 8785 form and the SHA-256 of the same document."""
    model, _ = parse_spec("PlanTemplate", LARGE)
    assert model is not None
    template = PlanTemplate.of(model.declared(), namespace="bench", name="large", revision=1)
    plan_id = new_id()
    origin = PlanOrigin(plan_id, "tenant", "principal", None, plan_id)
    size = 0
    expansions: Milliseconds = []
    forms: Milliseconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        plan = plan_from_template(origin, template, FIFTY, {}, {"principal"})
        expansions.append((time.perf_counter() - began) * 1_000)
        assert isinstance(plan, Plan)
        assert len(plan.tasks) == 201
        size = len(plan.body)
        began = time.perf_counter()
        digest(canonical(plan.document))
        forms.append((time.perf_counter() - began) * 1_000)
    each = sorted(slow / fast for slow, fast in zip(expansions, forms, strict=True))
    return {**summary(expansions), "ratio": round(statistics.median(each), 2), "bytes": size}


# ── plans over HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────


class PlanClient:
    """A tenant's principals on connections that stay open."""

    def __init__(self, tenant: PlanTenant, client: httpx.AsyncClient) -> None:
        self.tenant, self._client = tenant, client

    async def post(self, who: str, gate: str, path: str, body: Any) -> tuple[float, dict[str, Any]]:
        """Milliseconds and the answer. Raises RuntimeError where it is no 2xx."""
        url, headers = f"{self.tenant.gates.url(gate)}{path}", self.tenant.principals[who].headers
        began = time.perf_counter()
        answer = await self._client.post(url, json=body, headers=headers)
        took = (time.perf_counter() - began) * 1_000
        if answer.status_code >= 300:
            raise RuntimeError(f"{gate}{path}: {answer.status_code} {answer.text[:300]}")
        return took, answer.json()

    async def ask(self, template: str, parameters: Any) -> tuple[float, dict[str, Any]]:
        intent = {"template": template, "parameters": parameters}
        return await self.post("principal", "delegate", "/plans", {"plan_id": new_id(), "intent": intent})

    async def ask_admitted(self, capability: str, parameters: Any) -> tuple[float, dict[str, Any]]:
        body = envelope(self.tenant, capability, parameters, new_id())
        took, answer = await self.post("principal", "interrogate", "/v1/evaluate", body)
        [forward] = answer["forwards"]
        assert forward["status"] == 202, forward
        return took, forward["answer"]

    async def receipts(self, counts: Sequence[int]) -> float:
        """Milliseconds of so many receipts, a request for each number."""
        taken = 0.0
        for count in counts:
            items = []
            for _ in range(count):
                task_id = new_id()
                items.append({
                    "receipt_id": new_id(), "phase": "accepted", "task_id": task_id, "principal_ai": "principal",
                    "recipient_ai": "principal", "task_summary": "beside a plan",
                })  # fmt: skip
            took, _ = await self.post("principal", "memorygate", "/receipts/batch", {"receipts": items})
            taken += took
        return taken

    async def do_all(self, capability: str) -> int:
        """Lease and complete until nothing is left."""
        done = 0
        while True:
            body = {"capabilities": [capability], "most": 32, "wait_seconds": 1}
            _, answer = await self.post("worker", "asyncgate", "/lease", body)
            if not answer["leases"]:
                return done
            for lease in answer["leases"]:
                claim = {"lease_id": lease["lease_id"], "status": "success", "outcome_kind": "none"}
                await self.post("worker", "asyncgate", "/complete", claim)
                done += 1


async def small_plans(client: PlanClient, rounds: int) -> dict[str, Any]:
    """Plans of three steps; beside them the seven receipts that DeleGate posts for one, in three requests."""
    plain: Milliseconds = []
    admitted: Milliseconds = []
    receipts: Milliseconds = []
    for number in range(rounds + 3):
        round_of = (
            (await client.ask("review", SMALL))[0],
            (await client.ask_admitted("document.review", SMALL))[0],
            await client.receipts((2, 1, 4)),
        )
        if number >= 3:
            for taken, took in zip((plain, admitted, receipts), round_of, strict=True):
                taken.append(took)
    each = sorted(slow / fast for slow, fast in zip(plain, receipts, strict=True))
    return {
        "direct": summary(plain), "admitted": summary(admitted), "receipts": summary(receipts),
        "ratio": round(statistics.median(each), 2),
    }  # fmt: skip


async def large_plans(client: PlanClient, rounds: int) -> tuple[dict[str, Any], list[str]]:
    """Plans of 200 admitted steps, and their ids; beside them as many receipts of the ledger, in three requests."""
    taken: Milliseconds = []
    receipts: Milliseconds = []
    plans: list[str] = []
    for _ in range(rounds):
        took, plan = await client.ask_admitted("large", FIFTY)
        taken.append(took)
        plans.append(plan["plan_id"])
        receipts.append(await client.receipts((2, 1, 100, 101)))
    each = sorted(slow / fast for slow, fast in zip(taken, receipts, strict=True))
    return {**summary(taken), "receipts": summary(receipts), "ratio": round(statistics.median(each), 2)}, plans


async def closing(client: PlanClient, plans: Sequence[str], receipts: int, rows: int) -> dict[str, Any]:
    """The end of plans of 200 steps; the first answer of each, not the replay."""
    await fill(client.tenant, receipts)
    if rows:
        await fill_rows(client.tenant, rows)
    await client.do_all("large.work")
    taken = [(await client.post("worker", "admitting", f"/plans/{plan_id}/close", {}))[0] for plan_id in plans]
    return {**summary(taken), "receipts_in_the_ledger": await stored(client.tenant)}


async def fill(tenant: PlanTenant, receipts: int) -> None:
    """Receipts of other tasks, through the ledger's endpoint, in batches."""
    async with httpx.AsyncClient(timeout=60) as http:
        filler = PlanClient(tenant, http)
        for _ in range(receipts // 100):
            await filler.receipts((100,))


async def fill_rows(tenant: PlanTenant, rows: int) -> None:
    """Rows of receipts of other tasks, ten to a tree, without the endpoint: ten million of them take minutes, not
    hours. Indexes are built afterwards, as large as they would have become. The chains of these trees hold nothing.
    """
    connection = await asyncpg.connect(tenant.gates.database.superuser)
    try:
        definitions = await connection.fetch(_INDEXES)
        for definition in definitions:
            await connection.execute(f"DROP INDEX memorygate.{definition['name']}")
        for start in range(0, rows, ROWS_AT_ONCE):
            await connection.execute(_ROWS, tenant.uid, start, min(rows, start + ROWS_AT_ONCE) - 1, new_id()[:14])
            console.step(f"{min(rows, start + ROWS_AT_ONCE):,} rows")
        await connection.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 2")
        for definition in definitions:
            await connection.execute(definition["definition"].replace(" ON ONLY ", " ON "))
        await connection.execute("VACUUM ANALYZE memorygate.receipt")
        await connection.execute("CHECKPOINT")
        console.step("indexes are built")
    finally:
        await connection.close()


async def stored(tenant: PlanTenant) -> int:
    connection = await asyncpg.connect(tenant.gates.database.superuser)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM memorygate.receipt"))
    finally:
        await connection.close()


def delegate_memory(gates: GateGroup) -> dict[str, float]:
    """The highest of the processes that serve DeleGate, in MB."""
    processes = [gates.processes[name].pid for name in ("delegate", "admitting")]
    serving = [child for process in processes for child in (machine.children(process) or [process])]
    return {"rss_mb": round(max(map(machine.rss_megabytes, serving)), 1)}


async def measured(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    parts: dict[str, Any] = {"expand": expanding(arguments.rounds * 10)}
    data = directory / "postgres"
    data.mkdir(mode=0o755)
    directory.chmod(0o755)
    with EmbeddedPostgres(data) as postgres:
        passwords = {role: postgres.password(role) for role in ROLES}
        server = Server(postgres.dsn("postgres", database="postgres"), passwords, postgres)
        await server.make_template()
        gate_directory = directory / "gates"
        gate_directory.mkdir()
        async with serving_gates(server, gate_directory) as gates, httpx.AsyncClient(timeout=60) as http:
            tenant = await plan_tenant(gates, templates={"review": REVIEW, "large": LARGE})
            client = PlanClient(tenant, http)
            parts["small"] = await small_plans(client, arguments.rounds)
            parts["large"], plans = await large_plans(client, arguments.plans)
            parts["close"] = await closing(client, plans, arguments.receipts, arguments.rows)
            parts["memory"] = delegate_memory(gates)
    return parts


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="plans of three steps of each way (60)")
    parser.add_argument("--plans", type=int, default=5, help="plans of 200 steps (5)")
    parser.add_argument("--receipts", type=int, default=0, help="receipts that are posted before plans are closed (0)")
    parser.add_argument("--rows", type=int, default=0, help="receipts that are written as rows before that (0)")
    parser.add_argument("--directory", type=Path, help="where the database and the artifacts lie (a temporary one)")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    directory = Path(tempfile.mkdtemp(prefix="plans-bench-", dir=arguments.directory))
    try:
        parts = asyncio.run(measured(arguments, directory))
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    result = {
        "machine": machine.described(), "goals": GOALS, "rounds": arguments.rounds,
        "load_average_after": os.getloadavg()[0], **parts,
    }  # fmt: skip
    for name, part in parts.items():
        console.step(f"{name}: {json.dumps(part)}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "plans.json").write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {RESULTS / 'plans.json'}")


if __name__ == "__main__":
    main()
