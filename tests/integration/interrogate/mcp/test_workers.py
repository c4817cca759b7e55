"""Several processes on one port: any of them answers for a task, also one that never saw the request (GW-06)."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture, McpClient
from tests.integration.memorygate.ledger_fixture import LedgerProcess, free_port, ready


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def two_workers(gateway: GatewayFixture, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """`interrogate serve` with two workers beside the fixture's gate, on the same database."""
    database, port = gateway.world.database, free_port()
    log = tmp_path_factory.mktemp("workers") / "log"
    process = LedgerProcess(
        [sys.executable, "-c", "from interrogate.main import main; main()", "serve"],
        {
            "INTERROGATE_DATABASE_URL": database.writer,
            "INTERROGATE_IDENTITY_DATABASE_URL": database.database.identity,
            "INTERROGATE_PORT": str(port),
            "INTERROGATE_WORKERS": "2",
            "INTERROGATE_TARGET_HOSTS": "127.0.0.1",
            "INTERROGATE_DEADLINE_MS": "10000",
        },
        Path(log),
    )
    await process.start()
    url = f"http://127.0.0.1:{port}"
    try:
        await ready(url)
        yield url
    finally:
        assert process.running is not None
        process.running.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.running.wait(), 20)
        await process.kill()


@pytest.mark.slow
async def test_any_worker_answers_for_a_handle(gateway: GatewayFixture, two_workers: str) -> None:
    """Each request on a connection of its own, so that both processes get some; made here, read and ended there."""
    gateway.receiver.status = 202
    created = await gateway.alice.with_tasks().ask({"n": 1}, mode="async")
    task_id = gateway.receiver.requests[-1][0]["legivellum-task"]
    states, asked = set(), []
    for _ in range(12):
        async with httpx.AsyncClient(base_url=two_workers, timeout=30) as http:
            there = McpClient(_at(gateway, http), gateway.alice.principal, tasks=True)
            states.add((await there.request("tasks/get", {"taskId": created["taskId"]}))["result"]["status"])
            asked.append(await there.ask({"n": 2}, mode="async"))
    assert states == {"working"}
    await gateway.complete(task_id)
    for made in [created, *asked[:3]]:
        async with httpx.AsyncClient(base_url=two_workers, timeout=30) as http:
            there = McpClient(_at(gateway, http), gateway.alice.principal, tasks=True)
            shown = (await there.request("tasks/get", {"taskId": made["taskId"]}))["result"]["status"]
        assert shown == ("completed" if made is created else "working")


def _at(gateway: GatewayFixture, http: httpx.AsyncClient) -> GatewayFixture:
    return GatewayFixture(**{**vars(gateway), "http": http})
