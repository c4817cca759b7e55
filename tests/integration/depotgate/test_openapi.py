"""The OpenAPI document of the gate: complete, true, and attacked by schemathesis as who deposits freely and as who works under a lease."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.asyncgate.gate_fixture import TaskTenant, serving_asyncgate
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import Depot, serving_depotgate
from tests.integration.memorygate.conftest import rows
from tests.openapi_attack import attack

from depotgate.gate import GATE
from memorygate.verifying import verify

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONFIG = Path(__file__).with_name("schemathesis.toml")
AUTHORITY = {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def depot(depot_database: DepotDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Depot]:
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()
    async with serving_depotgate(tenant, depot_database, tmp_path_factory.mktemp("depot") / "blobs") as served:
        yield served


async def document_of(depot: Depot) -> dict[str, Any]:
    document: dict[str, Any] = (await depot.client.get("/openapi.json")).json()
    return document


async def test_it_documents_every_route(depot: Depot) -> None:
    """Every endpoint that is routed, and no status 500."""
    paths = (await document_of(depot))["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented == {(endpoint.method, endpoint.path) for endpoint in GATE.all_endpoints}
    deposit = set(paths["/artifacts"]["post"]["responses"])
    assert {"200", "201", "401", "403", "408", "409", "410", "413", "415", "422", "429", "503"} <= deposit
    read = set(paths["/artifacts/{pointer}"]["get"]["responses"])
    assert {"200", "206", "304", "401", "404", "410", "416", "503"} <= read
    assert not any("500" in operation["responses"] for path in paths.values() for operation in path.values())


def with_examples(document: dict[str, Any], pointer: str, **deposit: str) -> dict[str, Any]:
    """Parameters whose example is something that is there, so that reads and deposits succeed too."""
    for path, methods in document["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", ()):
            if parameter["name"] == "pointer":
                parameter["example"] = pointer
        if path == "/artifacts":
            for parameter in methods["post"]["parameters"]:
                if parameter["name"] in deposit:
                    parameter["example"] = deposit[parameter["name"]]
    return document


async def consistent(depot: Depot) -> None:
    """Every artifact has its receipt and its bytes, no file is without a row, and the ledger verifies."""
    superuser, tenant = depot.database.superuser, depot.tenant.uid
    query = """SELECT count(*), count(r.receipt_id), count(b.key) FROM depotgate.artifact AS a
               LEFT JOIN memorygate.receipt AS r ON r.receipt_id = a.receipt_id AND r.tenant = a.tenant
               LEFT JOIN depotgate.blob AS b ON b.sha256 = a.sha256 AND b.tenant = a.tenant WHERE a.tenant = $1"""
    [(artifacts, receipts, blobs)] = await rows(superuser, query, tenant)
    assert artifacts == receipts == blobs > 0
    keys = await rows(superuser, "SELECT key FROM depotgate.blob WHERE tenant = $1", tenant)
    assert sorted(str(path.relative_to(depot.directory)) for path in depot.files()) == sorted(key for (key,) in keys)
    assert (await verify(depot.database.tasks.ledger.auditor)).bad is None


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.invariant("INV-080", "INV-094")
async def test_schemathesis_as_a_delegate_finds_nothing(depot: Depot, tmp_path: Path) -> None:
    deposited = await depot.kept(b"0123456789", who="delegate", role="plan")
    location = tmp_path / "openapi.json"
    location.write_text(json.dumps(with_examples(await document_of(depot), deposited["pointer"], role="plan")))
    await attack(depot.client, depot.tenant.principals["delegate"].headers, str(location), CONFIG, examples=15)
    await consistent(depot)
    assert (await depot.get(f"/artifacts/{deposited['pointer']}")).content == b"0123456789"


@pytest.mark.slow
@pytest.mark.timeout(200)
async def test_schemathesis_as_a_worker_finds_nothing(depot: Depot, tmp_path: Path) -> None:
    """Under a lease of its own."""
    ceilings = tmp_path / "ceilings.yaml"
    ceilings.write_text(f"- {{namespaces: ['team-*'], authority: {json.dumps(AUTHORITY)}}}\n", encoding="utf-8")
    async with serving_asyncgate(depot.tenant, ceilings_file=str(ceilings)) as tasks:
        task_id = await tasks.park(capability="attacked", authority=AUTHORITY)
        lease = await tasks.lease("worker", "attacked")
    deposited = await depot.kept(
        b"0123456789", who="worker", role="output", headers={"legivellum-lease": lease["lease_id"]}
    )
    examples = {"role": "output", "task_id": task_id, "Legivellum-Lease": lease["lease_id"]}
    location = tmp_path / "openapi.json"
    location.write_text(json.dumps(with_examples(await document_of(depot), deposited["pointer"], **examples)))
    await attack(depot.client, depot.tenant.principals["worker"].headers, str(location), CONFIG, examples=15)
    assert (await depot.tenant.phases(task_id)).count("stored") > 1
    await consistent(depot)
