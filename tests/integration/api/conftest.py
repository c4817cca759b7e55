"""A gate on a socket of its own, over a database of its own, per module."""

import sys
from collections.abc import AsyncIterator

import pytest_asyncio
from tests.databases import Database, Server
from tests.integration.api.gate_fixture import GateFixture, gate_fixture, settings_for
from tests.integration.api.processes import process

from metagate_store.publisher import Publisher


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(database: Database) -> AsyncIterator[GateFixture]:
    async with gate_fixture(database) as made:
        yield made


_SEEN: list[tuple[str, object]] = []


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event in {"socket.connect", "socket.getaddrinfo", "socket.sendto"}:
        _SEEN.append((event, arguments[-1] if event == "socket.connect" else arguments[0]))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def socket_guard() -> list[tuple[str, object]]:
    """Every connect() and name lookup of this process from now on; an audit hook cannot be taken back."""
    if not _SEEN:
        sys.addaudithook(_watch)
    return _SEEN


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gate_process(postgres: Server) -> AsyncIterator[tuple[str, int, dict[str, str], str]]:
    """A gate in a process of its own, for tests that are not coroutines: host, port, a principal's headers, a session."""
    database = await postgres.make()
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    with process(database) as (host, port):
        made = GateFixture(f"http://{host}:{port}", database, publisher, settings_for(database))
        principal = await made.principal("hostile", type="admin")
        session = (await made.boot(principal)).json()["startup"]["startup_id"]
        yield host, port, principal.by_key, session
        await made.close()
    await postgres.drop(database)
