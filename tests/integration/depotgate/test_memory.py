"""However large the artifacts are, the process stays as small as it was (DEPOTGATE.md §3)."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_processes import depot_process

pytestmark = pytest.mark.asyncio(loop_scope="session")

PIECE = os.urandom(1024 * 1024)
PIECES = 64
MOST_GROWTH = 64 * 1024 * 1024


async def test_eight_at_once_up_and_down_grow_it_by_little(depot_database: DepotDatabase, tmp_path: Path) -> None:
    """512 MiB each way in all, of which the process never holds an eighth."""
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()

    async def content(number: int) -> AsyncIterator[bytes]:
        yield bytes([number])
        for _ in range(PIECES):
            yield PIECE

    async with depot_process(tenant, depot_database, tmp_path / "blobs") as served:
        depot, process = served.depot, psutil.Process(served.process.pid)
        await depot.get(f"/artifacts/{(await depot.kept(b'warm'))['pointer']}")
        before, largest, done = process.memory_info().rss, 0, asyncio.Event()

        async def watch() -> None:
            nonlocal largest
            while not done.is_set():
                largest = max(largest, process.memory_info().rss)
                await asyncio.sleep(0.02)

        async def there_and_back(number: int) -> None:
            answer = await depot.deposit(content(number))
            assert answer.status_code == 201, answer.text
            digest = hashlib.sha256()
            path = f"/artifacts/{answer.json()['pointer']}"
            async with depot.client.stream("GET", path, headers=depot.headers("observer")) as read:
                async for part in read.aiter_raw():
                    digest.update(part)
            assert digest.hexdigest() == answer.json()["sha256"]

        watching = asyncio.create_task(watch())
        try:
            await asyncio.gather(*map(there_and_back, range(8)))
        finally:
            done.set()
            await watching
    assert largest - before < MOST_GROWTH, f"{(largest - before) / 2**20:.0f} MiB"
