"""explain, history and plan at the socket: who may ask about whom, and what is no question."""

from typing import Any
from uuid import uuid4

import httpx
import pytest
from tests.integration.api.town import Citizen, Town

HEAD = {"apiVersion": "metagate.legivellum.io/v1alpha1"}
MANIFEST: dict[str, Any] = {**HEAD, "kind": "Manifest", "metadata": {"name": "prod"}, "spec": {}}


async def plan(town: Town, who: Citizen, body: object, **params: Any) -> httpx.Response:
    return await town.client.post("/v1/admin/plan", json=body, params=params, headers=who.by_key)


async def read(town: Town, who: Citizen, path: str, **params: Any) -> httpx.Response:
    return await town.client.get(path, params=params, headers=who.by_key)


async def test_a_cluster_wide_admin_names_the_tenant(town: Town) -> None:
    """D-51: with ?tenant= it reads another tenant's; an admin of a namespace does not, and learns nothing."""
    ruler = await town.citizen("ruler", type="admin", scope="Cluster")
    who = await town.citizen("indexer")
    own = await town.citizen("admin", tenant=who.tenant, type="admin")
    session = (await town.boot(who)).json()["startup"]["startup_id"]
    stranger = await town.citizen("admin", type="admin")
    for path in (f"/v1/admin/explain/startup/{session}", "/v1/admin/explain/principal/indexer"):
        # it was published as rows, so nothing is remembered that would give the packet: found, and said loudly
        for asking, params in ((own, {}), (ruler, {"tenant": str(who.tenant)})):
            answer = await read(town, asking, path, **params)
            assert (answer.status_code, answer.json()["code"]) == (409, "NOT_REBUILT")
        assert (await read(town, stranger, path)).status_code == 404
        refused = await read(town, stranger, path, tenant=str(who.tenant))
        assert refused.json()["code"] == "TENANT_MISMATCH"
    assert (await read(town, ruler, "/v1/admin/history")).status_code == 200
    assert (await read(town, ruler, "/v1/admin/history/objects", tenant=str(who.tenant))).json()["items"] == []
    assert (await plan(town, ruler, {"resources": []}, tenant=str(who.tenant))).json()["changes"] is False
    assert (await plan(town, stranger, {"resources": []}, tenant=str(who.tenant))).json()["code"] == "TENANT_MISMATCH"
    observer = await town.citizen("watcher", type="observer", scope="Cluster")
    assert (await read(town, observer, "/v1/admin/history")).json()["code"] == "ROLE_REQUIRED"


async def test_plan_writes_nothing(town: Town) -> None:
    """What would be added is told; no revision, no object, no session comes of it."""
    admin = await town.citizen("admin", type="admin")
    before = (await town.client.get("/readyz")).json()["revision"]
    answer = await plan(town, admin, {"resources": [MANIFEST, {**MANIFEST, "metadata": {"name": "spare"}}]})
    assert answer.status_code == 200, answer.text
    assert [one["name"] for one in answer.json()["objects"]["added"]] == ["prod", "spare"]
    assert (await town.client.get("/readyz")).json()["revision"] == before
    assert await town.ask("SELECT FROM metagate.declared WHERE tenant = $1", admin.tenant) == []


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
async def test_what_is_no_plan(town: Town, body: object, code: str) -> None:
    """Refused with a code; garbage in a spec is not refused but told as a trouble."""
    admin = await town.citizen("admin", type="admin")
    assert (await plan(town, admin, body)).json()["code"] == code
    told = (await plan(town, admin, {"resources": [{**MANIFEST, "spec": ["garbage"]}]})).json()
    assert [one["state"] for one in told["troubles"]] == ["Invalid"]


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
        ("/v1/admin/explain/principal/a%00b", {}, "NOT_FOUND"),
        ("/v1/admin/explain/startup/x", {}, "INVALID_REQUEST"),
        (f"/v1/admin/explain/startup/{uuid4()}", {}, "SESSION_NOT_FOUND"),
        ("/v1/admin/plan", {}, "METHOD_NOT_ALLOWED"),
    ],
)
async def test_what_is_no_question(town: Town, path: str, params: dict[str, Any], code: str) -> None:
    """Each with its code, none with a 500."""
    admin = await town.citizen("admin", type="admin")
    assert (await read(town, admin, path, **params)).json()["code"] == code
