"""What a worker does with a task whose needs have ended: it asks the ledger how, and only then runs the handler."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import TaskGate, TaskTenant, serving_asyncgate
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import free_port, ready

from legivellum.gate.composition import serving
from legivellum_worker import Failed, Work, Worker, WorkerSettings
from memorygate.gate import GATE as LEDGER
from memorygate.settings import Settings as LedgerSettings


@pytest_asyncio.fixture(loop_scope="session")
async def gate(task_database: TaskDatabase) -> AsyncIterator[TaskGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    async with serving_asyncgate(tenant) as served:
        yield served


@pytest_asyncio.fixture(loop_scope="session")
async def ledger_url(task_database: TaskDatabase, gate: TaskGate) -> AsyncIterator[str]:
    settings = LedgerSettings(
        database_url=SecretStr(task_database.ledger.writer),
        identity_database_url=SecretStr(task_database.database.identity),
        port=free_port(),
        identity_poll_ms=50,
        rate_per_second=0,
    )
    async with serving(LEDGER, settings) as url:
        await ready(url)
        yield url


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    """In a thread, as a program without an event loop runs it."""
    task = asyncio.create_task(asyncio.to_thread(worker.run, 2))
    try:
        yield
    finally:
        worker.stop()
        await task


def worker_of(gate: TaskGate, folder: Path, ledger_url: str | None) -> Worker:
    key = folder / "key"
    key.write_text(gate.tenant.principals["worker"].key)
    settings = WorkerSettings(url=gate.url, api_key_file=str(key), ledger_url=ledger_url, environ={})
    return Worker(settings, wait_seconds=1, stop_seconds=1)


async def end_of(gate: TaskGate, task_id: str) -> dict[str, object]:
    """The receipt that ended the task."""
    async with asyncio.timeout(30):
        while (await gate.get("observer", f"/tasks/{task_id}")).json()["state"] != "ended":
            await asyncio.sleep(0.05)
    return (await gate.tenant.receipts(task_id))[-1]


@pytest.mark.parametrize(("outcome", "reason"), [("success", None), ("failure", "DEPENDENCY_NOT_MET")])
async def test_the_ledger_says_how_a_need_ended(
    gate: TaskGate, ledger_url: str, tmp_path: Path, outcome: str, reason: str | None
) -> None:
    """A need that did not succeed ends the task as a failure, and the handler never runs."""
    box = new_id().lower()
    ran = []
    worker = worker_of(gate, tmp_path, ledger_url)

    @worker.on(f"first-{box}")
    def first(_: Work) -> None:
        if outcome == "failure":
            raise Failed("BROKEN")

    @worker.on(f"second-{box}")
    async def second(work: Work) -> None:
        ran.append(work.task_id)

    needed = await gate.park(capability=f"first-{box}")
    task_id = await gate.park(capability=f"second-{box}", needs=[needed])
    async with running(worker):
        receipt = await end_of(gate, task_id)
    assert receipt["status"] == outcome
    assert (receipt.get("metadata") or {}).get("reason") == reason
    assert ran == ([task_id] if reason is None else [])


async def test_a_ledger_that_is_away_ends_nothing(gate: TaskGate, tmp_path: Path) -> None:
    """The task goes back for a while: it is neither a success nor a failure."""
    box = new_id().lower()
    worker = worker_of(gate, tmp_path, f"http://127.0.0.1:{free_port()}")
    worker.on(f"first-{box}")(lambda _: None)
    worker.on(f"second-{box}")(lambda _: None)
    needed = await gate.park(capability=f"first-{box}")
    task_id = await gate.park(capability=f"second-{box}", needs=[needed])
    async with running(worker), asyncio.timeout(30):
        while (await gate.tenant.phases(task_id)).count("queued") < 2:
            await asyncio.sleep(0.05)
    shown = (await gate.get("observer", f"/tasks/{task_id}")).json()
    assert (shown["state"], shown["ended"]) == ("held_back", None)
