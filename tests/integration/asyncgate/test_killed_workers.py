"""32 workers in 8 processes that are killed, stopped and overslept: each task is ended once, by its newest lease (§6.1)."""

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, make_tasks, task_of
from tests.integration.memorygate.conftest import rows

from asyncgate.database import AsyncGateDatabase
from legivellum.postgres.errors import Unavailable
from memorygate.verifying import verify

ROOT = Path(__file__).parents[3]
PROCESSES = 8
TASKS = int(os.environ.get("ASYNCGATE_TEST_TASKS", "400"))  # noqa: TID251 - for a longer run
SEED = 20270017


@dataclass(slots=True)
class Crew:
    """The processes, and what their logs say."""

    command: tuple[str, ...]
    folder: Path
    randomness: random.Random = field(default_factory=lambda: random.Random(SEED))
    processes: list[asyncio.subprocess.Process] = field(default_factory=list)
    started: int = 0
    killed: int = 0
    stopped: int = 0

    async def start(self) -> asyncio.subprocess.Process:
        self.started += 1
        arguments = (*self.command, str(self.started), str(self.folder / f"{self.started}.log"))
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integration.asyncgate.workers", *arguments, cwd=ROOT
        )

    async def disturb(self) -> None:
        """Kill one and start another in its place, or stop one for longer than a lease."""
        place = self.randomness.randrange(len(self.processes))
        if self.randomness.random() < 0.4:
            self.stopped += 1
            self.processes[place].send_signal(signal.SIGSTOP)
            await asyncio.sleep(1.5)
            self.processes[place].send_signal(signal.SIGCONT)
            return
        self.killed += 1
        self.processes[place].kill()
        await self.processes[place].wait()
        self.processes[place] = await self.start()

    def log(self) -> list[dict[str, Any]]:
        # A line that was cut off by the kill is not counted.
        lines = [
            line for path in self.folder.glob("*.log") for line in path.read_text(encoding="utf-8").split("\n")[:-1]
        ]
        return [json.loads(line) for line in lines]


@asynccontextmanager
async def crew_of(folder: Path, *command: str) -> AsyncIterator[Crew]:
    crew = Crew(command, folder)
    try:
        crew.processes = list(await asyncio.gather(*(crew.start() for _ in range(PROCESSES))))
        yield crew
    finally:
        for process in crew.processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


def violations(log: list[dict[str, Any]]) -> Counter[str]:
    """What no run may show: a number given twice, an end by another than the newest lease, two ends of one task."""
    taken = Counter((entry["taken"], entry["number"]) for entry in log if "taken" in entry)
    newest: dict[str, int] = {}
    for task_id, number in taken:
        newest[task_id] = max(newest.get(task_id, 0), number)
    ends = {(entry["ended"], entry["number"]) for entry in log if entry.get("accepted")}
    per_task = Counter(task_id for task_id, _ in ends)
    return Counter({
        "number twice": sum(1 for times in taken.values() if times > 1),
        "ended by an old lease": sum(1 for task_id, number in ends if number < newest.get(task_id, 0)),
        "ended twice": sum(1 for times in per_task.values() if times > 1),
    })  # fmt: skip


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_tasks(postgres: Server) -> AsyncIterator[TaskDatabase]:
    made = await make_tasks(postgres)
    yield made
    await postgres.drop(made.database)


@pytest.mark.slow
@pytest.mark.invariant("INV-066", "INV-067", "INV-068", "INV-069", "EXT-22")
async def test_each_task_is_ended_once_by_its_newest_lease(fresh_tasks: TaskDatabase, tmp_path: Path):
    database = await AsyncGateDatabase.connect(fresh_tasks.broker, size=2, query_timeout=10)
    tenant = Tenant(database, fresh_tasks.superuser)
    tasks = [task_of(tenant.uid, max_leases=1_000) for _ in range(TASKS)]
    for start in range(0, TASKS, 200):
        await tenant.park(*tasks[start : start + 200])
    async with (
        crew_of(tmp_path, fresh_tasks.broker, str(tenant.uid), "asyncgate") as crew,
        asyncio.timeout(160 + TASKS / 10),
    ):
        while (await rows(tenant.dsn, "SELECT count(*) FROM asyncgate.archive"))[0][0] < TASKS:
            await crew.disturb()
            try:
                await tenant.keep_books()
            except Unavailable:
                continue  # a row that a stopped process keeps locked; the next round finds it
    log = crew.log()
    assert violations(log) == Counter({"number twice": 0, "ended by an old lease": 0, "ended twice": 0})
    receipts = await tenant.receipts()
    issued = Counter(item["task_id"] for item in receipts if item["phase"] == "lease_issued")
    completed = {item["task_id"]: item["body"]["lease_number"] for item in receipts if item["phase"] == "complete"}
    # The last lease of each task ended it, once, and every lease before it has one receipt that it is over.
    assert completed == dict(issued)
    assert len([item for item in receipts if item["phase"] == "complete"]) == TASKS
    assert sum(issued.values()) - TASKS == len([item for item in receipts if item["phase"] == "expired"])
    assert {entry["number"] == completed[entry["ended"]] for entry in log if entry.get("accepted")} == {True}
    assert crew.killed + crew.stopped > 0
    assert await rows(
        tenant.dsn, "SELECT deadlocks::integer FROM pg_stat_database WHERE datname = current_database()"
    ) == [(0,)]
    assert (await verify(fresh_tasks.ledger.auditor)).bad is None
    await database.close()


@pytest.mark.slow
async def test_a_queue_that_asks_for_no_lease_fails_the_same_check(fresh_tasks: TaskDatabase, tmp_path: Path):
    """The naive twin: who oversleeps takes the task from under its next worker."""
    tenant = Tenant(None, fresh_tasks.superuser)  # type: ignore[arg-type]
    await tenant.execute(
        """CREATE TABLE plain_queue (task_id text PRIMARY KEY, number integer NOT NULL DEFAULT 0,
                                     visible_at timestamptz NOT NULL DEFAULT clock_timestamp())"""
    )
    await tenant.execute("GRANT ALL ON plain_queue TO PUBLIC")
    await tenant.execute("INSERT INTO plain_queue (task_id) SELECT g::text FROM generate_series(1, 600) AS g")
    async with crew_of(tmp_path, fresh_tasks.broker, str(uuid4()), "plain") as crew, asyncio.timeout(100):
        while violations(crew.log())["ended by an old lease"] == 0:
            await asyncio.sleep(0.2)
