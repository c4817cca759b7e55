"""The OpenAPI document of the gate: complete, true, and attacked by schemathesis while it decides."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import OPEN_POLICY, GateClient, PublishedWorld, serving_interrogate
from tests.openapi_attack import attack

from interrogate.gate import GATE

CONFIG = Path(__file__).with_name("schemathesis.toml")


@pytest_asyncio.fixture(loop_scope="session")
async def gate(admission_database: AdmissionDatabase) -> AsyncIterator[GateClient]:
    async with serving_interrogate(PublishedWorld(admission_database)) as served:
        yield served


async def test_it_documents_every_route(gate: GateClient) -> None:
    """Every endpoint that is routed, and no status 500."""
    document = (await gate.client.get("/openapi.json")).json()
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert documented == {(endpoint.method, endpoint.path) for endpoint in GATE.all_endpoints}
    evaluate = document["paths"]["/v1/evaluate"]["post"]
    assert {"200", "400", "401", "403", "404", "409", "413", "415", "422", "429", "502", "503"} <= set(
        evaluate["responses"]
    )
    assert not any(
        "500" in operation["responses"] for path in document["paths"].values() for operation in path.values()
    )


async def decisions(gate: GateClient) -> int:
    """How many were made by this process, whatever they said."""
    samples = [
        line.rpartition(" ")[2]
        for line in (await gate.client.get("/metrics")).text.splitlines()
        if line.startswith("interrogate_decisions_total")
    ]
    return sum(int(float(sample)) for sample in samples)


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.invariant("INV-098")
async def test_schemathesis_finds_nothing(gate: GateClient) -> None:
    """Generated and corner-case requests to every operation: no server error, no undocumented answer, no ignored rule; and
    whatever was decided meanwhile has its receipt."""
    principal = gate.world.principal("alice")
    await gate.world.publish(principal, policies={"strict": OPEN_POLICY})
    await gate.awaited(gate.requesting(principal))
    before = await decisions(gate)
    headers = {"X-API-Key": principal.key}
    await attack(gate.client, headers, f"{gate.url}/openapi.json", CONFIG, examples=50, seconds=10)
    assert await decisions(gate) - before == len(await gate.receipts()) > 0
