"""The GET endpoints and introspection at the socket: who sees what, page by page."""

import json
import time
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture, shared_body
from tests.integration.store.worlds import row
from tests.unit.identity import issued

from metagate_api.endpoints import ENDPOINTS

VIEWS = ("principals", "profiles", "manifests", "bindings", "secret-refs", "policy-profiles")


async def read(gate: GateFixture, who: PrincipalFixture | None, path: str, **params: Any) -> httpx.Response:
    return await gate.client.get(path, params=params, headers=who.by_key if who else {})


async def furnish(gate: GateFixture, tenant: UUID, names: tuple[str, ...] = ("worker",)) -> None:
    """Profiles, manifests and policy profiles of a tenant."""
    base = {"tenant": str(tenant), "generation": 1}
    refs = [{"name": "db", "kind": "Env", "ref": "DB_PASSWORD", "required": True}]
    await gate.publish(
        profile=[
            row(uuid4(), **base, name=name, body={"capabilities": {"a": 1}, "secretRefs": refs}) for name in names
        ],
        manifest=[row(uuid4(), **base, name=name, body={"environment": {"region": "eu"}}) for name in names],
        policy_profile=[
            row(uuid4(), **base, name=name, body={"limits": {"maxSpawnDepth": 5}}, policy_hash="a" * 64)
            for name in names
        ],
    )


@pytest.mark.invariant("INV-038")
@pytest.mark.parametrize("view", VIEWS)
async def test_admin_views_are_never_open(gate: GateFixture, view: str) -> None:
    """Anonymous 401, any other type 403, an admin 200 with its own tenant's objects only."""
    tenant = uuid4()
    admin = await gate.principal("admin", tenant=tenant, type="admin")
    await furnish(gate, tenant)
    stranger = await gate.principal("admin", type="admin")
    await furnish(gate, stranger.tenant)
    for path in (f"/v1/admin/{view}", f"/v1/admin/{view}/worker"):
        assert (await read(gate, None, path)).status_code == 401
        for kind in ("component", "observer", "service", "worker", "principal", "delegate"):
            other = await gate.principal(f"a-{kind}", tenant=tenant, type=kind)
            answer = await read(gate, other, path)
            assert (answer.status_code, answer.json()["code"]) == (403, "ROLE_REQUIRED")
    found = (await read(gate, admin, f"/v1/admin/{view}")).json()
    assert found["items"], view
    assert {item["tenant"] for item in found["items"]} == {str(tenant)}
    assert all(isinstance(item["revision"], int) for item in found["items"])
    for item in found["items"]:
        one = await read(gate, admin, f"/v1/admin/{view}/{item['key']}")
        assert one.status_code == 200
        assert one.json() == item
    missing = await read(gate, admin, f"/v1/admin/{view}/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    text = json.dumps(found)
    assert admin.key not in text
    assert str(stranger.tenant) not in text


@pytest.mark.invariant("INV-038")
async def test_admin_views_show_the_snapshot(gate: GateFixture) -> None:
    """What is listed is what the database serves."""
    tenant = uuid4()
    admin = await gate.principal("admin", tenant=tenant, type="admin")
    await furnish(gate, tenant)
    profile = (await read(gate, admin, "/v1/admin/profiles/worker")).json()
    assert '"capabilities": {"a": 1}' in json.dumps(profile)
    secret = (await read(gate, admin, "/v1/admin/secret-refs/worker:db")).json()
    assert "DB_PASSWORD" in json.dumps(secret), "a reference is shown; there is no value to show"
    assert (await read(gate, admin, "/v1/admin/bindings")).json()["items"][0]["key"]


async def test_tenants_of_others(gate: GateFixture) -> None:
    """`tenant` names one's own, or is refused; a cluster-wide admin or observer reads every tenant (D-51)."""
    one = await gate.principal("one", type="admin")
    two = await gate.principal("two", type="admin")
    await gate.boot(two)
    system = uuid4()
    ruler = await gate.principal("ruler", tenant=system, type="admin", scope="Cluster")
    watcher = await gate.principal("watcher", tenant=system, type="observer", scope="Cluster")
    for path in ("/v1/admin/principals", "/v1/startups"):
        assert (await read(gate, one, path, tenant=str(one.tenant))).status_code == 200
        refused = await read(gate, one, path, tenant=str(two.tenant))
        assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")
        for reader in (ruler, watcher):
            if reader is watcher and "admin" in path:
                continue
            everything = (await read(gate, reader, path, limit=500)).json()["items"]
            assert str(two.tenant) in {item["tenant"] for item in everything}
            some = (await read(gate, reader, path, tenant=str(two.tenant))).json()["items"]
            assert {item["tenant"] for item in some} == {str(two.tenant)}
    session = (await read(gate, two, "/v1/startups")).json()["items"][0]["startup_id"]
    assert (await read(gate, watcher, f"/v1/startup/{session}", tenant=str(two.tenant))).status_code == 200
    assert (await read(gate, watcher, f"/v1/startup/{session}")).status_code == 404
    assert (await read(gate, ruler, "/v1/admin/principals/two", tenant=str(two.tenant))).status_code == 200
    scoped = await gate.principal("scoped", tenant=system, type="component", scope="Cluster")
    assert (await read(gate, scoped, "/v1/startups", tenant=str(two.tenant))).status_code == 403


async def test_sessions_are_ones_own(gate: GateFixture) -> None:
    """A component sees its own sessions; admin and observer those of the tenant; nobody another tenant's."""
    who = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=who.tenant)
    observer = await gate.principal("observer", tenant=who.tenant, type="observer")
    stranger = await gate.principal("observer", type="observer")
    mine = (await gate.boot(who, "a")).json()["startup"]["startup_id"]
    theirs = (await gate.boot(neighbour, "b")).json()["startup"]["startup_id"]
    assert [item["startup_id"] for item in (await read(gate, who, "/v1/startups")).json()["items"]] == [mine]
    assert {item["startup_id"] for item in (await read(gate, observer, "/v1/startups")).json()["items"]} == {
        mine,
        theirs,
    }
    assert (await read(gate, stranger, "/v1/startups")).json() == {"items": [], "next_cursor": None}
    one = await read(gate, who, f"/v1/startup/{mine}")
    assert one.status_code == 200
    assert one.json()["status"] == "OPEN"
    forbidden = await read(gate, who, f"/v1/startup/{theirs}")
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "NOT_YOURS")
    assert (await read(gate, observer, f"/v1/startup/{theirs}")).status_code == 200
    foreign, unknown = (
        await read(gate, stranger, f"/v1/startup/{mine}"),
        await read(gate, stranger, f"/v1/startup/{uuid4()}"),
    )
    assert foreign.status_code == 404
    assert foreign.json() == unknown.json()
    assert (await read(gate, who, "/v1/startup/nonsense")).status_code == 422
    assert (await read(gate, None, "/v1/startup/nonsense")).status_code == 401


async def test_sessions_are_filtered_and_paged(gate: GateFixture) -> None:
    """Filters by status and component; pages in a stable order without loss or repetition."""
    who = await gate.principal()
    ids = [(await gate.boot(who, f"c_{n % 2}")).json()["startup"]["startup_id"] for n in range(7)]
    await gate.ready(who, ids[0])
    await gate.failed(who, ids[1])

    async def listed(**params: Any) -> list[str]:
        found, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = (await read(gate, who, "/v1/startups", **params, **more)).json()
            assert set(page) == {"items", "next_cursor"}
            assert len(page["items"]) <= params.get("limit", 100)
            found += [item["startup_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert await listed() == ids[::-1]
    for limit in (1, 2, 3, 7):
        assert await listed(limit=limit) == ids[::-1]
    assert await listed(status="READY") == [ids[0]]
    assert await listed(status="FAILED") == [ids[1]]
    assert await listed(status="OPEN", limit=2) == ids[:1:-1]
    assert await listed(component_key="c_0", limit=2) == ids[::2][::-1]
    assert await listed(component_key="none") == []


async def test_admin_lists_are_paged(gate: GateFixture) -> None:
    """Every view pages by key, also across tenants."""
    tenant = uuid4()
    admin = await gate.principal("admin", tenant=tenant, type="admin")
    await furnish(gate, tenant, tuple(f"p{n}" for n in range(5)))
    found, cursor = [], None
    while True:
        page = (await read(gate, admin, "/v1/admin/profiles", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        found += [item["key"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [f"p{n}" for n in range(5)]


@pytest.mark.parametrize(
    "cursor",
    ["x", "AAAA", "%00", "W10", "WyJzdGFydHVwcyJd", "WyJwcm9maWxlcyIsIngiLCJ5Il0", "e30", "a" * 1_000, "\u00e9"],
)
async def test_foreign_cursors_are_422(gate: GateFixture, cursor: str) -> None:
    """What this list did not hand out is refused, never taken for a position."""
    who = await gate.principal()
    answer = await read(gate, who, "/v1/startups", cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_CURSOR")


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 501}, {"limit": "x"}, {"status": "open"}, {"tenant": "x"}, {"component_key": ""}],
    ids=str,
)
async def test_parameters_are_judged(gate: GateFixture, params: dict[str, Any]) -> None:
    """What is out of bounds is 422 and not repeated."""
    who = await gate.principal()
    answer = await read(gate, who, "/v1/startups", **params)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_the_packet_again(gate: GateFixture) -> None:
    """D-47: the owner reads the packet as of now; no session comes of it; the tag is honoured."""
    who = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=who.tenant)
    booted = (await gate.boot(who)).json()
    session = booted["startup"]["startup_id"]
    before = await gate.sessions()
    path = f"/v1/startup/{session}/packet"
    again = await read(gate, who, path)
    assert again.status_code == 200
    assert again.json() == booted
    same = await gate.client.get(path, headers={**who.by_key, "if-none-match": again.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", again.headers["etag"])
    await gate.change(who, body=shared_body(services={}))
    now = await gate.client.get(path, headers={**who.by_key, "if-none-match": again.headers["etag"]})
    assert now.status_code == 200
    assert now.json()["services"] == {}
    assert now.json()["startup"]["startup_id"] == session
    assert (await read(gate, neighbour, path)).json()["code"] == "NOT_YOURS"
    assert (await read(gate, who, f"/v1/startup/{uuid4()}/packet")).json()["code"] == "SESSION_NOT_FOUND"
    assert await gate.sessions() == before


async def test_policy_profiles(gate: GateFixture) -> None:
    """Any principal of the tenant reads the ruleset and its hash; another tenant's does not exist."""
    who = await gate.principal()
    await furnish(gate, who.tenant, ("public",))
    stranger = await gate.principal()
    found = await read(gate, who, "/v1/policy-profiles/public")
    assert found.status_code == 200
    assert (found.json()["policy_hash"], found.json()["ruleset"]) == ("a" * 64, {"limits": {"maxSpawnDepth": 5}})
    assert (await read(gate, stranger, "/v1/policy-profiles/public")).json()["code"] == "NOT_FOUND"


@pytest.mark.invariant("INV-041")
async def test_topology(gate: GateFixture) -> None:
    """D-49: principals, permitted and seen components, services and who uses them, of the caller's tenant."""
    who = await gate.principal(components=("indexer_*",))
    other = await gate.principal("other", tenant=who.tenant, body=shared_body(services={}))
    stranger = await gate.principal("stranger")
    await gate.boot(who)
    answer = await read(gate, other, "/v1/topology")
    assert answer.status_code == 200
    seen = {one["principal_key"]: one for one in answer.json()["principals"]}
    assert set(seen) == {"indexer", "other"}
    assert seen["indexer"]["components"] == {"permitted": ["indexer_*"], "seen": ["indexer_1"]}
    assert seen["indexer"]["services"] == ["memorygate"]
    [service] = answer.json()["services"]
    assert (service["name"], service["used_by"]) == ("memorygate", ["indexer"])
    assert stranger.name not in answer.text
    await gate.publish(deletes={"binding": [(str(who.tenant), "indexer")]})
    assert (await read(gate, other, "/v1/topology")).json()["services"] == []


async def test_topology_goes_by_pages(gate: GateFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-66: `limit` principals or so many bytes, whichever comes first; the cursor is of this list and this tenant."""
    tenant = uuid4()
    names = [f"p{n}" for n in range(5)]
    people = [await gate.principal(name, tenant=tenant, body=shared_body(services={name: {}})) for name in names]
    stranger = await gate.principal("stranger", scope="Cluster", type="observer")

    async def walked(limit: int | None) -> list[list[str]]:
        pages: list[list[str]] = []
        params: dict[str, Any] = {} if limit is None else {"limit": limit}
        while True:
            page = (await read(gate, people[0], "/v1/topology", **params)).json()
            pages.append([principal["principal_key"] for principal in page["principals"]])
            assert sorted(service["name"] for service in page["services"]) == pages[-1]
            assert [service["used_by"] for service in page["services"]] == [[name] for name in pages[-1]]
            if page["next_cursor"] is None:
                return pages
            params["cursor"] = page["next_cursor"]

    assert await walked(None) == [names]
    assert await walked(2) == [names[:2], names[2:4], names[4:]]
    monkeypatch.setattr("metagate_api.views.PAGE_BYTES", 500)
    small = await walked(None)
    assert len(small) > 1
    assert [name for page in small for name in page] == names
    monkeypatch.undo()
    cursor = (await read(gate, people[0], "/v1/topology", limit=2)).json()["next_cursor"]
    other = await read(gate, stranger, "/v1/topology", cursor=cursor)
    assert (other.status_code, other.json()["code"]) == (422, "INVALID_CURSOR")
    for params in ({"limit": 0}, {"limit": 2_001}, {"cursor": "x"}):
        assert (await read(gate, people[0], "/v1/topology", **params)).status_code == 422


async def test_a_cluster_wide_reader_names_the_tenant(gate: GateFixture) -> None:
    """D-51: a cluster-wide admin or observer reads any tenant's topology and rulesets; nobody else does."""
    who = await gate.principal()
    await furnish(gate, who.tenant, ("public",))
    for kind in ("admin", "observer"):
        central = await gate.principal(f"central-{kind}", type=kind, scope="Cluster")
        topology = (await read(gate, central, "/v1/topology", tenant=who.tenant)).json()
        assert (topology["tenant"], topology["namespace"]) == (str(who.tenant), None)
        assert [one["principal_key"] for one in topology["principals"]] == ["indexer"]
        ruleset = await read(gate, central, "/v1/policy-profiles/public", tenant=who.tenant)
        assert ruleset.json()["key"] == "public"
    local = await gate.principal("local", type="admin")
    for path in ("/v1/topology", "/v1/policy-profiles/public"):
        refused = await read(gate, local, path, tenant=who.tenant)
        assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")


async def test_a_key_is_bounded_as_the_description_says(gate: GateFixture) -> None:
    """Up to the described length a key that is nobody's is 404, the longest secret ref's too; beyond it 422."""
    admin = await gate.principal("admin", type="admin")
    described = [one for one in ENDPOINTS if one.method == "GET" and "{key}" in one.path]
    assert len(described) >= 3
    for one in described:
        [key] = [parameter for parameter in one.parameters if parameter["name"] == "key"]
        longest = key["schema"]["maxLength"]
        path = one.path.replace("{kind}", "secret-refs")
        assert longest >= 253 + 1 + 63
        for length, status in ((longest, 404), (longest + 1, 422)):
            assert (await read(gate, admin, path.replace("{key}", "k" * length))).status_code == status, path


async def test_introspection(gate: GateFixture) -> None:
    """D-48: a service learns who a credential of its tenant is; of anything else only that it is not active."""
    who = await gate.principal()
    service = await gate.principal("gate", tenant=who.tenant, type="service")
    suspended = await gate.principal("suspended", tenant=who.tenant, suspended=True)
    stranger = await gate.principal("stranger")
    central = await gate.principal("central", type="service", scope="Cluster")

    async def ask(by: PrincipalFixture, token: str, *, form: bool = True) -> httpx.Response:
        kind = {"data": {"token": token}} if form else {"json": {"token": token}}
        return await gate.client.post("/v1/introspect", headers=by.by_key, **kind)

    for token in (who.key, who.token()):
        for form in (True, False):
            answer = await ask(service, token, form=form)
            assert answer.status_code == 200
            said = answer.json()
            assert (said["active"], said["tenant"], said["principal_key"], said["type"]) == (
                True,
                str(who.tenant),
                "indexer",
                "component",
            )
            assert (said["exp"] is None) == (token == who.key)
    for token in (
        stranger.key,
        stranger.token(),
        suspended.key,
        "junk",
        "mgk_junk",
        who.token()[:-2],
        "a\nb",
        "\u00fc",
    ):
        assert (await ask(service, token)).json() == {"active": False}
    assert (await ask(central, stranger.key)).json()["principal_key"] == "stranger"
    refused = await ask(who, who.key)
    assert (refused.status_code, refused.json()["code"]) == (403, "ROLE_REQUIRED")
    for kwargs in ({"data": {"x": "y"}}, {"data": {"token": ["a", "b"]}}, {"json": {}}, {"json": {"token": 7}}):
        assert (await gate.client.post("/v1/introspect", headers=service.by_key, **kwargs)).status_code == 422
    plain = await gate.client.post(
        "/v1/introspect", headers={**service.by_key, "content-type": "text/plain"}, content=b"x"
    )
    assert plain.status_code == 415


async def test_introspection_answers_about_tokens_for_other_gates(gate: GateFixture) -> None:
    """D-44, D-48: a token for any audience of its TokenIssuer is told with its `aud`, and boots only at its own gate."""
    issuer = f"https://{uuid4()}.example.com"
    key = issued.signers()["es"]
    who = await gate.principal()
    service = await gate.principal("gate", tenant=who.tenant, type="service")
    await gate.publish(
        issuer=[
            row(
                who.uid,
                issuer=issuer,
                name="idp",
                audiences=["metagate", "memorygate"],
                algorithms=["ES256"],
                max_token_lifetime_seconds=3600,
                source="Inline",
                url=None,
                generation=1,
            )
        ],
        issuer_key=[row(who.uid, issuer=issuer, kid=key.kid, jwk=key.jwk(), alg=None)],
        subject=[
            row(who.uid, issuer=issuer, subject="indexer@example.com", tenant=str(who.tenant), principal_key=who.name)
        ],
    )

    now = int(time.time())

    def made_for(audience: str | list[str] | None) -> str:
        good = issued.claims(iss=issuer, aud=audience, iat=now, exp=now + 600)
        return issued.token(good, key).decode()

    async def asked(shown: str) -> dict[str, Any]:
        answer = await gate.client.post("/v1/introspect", headers=service.by_key, json={"token": shown})
        assert answer.status_code == 200
        return dict(answer.json())

    async def booted(shown: str) -> int:
        headers = {"authorization": f"Bearer {shown}"}
        return (await gate.client.post("/v1/bootstrap", json={"component_key": "a"}, headers=headers)).status_code

    for audience in ("memorygate", "metagate"):
        shown = made_for(audience)
        for _ in range(2):
            said = await asked(shown)
            assert (said["active"], said["aud"], said["principal_key"]) == (True, audience, who.name)
        # Having been asked about, a token for another gate is no better at this one.
        assert await booted(shown) == (200 if audience == "metagate" else 401)
    for audience in ("depotgate", None, ["metagate", "memorygate"]):
        assert await asked(made_for(audience)) == {"active": False}
    assert (await asked(who.key))["aud"] is None


async def test_writing_in_a_cluster_names_the_resource(gate: GateFixture) -> None:
    """D-12: without declared files POST and DELETE are 405 and say which custom resource to apply."""
    admin = await gate.principal("admin", type="admin")
    who = await gate.principal("who", tenant=admin.tenant)
    resource = {
        "apiVersion": "metagate.legivellum.io/v1alpha1",
        "kind": "Profile",
        "metadata": {"name": "x"},
        "spec": {},
    }
    for view, plural in [("profiles", "profiles"), ("bindings", "principalbindings"), ("policy-profiles", "policyprofiles"),
                         ("secret-refs", "profiles"), ("token-issuers", "tokenissuers")]:  # fmt: skip
        for answer in (
            await gate.client.post(f"/v1/admin/{view}", json=resource, headers=admin.by_key),
            await gate.client.delete(f"/v1/admin/{view}/x", headers=admin.by_key),
        ):
            assert (answer.status_code, answer.json()["code"]) == (405, "DECLARED_BY_RESOURCE")
            assert f"{plural}.metagate.legivellum.io" in answer.json()["detail"]
            assert answer.headers["allow"]
    assert (await gate.client.post("/v1/admin/profiles", json=resource)).status_code == 401
    assert (await gate.client.post("/v1/admin/profiles", json=resource, headers=who.by_key)).status_code == 403
    assert (await gate.client.post("/v1/admin/profiles", content=b"x", headers=who.by_key)).status_code == 415
    assert (await gate.client.post("/v1/admin/nonsense", json=resource, headers=admin.by_key)).status_code == 404
