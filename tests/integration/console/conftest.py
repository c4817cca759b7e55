"""A gate with the console, over a database of its own, per module."""

from collections.abc import AsyncIterator

import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.api.conftest import settings_for
from tests.integration.api.town import Town
from tests.integration.console.visiting import Visitor

from metagate_api.server import serving
from metagate_store.publishing import Publisher

CONSOLE_SECRET = "what the cookies of these tests are signed with"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def town(database: Database) -> AsyncIterator[Town]:
    publisher = await Publisher.open(database.publisher)
    await publisher.load()
    settings = settings_for(database, console=True, console_secret=SecretStr(CONSOLE_SECRET))
    async with serving(settings) as url:
        made = Town(url, database, publisher, settings)
        try:
            yield made
        finally:
            await made.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(town: Town) -> AsyncIterator[Visitor]:
    async with Visitor(town.url) as made:
        yield made
