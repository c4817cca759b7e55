"""explain, history and plan at the socket: who may ask about whom, and what is no question."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture

HEAD = {"apiVersion": "metagate.legivellum.io/v1alpha1"}
MANIFEST: dict[str, Any] = {**HEAD, "kind": "Manifest", "metadata": {"name": "prod"}, "spec": {}}


async def plan(gate: GateFixture, principal: PrincipalFixture, body: object, **params: Any) -> httpx.Response:
    return await gate.client.post("/v1/admin/plan", json=body, params=params, headers=principal.by_key)


async def read(gate: GateFixture, principal: PrincipalFixture, path: str, **params: Any) -> httpx.Response:
    return await gate.client.get(path, params=params, headers=principal.by_key)


async def test_a_cluster_wide_admin_names_the_tenant(gate: GateFixture) -> None:
    """D-51: with ?tenant= it reads another tenant's; an admin of a namespace does not, and learns nothing."""
    ruler = await gate.principal("ruler", type="admin", scope="Cluster")
    principal = await gate.principal("indexer")
    own = await gate.principal("admin", tenant=principal.tenant, type="admin")
    session = (await gate.boot(principal)).json()["startup"]["startup_id"]
    stranger = await gate.principal("admin", type="admin")
    for path in (f"/v1/admin/explain/startup/{session}", "/v1/admin/explain/principal/indexer"):
        # it was published as rows, so nothing is remembered that would give the packet: found, and said loudly
        for asking, params in ((own, {}), (ruler, {"tenant": str(principal.tenant)})):
            answer = await read(gate, asking, path, **params)
            assert (answer.status_code, answer.json()["code"]) == (409, "NOT_REBUILT")
        assert (await read(gate, stranger, path)).status_code == 404
        refused = await read(gate, stranger, path, tenant=str(principal.tenant))
        assert refused.json()["code"] == "TENANT_MISMATCH"
    assert (await read(gate, ruler, "/v1/admin/history")).status_code == 200
    assert (await read(gate, ruler, "/v1/admin/history/objects", tenant=str(principal.tenant))).json()["items"] == []
    assert (await plan(gate, ruler, {"resources": []}, tenant=str(principal.tenant))).json()["changes"] is False
    assert (await plan(gate, stranger, {"resources": []}, tenant=str(principal.tenant))).json()[
        "code"
    ] == "TENANT_MISMATCH"
    observer = await gate.principal("watcher", type="observer", scope="Cluster")
    assert (await read(gate, observer, "/v1/admin/history")).json()["code"] == "ROLE_REQUIRED"


async def test_plan_writes_nothing(gate: GateFixture) -> None:
    """What would be added is told; no revision, no object, no session comes of it."""
    admin = await gate.principal("admin", type="admin")
    before = (await gate.client.get("/readyz")).json()["revision"]
    answer = await plan(gate, admin, {"resources": [MANIFEST, {**MANIFEST, "metadata": {"name": "spare"}}]})
    assert answer.status_code == 200, answer.text
    assert [item["name"] for item in answer.json()["objects"]["added"]] == ["prod", "spare"]
    assert (await gate.client.get("/readyz")).json()["revision"] == before
    assert await gate.ask("SELECT FROM metagate.declared WHERE tenant = $1", admin.tenant) == []


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "INVALID_REQUEST"),
        ({"resources": {}}, "INVALID_REQUEST"),
        ({"resources": [], "prune": 1}, "INVALID_REQUEST"),
        ({"resources": [7]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "apiVersion": "v1"}]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "kind": "TokenIssuer"}]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "kind": []}]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "metadata": {"name": "../x"}}]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "metadata": None}]}, "INVALID_RESOURCE"),
        ({"resources": [{**MANIFEST, "metadata": {"name": "x", "namespace": "another"}}]}, "TENANT_MISMATCH"),
    ],
)
async def test_what_is_no_plan(gate: GateFixture, body: object, code: str) -> None:
    """Refused with a code; garbage in a spec is not refused but told as a trouble."""
    admin = await gate.principal("admin", type="admin")
    assert (await plan(gate, admin, body)).json()["code"] == code
    document = (await plan(gate, admin, {"resources": [{**MANIFEST, "spec": ["garbage"]}]})).json()
    assert [trouble["state"] for trouble in document["troubles"]] == ["Invalid"]


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("/v1/admin/history", {"object": "secret/x"}, "INVALID_REQUEST"),
        ("/v1/admin/history", {"object": "manifest/X\x00"}, "INVALID_REQUEST"),
        ("/v1/admin/history", {"cursor": "WyJoaXN0b3J5IiwieCIsInkiXQ"}, "INVALID_CURSOR"),
        ("/v1/admin/history/objects", {"revision": 10**12}, "NOT_FOUND"),
        ("/v1/admin/history/objects", {"revision": 0}, "INVALID_REQUEST"),
        ("/v1/admin/history/objects", {"cursor": "WyJoaXN0b3J5IiwiMSIsIjIiXQ"}, "INVALID_CURSOR"),
        ("/v1/admin/explain/principal/nobody", {}, "NOT_FOUND"),
        ("/v1/admin/explain/principal/a%00b", {}, "MALFORMED_REQUEST"),
        ("/v1/admin/explain/startup/x", {}, "INVALID_REQUEST"),
        (f"/v1/admin/explain/startup/{uuid4()}", {}, "SESSION_NOT_FOUND"),
        ("/v1/admin/plan", {}, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_what_is_no_question(gate: GateFixture, path: str, params: dict[str, Any], code: str) -> None:
    """Each with its code, none with a 500."""
    admin = await gate.principal("admin", type="admin")
    assert (await read(gate, admin, path, **params)).json()["code"] == code
