"""The gates that workers of this folder's tests ask, as processes: started once for a module."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import make_depot
from tests.integration.worker.plan_fixture import PlanGates, gates_of


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plan_processes(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PlanGates]:
    database = await make_depot(postgres)
    tenant = TaskTenant(database.tasks)
    await tenant.publish()
    made = gates_of(tenant, database, tmp_path_factory.mktemp("gates"))
    await asyncio.gather(*(asyncio.to_thread(gate.start) for gate in made.all))
    yield made
    await asyncio.gather(*(asyncio.to_thread(gate.stop) for gate in made.all))
    await postgres.drop(database.database)


@pytest.fixture
def gates(plan_processes: PlanGates) -> Iterator[PlanGates]:
    """With relays and counts of a test's own."""
    with ExitStack() as stack:
        for gate in plan_processes.all:
            gate.calls.clear()
            gate.kills.clear()
            stack.enter_context(gate.relayed())
        yield plan_processes
