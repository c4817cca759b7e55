"""`metagate dev`: a Problemata in a file is served, its gateway announces itself, and a broken one says why not."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource
from tests.unit.crds.worlds import GATEWAY_POLICY, PROBLEMATA

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)

INSTANCE = "/v1/problematas/mail/instances/here"
ANNOUNCEMENT = {"endpoint": "http://localhost:8005/mcp", "version": "3", "capabilities": ["mail.send"], "health": "ok"}


@pytest.mark.invariant("INV-119")
def test_a_problemata_in_a_file(tmp_path: Path) -> None:
    """Served with its policy, announced, seen in the admin views, the history and a plan; gone with its surface."""
    world, gateway = DeclaredFolder(tmp_path / "resources"), mint()
    world.write("policy.yaml", resource("PolicyProfile", "front-desk", GATEWAY_POLICY))
    world.write("people/gateway.yaml", principal("mail-gateway", gateway, type="service"))
    world.write("mail.yaml", resource("Problemata", "mail", PROBLEMATA))
    dev = Dev(world.folder, tmp_path / "data")
    try:
        dev.ready()
        with (
            httpx.Client(base_url=dev.url, headers={"X-API-Key": gateway.key}, timeout=10) as client,
            httpx.Client(base_url=dev.url, headers={"X-API-Key": world.admin.key}, timeout=10) as admin,
        ):
            dev.until(lambda: client.get("/v1/problematas/mail").status_code == 200, 20)
            assert client.put(INSTANCE, json=ANNOUNCEMENT).status_code == 204
            assert client.get("/v1/problematas/mail").json()["available"] is True
            assert client.put(INSTANCE, json={**ANNOUNCEMENT, "version": "2"}).status_code == 409
            view = admin.get("/v1/admin/problematas/mail").json()
            assert view["spec"] == {**view["spec"], **PROBLEMATA}
            (change,) = admin.get("/v1/admin/history", params={"object": "problemata/mail"}).json()["items"]
            assert (change["kind"], change["how"]) == ("Problemata", "added")
            plan = admin.post("/v1/admin/plan", json={"resources": [declared({**PROBLEMATA, "version": "4"})]}).json()
            assert plan["others"] == [{"kind": "Problemata", "namespace": "default", "name": "mail"}]
            world.write("policy.yaml", resource("PolicyProfile", "front-desk", {"limits": {"maxSpawnDepth": 1}}))
            dev.until(lambda: client.get("/v1/problematas/mail").status_code == 404, 20)
            assert client.put(INSTANCE, json=ANNOUNCEMENT).status_code == 404
            world.write("policy.yaml", resource("PolicyProfile", "front-desk", GATEWAY_POLICY))
            dev.until(lambda: client.get("/v1/problematas/mail").status_code == 200, 20)
            assert client.get("/v1/problematas/mail").json()["available"] is False
            written = admin.post("/v1/admin/problematas", json=declared({**PROBLEMATA, "version": "4"}))
            assert written.status_code == 200, written.text
            dev.until(lambda: client.get("/v1/problematas/mail").json()["version"] == "4", 20)
            refused = admin.post("/v1/admin/problematas", json=declared(PROBLEMATA, "problemata"))
            assert (refused.status_code, refused.json()["code"]) == (422, "INVALID_RESOURCE")
            assert "metadata.name" in refused.json()["detail"]
            assert admin.delete("/v1/admin/problematas/mail").status_code == 204
            dev.until(lambda: client.get("/v1/problematas/mail").status_code == 404, 20)
    finally:
        assert dev.stop() == 0


def declared(spec: Any, name: str = "mail") -> dict[str, Any]:
    return {
        "apiVersion": "metagate.legivellum.io/v1alpha1",
        "kind": "Problemata",
        "metadata": {"name": name},
        "spec": spec,
    }
