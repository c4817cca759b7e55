"""Five gates as processes, which the folders `delegate` and `whole` share: started once; each test makes a tenant of its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant, serving_gates


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def gates(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GateGroup]:
    async with serving_gates(postgres, tmp_path_factory.mktemp("five-gates")) as group:
        yield group


@pytest_asyncio.fixture(loop_scope="session")
async def tenant(gates: GateGroup) -> PlanTenant:
    return await plan_tenant(gates)
