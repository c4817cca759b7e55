"""The OpenAPI document of the gate: complete, true, and attacked by schemathesis as a minter and as a worker."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import CLAIM, TaskGate, TaskTenant, serving_asyncgate
from tests.integration.memorygate.conftest import new_id, rows
from tests.openapi_attack import attack

from asyncgate.gate import GATE
from memorygate.verifying import verify

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest_asyncio.fixture(loop_scope="session")
async def gate(task_database: TaskDatabase) -> AsyncIterator[TaskGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    async with serving_asyncgate(tenant) as served:
        yield served


async def document_of(gate: TaskGate) -> dict[str, Any]:
    document: dict[str, Any] = (await gate.client.get("/openapi.json")).json()
    return document


async def test_it_documents_every_route(gate: TaskGate) -> None:
    """Every endpoint that is routed, and no status 500."""
    paths = (await document_of(gate))["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented == {(endpoint.method, endpoint.path) for endpoint in GATE.all_endpoints}
    statuses = set(paths["/tasks"]["post"]["responses"])
    assert {"200", "201", "400", "401", "403", "409", "413", "415", "422", "429", "503"} <= statuses
    assert not any("500" in operation["responses"] for path in paths.values() for operation in path.values())


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.invariant("INV-070")
async def test_schemathesis_as_a_minter_finds_nothing(gate: TaskGate) -> None:
    await attack(
        gate.client, gate.tenant.principals["delegate"].headers, f"{gate.url}/openapi.json", CONFIG, examples=30
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_schemathesis_as_a_worker_finds_nothing(gate: TaskGate, tmp_path: Path) -> None:
    """With examples that are leases of its own, so that verbs succeed too; and without waiting, which the minter's run tries."""
    ended = [await gate.park(capability="attacked") for _ in range(4)]
    leases = [lease["lease_id"] for lease in await gate.leases("worker", "attacked", most=4)]
    document = await document_of(gate)
    schemas = document["components"]["schemas"]
    del schemas["LeaseRequest"]["properties"]["wait_seconds"]
    schemas["RenewRequest"]["example"] = {"lease_id": leases[0]}
    schemas["ReleaseRequest"]["example"] = {"lease_id": leases[1], "again_after_seconds": 3_600}
    schemas["Claim"]["example"] = {"lease_id": leases[2], **CLAIM}
    schemas["Escalation"]["example"] = {
        "lease_id": leases[3],
        "escalation_class": "other",
        "escalation_reason": "cannot",
    }
    schemas["LeaseRequest"]["example"] = {"capabilities": [f"box-{new_id().lower()}"]}
    location = tmp_path / "openapi.json"
    location.write_text(json.dumps(document), encoding="utf-8")
    await attack(gate.client, gate.tenant.principals["worker"].headers, str(location), CONFIG, examples=30)
    phases = [(await gate.tenant.phases(task_id))[-1] for task_id in ended]
    assert phases[1:] == ["queued", "complete", "escalate"]
    auditor = gate.tenant.database.ledger.auditor
    assert (await verify(auditor)).bad is None
    assert await rows(
        gate.tenant.database.superuser,
        "SELECT count(*) FROM asyncgate.task WHERE lease_id IS NULL AND holder IS NOT NULL",
    ) == [(0,)]
