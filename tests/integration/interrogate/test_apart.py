"""InterroGate stands on the ledger's tables and on what MetaGate publishes, not on their processes (D-57, §7.11)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import OPEN_POLICY, PublishedWorld, Requesting, serving_interrogate
from tests.integration.memorygate.ledger_fixture import free_port, ledger_process, ready


@asynccontextmanager
async def requesting_gate(
    world: PublishedWorld, database: AdmissionDatabase, **settings: Any
) -> AsyncIterator[Requesting]:
    """A gate that decides in one database and follows another one's world, or the same one's."""
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    databases = {
        "database_url": SecretStr(database.writer),
        "identity_database_url": SecretStr(world.database.database.identity),
    }
    async with serving_interrogate(world, **databases, **settings) as gate:
        yield await gate.awaited(gate.requesting(principal))


async def test_the_ledgers_process_is_not_needed(admission_database: AdmissionDatabase, tmp_path: Path) -> None:
    """kill -9 of MemoryGate: requests are decided as before, and it shows all of them once it is back."""
    world = PublishedWorld(admission_database)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    ledger = ledger_process(admission_database.ledger, port, tmp_path / "ledger.log")
    await ledger.start()
    try:
        async with requesting_gate(world, admission_database) as alice, httpx.AsyncClient(base_url=url) as client:
            await ready(url)
            before = await alice.evaluate()
            await ledger.kill()
            with pytest.raises(httpx.ConnectError):
                await client.get("/readyz")
            answers = await asyncio.gather(*(alice.evaluate() for _ in range(10)))
            child = await alice.evaluate(alice.child(before.json()))
            assert {answer.status_code for answer in (before, child, *answers)} == {200}
            await ledger.start()
            await ready(url)
            for answer in (before, child, *answers):
                path = f"/receipts/{answer.json()['receipt_id']}"
                shown = await client.get(path, headers=alice.principal.headers)
                assert shown.status_code == 200, shown.text
    finally:
        await ledger.kill()
