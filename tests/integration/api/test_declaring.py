"""Standalone writes (D-53) through the port, with a directory that is a dictionary."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest_asyncio
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, gate_fixture

from metagate_api.declared_files import FileWritten, ResourceFinding

API = "metagate.legivellum.io/v1alpha1"


class Files:
    """The port's contract without a disk."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str, str], Mapping[str, Any]] = {}

    async def write(
        self, *, kind: str, namespace: str, name: str, resource: Mapping[str, Any]
    ) -> FileWritten | Sequence[ResourceFinding]:
        if "tasks" in str(resource):
            return [ResourceFinding("spec.environment.tasks", "ForbiddenKey", "is a forbidden key")]
        if "bad" in resource["spec"]:
            return [ResourceFinding("spec.bad", "Invalid", "is not a field")]
        created = (kind, namespace, name) not in self.held
        self.held[kind, namespace, name] = resource
        return FileWritten(created)

    async def remove(self, *, kind: str, namespace: str, name: str) -> bool:
        return self.held.pop((kind, namespace, name), None) is not None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def standalone(database: Database) -> AsyncIterator[tuple[GateFixture, Files]]:
    files = Files()
    async with gate_fixture(database, declared=files) as made:
        yield made, files


def resource(kind: str = "Profile", name: str = "worker", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


async def test_declared_replaced_removed(standalone: tuple[GateFixture, Files]) -> None:
    """201 when new, 200 when replaced, 204 when removed, 404 when there is none; in the caller's namespace."""
    gate, files = standalone
    admin = await gate.principal("admin", type="admin")
    namespace = f"team-{admin.tenant.hex[:8]}"

    async def post(view: str, body: Any, principal: PrincipalFixture = admin) -> tuple[int, dict[str, Any]]:
        answer = await gate.client.post(f"/v1/admin/{view}", json=body, headers=principal.by_key)
        return answer.status_code, answer.json()

    assert (await post("profiles", resource(capabilities={})))[0] == 201
    assert files.held["Profile", namespace, "worker"]["spec"] == {"capabilities": {}}
    assert (await post("profiles", resource()))[0] == 200
    assert (await post("bindings", resource("PrincipalBinding")))[0] == 201
    gone = await gate.client.delete("/v1/admin/profiles/worker", headers=admin.by_key)
    assert (gone.status_code, gone.content) == (204, b"")
    again = await gate.client.delete("/v1/admin/profiles/worker", headers=admin.by_key)
    assert (again.status_code, again.json()["code"]) == (404, "NOT_FOUND")


async def test_what_may_not_be_written(standalone: tuple[GateFixture, Files]) -> None:
    """Another namespace, wider rights, another kind, an issuer by who is not cluster-wide, whatever breaks a rule."""
    gate, files = standalone
    admin = await gate.principal("admin", type="admin")
    ruler = await gate.principal("ruler", type="admin", scope="Cluster")
    before = dict(files.held)

    async def post(view: str, body: Any, principal: PrincipalFixture = admin) -> tuple[int, str]:
        answer = await gate.client.post(f"/v1/admin/{view}", json=body, headers=principal.by_key)
        return answer.status_code, answer.json().get("code", "")

    foreign = resource()
    foreign["metadata"]["namespace"] = "another"
    assert await post("profiles", foreign) == (403, "TENANT_MISMATCH")
    assert await post("principals", resource("Principal", scope="Cluster")) == (403, "ROLE_REQUIRED")
    assert await post("principals", resource("Principal", rights=["witness"])) == (403, "ROLE_REQUIRED")
    assert await post("profiles", resource("Manifest")) == (422, "INVALID_RESOURCE")
    assert await post("profiles", {}) == (422, "INVALID_RESOURCE")
    assert await post("profiles", resource(name="../../etc")) == (422, "INVALID_RESOURCE")
    assert await post("manifests", resource("Manifest", environment={"tasks": 1})) == (422, "FORBIDDEN_KEYS")
    assert await post("manifests", resource("Manifest", bad=1)) == (422, "INVALID_RESOURCE")
    assert await post("secret-refs", resource()) == (405, "DECLARED_BY_RESOURCE")
    assert await post("token-issuers", resource("TokenIssuer")) == (403, "ROLE_REQUIRED")
    assert files.held == before
    assert await post("token-issuers", resource("TokenIssuer"), ruler) == (201, "")
    assert ("TokenIssuer", "", "worker") in files.held
    for key, statuses in (("..", {404, 405}), (".", {404, 405}), ("a%2Fb", {404}), ("A", {404}), ("%00", {400})):
        answer = await gate.client.delete(f"/v1/admin/profiles/{key}", headers=admin.by_key)
        assert answer.status_code in statuses
