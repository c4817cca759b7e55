"""Fixtures that every suite shares: a real PostgreSQL, a database of one's own."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests import corpora
from tests.calendar_days import IS_CALENDAR
from tests.databases import Database, Server
from tests.object_store import NoObjectStore, ObjectStore


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts of the attack corpora that ran."""
    for line in corpora.lines():
        terminalreporter.write_line(line)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres() -> AsyncIterator[Server]:
    """One server for the whole run."""
    server = Server.start()
    try:
        await server.make_template()
        yield server
    finally:
        server.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def database(postgres: Server) -> AsyncIterator[Database]:
    """A migrated, empty database for a module: `database.api`, `.publisher`, `.owner`, `.identity`, `.superuser` are DSNs."""
    made = await postgres.make()
    yield made
    await postgres.drop(made)


@pytest_asyncio.fixture(loop_scope="session")
async def fresh_database(postgres: Server) -> AsyncIterator[Database]:
    """A migrated, empty database for one test."""
    made = await postgres.make()
    yield made
    await postgres.drop(made)


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server for the whole run; `object_store.make_bucket()` is a bucket of one's own."""
    if IS_CALENDAR:
        pytest.skip("the S3 server is a Go program: on another day than its own it refuses every signature")
    environment = dict(os.environ)  # noqa: TID251 - where Go and the cached binaries are
    try:
        store = ObjectStore.start(tmp_path_factory.mktemp("object-store"), environment=environment)
    except NoObjectStore as absent:
        if environment.get("CI") == "true":
            raise
        pytest.skip(f"NOT RUN: {absent}")
    yield store
    store.end()
