from collections.abc import AsyncIterator

import pytest_asyncio
from tests.databases import Database

from metagate_store.reader import Reader


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reader(database: Database) -> AsyncIterator[Reader]:
    made = await Reader.connect(database.api, size=4, acquire_timeout=5, query_timeout=5)
    yield made
    await made.close()
