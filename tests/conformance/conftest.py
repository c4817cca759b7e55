"""One gateway for the whole folder."""

from collections.abc import AsyncIterator

import pytest_asyncio
from tests.conformance.fixture_tools import ServedGateway, served_gateway
from tests.databases import Server


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def gateway(postgres: Server) -> AsyncIterator[ServedGateway]:
    async with served_gateway(postgres) as served:
        yield served
