"""`metagate dev --with interrogate`: a policy in a file decides a request, and the ledger has the decision."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource
from tests.integration.memorygate.ledger_fixture import free_port
from ulid import ULID

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)


def envelope(capability: str) -> dict[str, Any]:
    return {
        "tenant_id": "default",
        "surface_id": "public",
        "policy_profile_id": "strict",
        "payload_kind": "task",
        "payload": {},
        "causality": {
            "root_task_id": str(ULID()),
            "parent_task_id": None,
            "caused_by_receipt_id": None,
            "spawn_depth": None,
            "capability_id": capability,
        },
    }


def test_a_policy_in_a_file_decides_and_the_ledger_remembers(tmp_path: Path) -> None:
    """It brings the ledger; a changed file decides differently at once."""
    world, alice = DeclaredFolder(tmp_path / "resources"), mint()
    spec: dict[str, Any] = {
        "limits": {"maxSpawnDepth": 2},
        "surfaces": [{"surfaceId": "public", "principals": ["*"], "capabilities": {"allow": ["doc.read"]}}],
    }
    world.write("people/alice.yaml", principal("alice", alice, type="principal"))
    world.write("policy.yaml", resource("PolicyProfile", "strict", spec))
    ports = {"MEMORYGATE_PORT": str(free_port()), "INTERROGATE_PORT": str(free_port())}
    dev = Dev(world.folder, tmp_path / "data", "--with", "interrogate", **ports)
    try:
        dev.ready()
        assert [event["gate"] for event in dev.events("serving_gate")] == ["memorygate", "interrogate"]
        gate, ledger = (f"http://127.0.0.1:{ports[name]}" for name in ("INTERROGATE_PORT", "MEMORYGATE_PORT"))
        headers = {"X-API-Key": alice.key}

        def evaluate(capability: str) -> httpx.Response:
            return httpx.post(f"{gate}/v1/evaluate", json=envelope(capability), headers=headers)

        dev.until(lambda: evaluate("doc.read").status_code == 200, 20)
        admitted, denied = evaluate("doc.read").json(), evaluate("doc.write")
        assert (denied.status_code, denied.json()["reason_code"]) == (403, "CAPABILITY_DENIED")
        receipt = httpx.get(f"{ledger}/receipts/{admitted['receipt_id']}", headers=headers).json()
        assert (receipt["kind"], receipt["phase"], receipt["emitter"]) == ("admission", "accepted", "svc:interrogate")
        assert receipt["task_id"] == receipt["root_task_id"] == admitted["task_id"]
        spec["surfaces"][0]["capabilities"]["allow"] = ["doc.*"]
        world.write("policy.yaml", resource("PolicyProfile", "strict", spec))
        dev.until(lambda: evaluate("doc.write").status_code == 200, 20)
        assert json.loads(httpx.get(f"{gate}/").text)["service"] == "InterroGate"
        # The MCP endpoint is served too, to a client that knows nothing but JSON-RPC.
        sent = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        accepts = {"Accept": "application/json, text/event-stream", **headers}
        assert '"problemata.passthrough"' in httpx.post(f"{gate}/mcp", json=sent, headers=accepts).text
    finally:
        assert dev.stop() == 0
