"""A gate on a socket of its own, over a database of its own, per module."""

import sys
from collections.abc import AsyncIterator

import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database, Server
from tests.integration.api.processes import process
from tests.integration.api.town import SECRET, Town

from metagate_api.server import serving
from metagate_api.settings import Settings
from metagate_store.publishing import Publisher


def settings_for(database: Database, **changes: object) -> Settings:
    values: dict[str, object] = {
        "database_url": SecretStr(database.api),
        "jwt_secret": SecretStr(SECRET),
        "port": 0,
        "credentials_poll_ms": 20,
        # Gate and clients share one loop and its core here; deadlines are proven on processes of their own (test_faults).
        "deadline_ms": 5_000,
        **changes,
    }
    return Settings(**values)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def town(database: Database) -> AsyncIterator[Town]:
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    settings = settings_for(database)
    async with serving(settings) as url:
        made = Town(url, database, publisher, settings)
        try:
            yield made
        finally:
            await made.close()


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
async def town_sync(postgres: Server) -> AsyncIterator[tuple[str, int, dict[str, str], str]]:
    """A gate in a process of its own, for tests that are not coroutines: host, port, a principal's headers, a session."""
    database = await postgres.make()
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    with process(database) as (host, port):
        made = Town(f"http://{host}:{port}", database, publisher, settings_for(database))
        who = await made.citizen("hostile", type="admin")
        session = (await made.boot(who)).json()["startup"]["startup_id"]
        yield host, port, who.by_key, session
        await made.close()
    await postgres.drop(database)
