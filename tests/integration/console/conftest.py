"""A gate with the console, over a database of its own, per module."""

from collections.abc import AsyncIterator

import pytest_asyncio
from pydantic import SecretStr
from tests.databases import Database
from tests.integration.api.town import Town, town_of
from tests.integration.console.visiting import Visitor

CONSOLE_SECRET = "what the cookies of these tests are signed with"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def town(database: Database) -> AsyncIterator[Town]:
    async with town_of(database, console=True, console_secret=SecretStr(CONSOLE_SECRET)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(town: Town) -> AsyncIterator[Visitor]:
    async with Visitor(town.url) as made:
        yield made
