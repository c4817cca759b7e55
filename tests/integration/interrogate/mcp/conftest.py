"""One gateway for the tests of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture, serving_gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(admission_database: AdmissionDatabase) -> AsyncIterator[GatewayFixture]:
    async with serving_gateway(admission_database) as served:
        yield served
