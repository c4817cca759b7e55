"""`make bench-cogni`: what CogniGate adds to the time of a model, its memory, and plans of three steps to their end.

The model is a script that answers at once, so everything measured is ours: the lease, the plan's document, the input,
the check, the deposit and the end. The ledger, AsyncGate, DepotGate and each CogniGate are processes; commits are
durable.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import asyncpg
import console
import machine

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.databases import ROLES, Server, embedded_postgres
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.cognigate.cogni_process import AUTHORITY, CAPABILITY, CEILING, JOB, CogniProcess
from tests.integration.cognigate.model_server import ModelServer
from tests.integration.depotgate.conftest import make_depot
from tests.integration.worker.plan_fixture import PlanGates, RunningPlan, gates_of

RESULTS = Path(__file__).resolve().parent / "results"
GOALS = {"overhead p50 ms": 50, "overhead p99 ms": 150, "memory MB": 80, "plans a second": 10}
WORKERS = 4

ENDED = """
    SELECT r.task_id, min(r.stored_at) FILTER (WHERE r.phase = 'lease_issued') AS leased,
           max(r.stored_at) FILTER (WHERE r.phase = 'complete' AND r.body::jsonb ->> 'status' = 'success') AS ended
    FROM memorygate.receipt AS r WHERE r.tenant = $1 AND r.task_id = ANY ($2) GROUP BY r.task_id
"""


def step(name: str, *needs: str) -> dict[str, Any]:
    return {"step_id": name, "job": JOB, "authority": AUTHORITY, "depends_on": list(needs)}


async def ended(gates: PlanGates, task_ids: list[str], seconds: float) -> list[tuple[Any, Any]]:
    """When each task was leased and when it succeeded, by the database's clock, as soon as all have."""
    connection = await asyncpg.connect(gates.tenant.database.superuser)
    try:
        async with asyncio.timeout(seconds):
            while True:
                rows = await connection.fetch(ENDED, gates.tenant.uid, task_ids)
                times = [(row["leased"], row["ended"]) for row in rows if row["ended"] is not None]
                if len(times) == len(task_ids):
                    return times
                await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def overhead(gates: PlanGates, tasks: int) -> list[float]:
    """Milliseconds from the lease of a task to its end, one task after another."""
    milliseconds = []
    for _ in range(tasks):
        plan = await asyncio.to_thread(gates.plan, step("work"), capability=CAPABILITY)
        [(leased, end)] = await ended(gates, [plan.task_id("work")], 30)
        milliseconds.append((end - leased).total_seconds() * 1000)
    return milliseconds


async def plans_a_second(gates: PlanGates, processes: list[CogniProcess], count: int) -> float:
    """Plans of two steps and one that needs both, parked before anybody works, then done by four processes."""
    steps = (step("read-0"), step("read-1"), step("merge", "read-0", "read-1"))
    plans: list[RunningPlan] = [
        await asyncio.to_thread(gates.plan, *steps, capability=CAPABILITY) for _ in range(count)
    ]
    for process in processes:
        process.start()
    names = [plan.task_id(item["step_id"]) for plan in plans for item in steps]
    times = await ended(gates, names, 300)
    began, over = min(leased for leased, _ in times), max(end for _, end in times)
    return count / float((over - began).total_seconds())


async def measure(folder: Path, tasks: int, plans: int) -> dict[str, float]:
    embedded = embedded_postgres(folder / "postgres", settings={"shared_buffers": "128MB"}).start()
    passwords = {role: embedded.password(role) for role in ROLES}
    server = Server(embedded.dsn("postgres", database="postgres"), passwords, embedded)
    await server.make_template()
    database = await make_depot(server)
    tenant = TaskTenant(database.tasks)
    await tenant.publish()
    gates = gates_of(tenant, database, folder)
    (folder / "ceilings.yaml").write_text(json.dumps([{"namespaces": ["*"], "authority": CEILING}]))
    processes: list[CogniProcess] = []
    try:
        await asyncio.gather(*(asyncio.to_thread(gate.start) for gate in gates.all))
        with ExitStack() as stack:
            for gate in gates.all:
                # Without the relay of the tests, which is a thread of this process and would be measured too.
                gate.url = f"http://127.0.0.1:{gate.port}"
            model = stack.enter_context(ModelServer().serving())
            settings = {"LLM_URL": model.url, "LLM_MODEL": "scripted-1"}
            for number in range(WORKERS):
                (folder / str(number)).mkdir()
                processes.append(CogniProcess(gates, folder / str(number), settings))
            rate = await plans_a_second(gates, processes, plans)
            for process in processes[1:]:
                await asyncio.to_thread(process.stop)
            milliseconds = await overhead(gates, tasks)
            running = processes[0].running
            assert running is not None
            memory = machine.rss_megabytes(running.pid)
            await asyncio.to_thread(processes[0].stop)
    finally:
        for process in processes:
            if process.running is not None and process.running.poll() is None:
                process.kill()
        for gate in gates.all:
            gate.stop()
        server.stop()
    return {
        "overhead p50 ms": statistics.median(milliseconds),
        "overhead p99 ms": statistics.quantiles(milliseconds, n=100)[98],
        "memory MB": memory,
        "plans a second": rate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--plans", type=int, default=60)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cognition-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        figures = asyncio.run(measure(folder, arguments.tasks, arguments.plans))
    console.table(
        f"CogniGate with a scripted model: {arguments.tasks} tasks, {arguments.plans} plans of three steps",
        ("", "measured", "goal"),
        [[name, round(value, 1), GOALS[name]] for name, value in figures.items()],
    )
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "cognition.json"
    kept.write_text(json.dumps({"machine": machine.described(), "figures": figures}, indent=2) + "\n")
    console.step(f"written in {time.monotonic() - began:.0f} s: {kept}")


if __name__ == "__main__":
    main()
