"""A ledger as a process of its own, behind a relay that loses answers where a test says so."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.memorygate.conftest import make_ledger
from tests.integration.memorygate.ledger_fixture import (
    LedgerPrincipal,
    free_port,
    ledger_fixture,
    ledger_process,
    ready,
)
from tests.integration.receipted.relayed_ledger import RelayedLedger, ServedLedger, relayed_ledger


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServedLedger]:
    """`memorygate serve` and its tenant: triage and planner open obligations, lead and helper answer."""
    database = await make_ledger(postgres)
    uid = uuid4()
    principals = {
        name: LedgerPrincipal(uid, name, kind)
        for name, kind in (
            ("triage", "principal"),
            ("planner", "delegate"),
            ("lead", "principal"),
            ("helper", "worker"),
        )
    }
    async with ledger_fixture(database, *principals.values(), components=0):
        port = free_port()
        log: Path = tmp_path_factory.mktemp("ledger") / "ledger.log"
        process = ledger_process(database, port, log, MEMORYGATE_RATE_PER_SECOND="0", MEMORYGATE_IDENTITY_POLL_MS="20")
        await process.start()
        await ready(f"http://127.0.0.1:{port}")
        try:
            yield ServedLedger(database, process, port, principals, asyncio.get_running_loop())
        finally:
            await process.kill()
    await postgres.drop(database.database)


@pytest.fixture
def relayed(served: ServedLedger) -> Iterator[RelayedLedger]:
    with relayed_ledger(served) as relay:
        yield relay
