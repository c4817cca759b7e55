"""The OpenAPI document of the gate: complete, true, and attacked by schemathesis as whoever may ask for most."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.delegate.test_reading import INTENT, made
from tests.openapi_attack import attack

from delegate.gate import GATE
from memorygate.verifying import verify

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONFIG = Path(__file__).with_name("schemathesis.toml")


async def document_of(tenant: PlanTenant) -> dict[str, Any]:
    document: dict[str, Any] = (await tenant.ask(None, "GET", "delegate", "/openapi.json")).json()
    return document


async def test_it_documents_every_route(tenant: PlanTenant) -> None:
    """Every endpoint that is routed, no status 500, and the members that its problems have beside the common ones."""
    document = await document_of(tenant)
    paths = document["paths"]
    documented = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert documented == {(endpoint.method, endpoint.path) for endpoint in GATE.all_endpoints}
    assert not any("500" in operation["responses"] for path in paths.values() for operation in path.values())
    assert {"202", "401", "403", "404", "409", "413", "422", "503"} <= set(paths["/plans"]["post"]["responses"])
    assert paths["/intents/{namespace}"]["post"]["security"] == []
    assert {"findings", "open"} < set(document["components"]["schemas"]["Problem"]["properties"])


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("who", ["principal", "observer"])
async def test_schemathesis_finds_nothing(tenant: PlanTenant, tmp_path: Path, who: str) -> None:
    """No server error, no undocumented answer, no ignored rule; the ledger verifies, and an observer has written nothing."""
    plan = await made(tenant)
    before = len(await tenant.receipts())
    document = await document_of(tenant)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] == "plan_id":
                    parameter["example"] = plan["plan_id"]
        if path in {"/plans", "/plans/validate"}:
            methods["post"]["requestBody"]["content"]["application/json"]["example"] = {"intent": INTENT}
    location = tmp_path / "openapi.json"
    location.write_text(json.dumps(document))
    async with httpx.AsyncClient(base_url=tenant.gates.url("delegate"), timeout=30) as client:
        await attack(client, tenant.principals[who].headers, str(location), CONFIG, examples=10)
    receipts = await tenant.receipts()
    assert len(receipts) > before if who == "principal" else len(receipts) == before
    assert (await verify(tenant.gates.database.tasks.ledger.auditor)).bad is None
