"""What is taken back counts at once, in every answer: no memory of this process outlives what it rests on (D-45)."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, gate_fixture
from uuid_utils.compat import uuid7

from metagate_store.rows import Change

RESOURCE = {
    "apiVersion": "metagate.legivellum.io/v1alpha1",
    "kind": "Profile",
    "metadata": {"name": "x"},
    "spec": {},
}
ANNOUNCEMENT = {"endpoint": "http://mail:8005/mcp", "version": "3", "capabilities": [], "health": "ok"}
ASKED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("GET", "/v1/startups", {}),
    ("GET", f"/v1/startup/{uuid7()}", {}),
    ("GET", f"/v1/startup/{uuid7()}/packet", {}),
    ("GET", "/v1/topology", {}),
    ("GET", "/v1/summary", {}),
    ("GET", "/v1/policy-profiles/x", {}),
    ("GET", "/v1/problematas", {}),
    ("GET", "/v1/problematas/x", {}),
    ("PUT", "/v1/problematas/x/instances/y", {"json": ANNOUNCEMENT}),
    ("DELETE", "/v1/problematas/x/instances/y", {}),
    ("GET", "/v1/admin/principals", {}),
    ("GET", "/v1/admin/principals/x", {}),
    ("GET", "/v1/admin/history", {}),
    ("GET", "/v1/admin/history/objects", {}),
    ("GET", "/v1/admin/explain/principal/x", {}),
    ("DELETE", "/v1/admin/profiles/x", {}),
    ("POST", "/v1/admin/profiles", {"json": RESOURCE}),
    ("POST", "/v1/admin/plan", {"json": {"resources": []}}),
    ("POST", "/v1/introspect", {"json": {"token": "x"}}),
    ("POST", "/v1/bootstrap", {"json": {"component_key": "a"}}),
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def slow(database: Database) -> AsyncIterator[GateFixture]:
    """A gate that looks for what was published every ten seconds: whatever is noticed earlier, the statement noticed."""
    async with gate_fixture(database, credentials_poll_ms=10_000) as made:
        yield made


async def remember_token(slow: GateFixture, principal: PrincipalFixture) -> None:
    """Make the gate remember who this token is; HS256, because a key would first have to be published to it."""
    await slow.publisher.publish(_published(principal))
    assert (await slow.client.get("/v1/startups", headers=principal.by_token)).status_code == 200


def _published(principal: PrincipalFixture, **deletes: Any) -> Change:
    rows = {table: result for table, result in principal.rows().items() if table not in deletes}
    return Change(upserts=rows, deletes=deletes, packets={principal.digest or "": principal.body or b""})


async def answers(slow: GateFixture, principal: PrincipalFixture) -> dict[tuple[int, str], list[str]]:
    result: dict[tuple[int, str], list[str]] = {}
    for method, path, body in ASKED:
        answer = await slow.client.request(method, path, headers=principal.by_token, **body)
        result.setdefault((answer.status_code, answer.json().get("code", "")), []).append(path)
    return result


@pytest.mark.invariant("EXT-10", "EXT-11")
async def test_a_withdrawn_subject_is_told_by_every_answer(slow: GateFixture) -> None:
    """Each endpoint answers 401 CREDENTIAL_REVOKED to the very next request, also those that list and those for admins."""
    principal = PrincipalFixture(tenant=uuid7(), name="someone", type="admin")
    await remember_token(slow, principal)
    await slow.publisher.publish(_published(principal, subject=[("metagate", principal.subject)]))
    result = await answers(slow, principal)
    assert set(result) == {(401, "CREDENTIAL_REVOKED")}, result


@pytest.mark.invariant("EXT-11")
async def test_a_suspended_principal_is_told_by_every_answer(slow: GateFixture) -> None:
    """Each endpoint answers 403 PRINCIPAL_SUSPENDED to the very next request."""
    principal = PrincipalFixture(tenant=uuid7(), name="someone", type="admin")
    await remember_token(slow, principal)
    await slow.publisher.publish(_published(replace(principal, suspended=True)))
    result = await answers(slow, principal)
    assert set(result) == {(403, "PRINCIPAL_SUSPENDED")}, result


async def test_a_demoted_admin_is_an_admin_no_more(slow: GateFixture) -> None:
    """D-33: a demoted type takes effect with the very next request."""
    principal = PrincipalFixture(tenant=uuid7(), name="someone", type="admin")
    await remember_token(slow, principal)
    assert (await slow.client.get("/v1/admin/principals", headers=principal.by_token)).status_code == 200
    await slow.publisher.publish(_published(replace(principal, type="component")))
    refused = await slow.client.get("/v1/admin/principals", headers=principal.by_token)
    assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")
