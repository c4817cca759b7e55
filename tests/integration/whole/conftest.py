"""MetaGate's API and CogniGate beside the five gates: all that the composition names, each a process of its own."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from tests.integration.api.processes import started
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal
from tests.integration.whole.watched_gates import WatchedGates, watched_gates


@pytest.fixture(scope="session")
def metagate(gates: GateGroup) -> Iterator[GateGroup]:
    """The group, in which `metagate` has an address too."""
    with started(gates.database.database, METAGATE_RATE_PER_SECOND="0") as (_process, port):
        gates.ports["metagate"] = port
        yield gates


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def typed_tenant(metagate: GateGroup) -> AsyncIterator[PlanTenant]:
    """A tenant with a principal of each type, and with MetaGate's relay, the `witness`."""
    tenant = await plan_tenant(metagate)
    tenant.principals["witness"] = LedgerPrincipal(tenant.uid, "witness", "service", rights=("witness",))
    await tenant.publish()
    for gate in (*metagate.processes, "metagate"):
        await tenant.until(lambda answer: answer.status_code != 401, "witness", "GET", gate, "/v1/interview")
    yield tenant


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WatchedGates]:
    """Gates on a PostgreSQL of their own, which tests stop and empty."""
    async with watched_gates(tmp_path_factory.mktemp("watched")) as gates:
        yield gates
