"""The registry of Problematas at the socket: who announces, who reads, what is refused."""

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.store.test_problematas import GATEWAY, problemata_body, problemata_row

ANNOUNCEMENT: dict[str, Any] = {
    "endpoint": "http://mail-gateway:8005/mcp",
    "version": "3",
    "capabilities": ["doc.review", "mail.send"],
    "health": "ok",
}
INSTANCE = "/v1/problematas/mail/instances/mail-gateway-0"


async def gateway_of(gate: GateFixture, tenant: UUID | None = None, **changes: Any) -> PrincipalFixture:
    """The gateway's principal of a tenant with one Problemata."""
    principal = await gate.principal(GATEWAY, tenant=tenant or uuid4(), type="service")
    await gate.publish(problemata=[problemata_row(principal.tenant, **changes)])
    return principal


async def put(gate: GateFixture, principal: PrincipalFixture, path: str = INSTANCE, **changes: Any) -> httpx.Response:
    body = {name: value for name, value in {**ANNOUNCEMENT, **changes}.items() if value is not ...}
    return await gate.client.put(path, json=body, headers=principal.by_key)


async def get(gate: GateFixture, principal: PrincipalFixture, path: str, **params: Any) -> httpx.Response:
    return await gate.client.get(path, params=params, headers=principal.by_key)


@pytest.mark.invariant("INV-119")
async def test_a_gateway_comes_and_goes(gate: GateFixture) -> None:
    """Announced at start, available; degraded, not available; withdrawn, gone. Anybody of the tenant sees it."""
    gateway = await gateway_of(gate)
    agent = await gate.principal("agent", tenant=gateway.tenant, type="principal")
    item = (await get(gate, agent, "/v1/problematas/mail")).json()
    assert item == {
        "id": "mail",
        "version": "3",
        "payload_kind": "plan_request",
        "capabilities": ["doc.review", "mail.send"],
        "policy_profile": "front-desk",
        "surface": "mail",
        "available": False,
        "instances": [],
    }
    assert (await put(gate, gateway)).status_code == 204
    document = (await get(gate, agent, "/v1/problematas")).json()
    assert document["next_cursor"] is None
    (item,) = document["items"]
    (instance,) = item["instances"]
    assert item["available"] is True
    announced_at = instance.pop("announced_at")
    assert (announced_at[-1], len(announced_at)) == ("Z", 27), "UTC with microseconds"
    assert instance == {
        "instance": "mail-gateway-0",
        "endpoint": ANNOUNCEMENT["endpoint"],
        "version": "3",
        "health": "ok",
    }
    assert (await put(gate, gateway, health="degraded")).status_code == 204
    assert (await get(gate, agent, "/v1/problematas/mail")).json()["available"] is False
    assert (await put(gate, gateway, INSTANCE.replace("-0", "-1"))).status_code == 204
    assert (await get(gate, agent, "/v1/problematas/mail")).json()["available"] is True
    for _ in range(2):
        for path in (INSTANCE, INSTANCE.replace("-0", "-1")):
            assert (await gate.client.delete(path, headers=gateway.by_key)).status_code == 204
    item = (await get(gate, agent, "/v1/problematas/mail")).json()
    assert (item["available"], item["instances"]) == (False, [])


@pytest.mark.invariant("INV-119")
async def test_what_is_refused(gate: GateFixture) -> None:
    """Not served 404, not its gateway 403, another version 409; and nothing of it is seen."""
    gateway = await gateway_of(gate)
    other = await gate.principal("other", tenant=gateway.tenant, type="admin")
    stranger = await gate.principal(GATEWAY, type="service")
    unknown = INSTANCE.replace("mail/", "unknown/")
    for answer, status, code in (
        (await put(gate, gateway, unknown), 404, "NOT_FOUND"),
        (await gate.client.delete(unknown, headers=gateway.by_key), 404, "NOT_FOUND"),
        (await put(gate, stranger), 404, "NOT_FOUND"),
        (await put(gate, other), 403, "NOT_ITS_GATEWAY"),
        (await gate.client.delete(INSTANCE, headers=other.by_key), 403, "NOT_ITS_GATEWAY"),
        (await put(gate, gateway, version="2"), 409, "OTHER_VERSION"),
        (await put(gate, gateway, capabilities=["doc.review", "doc.delete"]), 409, "OTHER_VERSION"),
        (await gate.client.put(INSTANCE, json=ANNOUNCEMENT), 401, "CREDENTIAL_MISSING"),
        (await get(gate, stranger, "/v1/problematas/mail"), 404, "NOT_FOUND"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert (await get(gate, stranger, "/v1/problematas")).json()["items"] == []
    assert (await get(gate, gateway, "/v1/problematas/mail")).json()["instances"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": ...},
        {"endpoint": "mail:8005"},
        {"endpoint": "http://user:pass@mail/mcp"},
        {"endpoint": "http://mail/mcp?token=abc"},
        {"endpoint": "http://mail/" + "a" * 512},
        {"endpoint": "http://mail/m cp"},
        {"version": ...},
        {"version": 3},
        {"version": ""},
        {"version": "3" * 64},
        {"capabilities": ...},
        {"capabilities": "doc.review"},
        {"capabilities": [1]},
        {"capabilities": [""]},
        {"capabilities": ["doc.review"] * 129},
        {"health": ...},
        {"health": "down"},
        {"health": ["ok"]},
        {"tasks": []},
    ],
)
async def test_a_body_that_is_no_announcement(gate: GateFixture, changes: dict[str, Any]) -> None:
    """422 and nothing stored; an unknown member too."""
    gateway = await gateway_of(gate)
    answer = await put(gate, gateway, **changes)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")
    assert (await get(gate, gateway, "/v1/problematas/mail")).json()["instances"] == []


@pytest.mark.parametrize("instance", ["-pod", "pod%20a", "a" * 254, "p%C3%B6d", "pod/more"])
async def test_a_name_that_no_instance_has(gate: GateFixture, instance: str) -> None:
    """It becomes part of a page and of a metric's label one day: like a component_key."""
    gateway = await gateway_of(gate)
    answer = await put(gate, gateway, f"/v1/problematas/mail/instances/{instance}")
    assert answer.status_code in {404, 422}
    assert (await put(gate, gateway, f"/v1/problematas/mail/instances/{'a' * 253}")).status_code == 204


async def test_a_list_in_pages(gate: GateFixture) -> None:
    """In the order of names; a cursor is of one tenant and of this list."""
    gateway = await gateway_of(gate)
    await gate.publish(
        problemata=[problemata_row(gateway.tenant, f"p{number}", problemata_body(str(number))) for number in range(4)]
    )
    names, cursor = [], None
    while True:
        page = (await get(gate, gateway, "/v1/problematas", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        names += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == ["mail", "p0", "p1", "p2", "p3"]
    cursor = (await get(gate, gateway, "/v1/problematas", limit=2)).json()["next_cursor"]
    stranger = await gate.principal("stranger", type="admin")
    for principal, path in ((stranger, "/v1/problematas"), (stranger, "/v1/admin/problematas")):
        answer = await get(gate, principal, path, cursor=cursor)
        assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_CURSOR")


async def test_a_cluster_wide_reader_names_the_tenant(gate: GateFixture) -> None:
    """D-51: an admin or observer of the whole cluster; nobody else reads another tenant's."""
    gateway = await gateway_of(gate)
    for kind in ("admin", "observer"):
        central = await gate.principal(f"central-{kind}", type=kind, scope="Cluster")
        assert (await get(gate, central, "/v1/problematas/mail", tenant=gateway.tenant)).json()["id"] == "mail"
        assert len((await get(gate, central, "/v1/problematas", tenant=gateway.tenant)).json()["items"]) == 1
    local = await gate.principal("local", type="admin")
    for path in ("/v1/problematas", "/v1/problematas/mail"):
        answer = await get(gate, local, path, tenant=gateway.tenant)
        assert (answer.status_code, answer.json()["code"]) == (403, "TENANT_MISMATCH")


@pytest.mark.invariant("INV-119")
async def test_what_is_no_longer_served_cannot_be_announced(gate: GateFixture) -> None:
    """Its instances leave with it, and do not come back by themselves."""
    gateway = await gateway_of(gate)
    await put(gate, gateway)
    await gate.publish(deletes={"problemata": [(str(gateway.tenant), "mail")]})
    assert (await put(gate, gateway)).status_code == 404
    assert (await get(gate, gateway, "/v1/problematas/mail")).status_code == 404
    await gate.publish(problemata=[problemata_row(gateway.tenant)])
    assert (await get(gate, gateway, "/v1/problematas/mail")).json()["instances"] == []
