"""The OpenAPI document: complete, true, and attacked by schemathesis while the gate runs."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.api.gate_fixture import GateFixture

from metagate_api.endpoints import ENDPOINTS

HERE = Path(__file__).parent


async def test_it_documents_every_route(gate: GateFixture) -> None:
    """Every endpoint of the specification is in it, hot routes included, with every status that it may answer."""
    document = (await gate.client.get("/openapi.json")).json()
    result = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert result == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    boot = document["paths"]["/v1/bootstrap"]["post"]
    assert {"200", "304", "400", "401", "403", "409", "413", "415", "422", "429", "503"} <= set(boot["responses"])
    packet = document["components"]["schemas"]["WelcomePacket"]
    assert len(packet["properties"]) == len(packet["required"]) == 17
    assert packet["additionalProperties"] is False
    for _, path in result:
        for operation in document["paths"][path].values():
            assert "500" not in operation["responses"]


async def test_the_endpoint_table_is_what_is_routed(gate: GateFixture) -> None:
    """Each endpoint of the table answers something else than 404 or 405 to somebody who may."""
    admin = await gate.principal("admin", type="admin")
    session = (await gate.boot(admin)).json()["startup"]["startup_id"]
    for endpoint in ENDPOINTS:
        path = endpoint.path.format(
            startup_id=session, kind="principals", key="admin", problemata_id="mail", instance="here"
        )
        answer = await gate.client.request(endpoint.method, path, headers=admin.by_key)
        unrouted = answer.status_code == 405 and answer.json()["code"] == "METHOD_NOT_ALLOWED"
        assert not unrouted, endpoint
        if answer.status_code == 404:
            assert "nothing at this path" not in answer.json()["detail"], endpoint


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_schemathesis(gate_process: tuple[str, int, dict[str, str], str]) -> None:
    """Generated and corner-case requests to every operation: no server error, no undocumented answer, no ignored rule."""
    host, port, headers, _ = gate_process
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "--config-file", str(HERE / "schemathesis.toml"),
        "run", f"http://{host}:{port}/openapi.json",
        "-H", f"X-API-Key: {headers['x-api-key']}",
        "--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "20",
        "--request-timeout", "5", "--generation-database", "none", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout.partition("= FAILURES =")[2][:6_000] + done.stderr[-1_000:]


async def test_nothing_answers_500(gate: GateFixture) -> None:
    """After everything above, the gate has not counted a single 500."""
    await asyncio.sleep(0)
    text = (await gate.client.get("/metrics")).text
    assert 'status="500"' not in text
