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

VIEWS = (
    "principals",
    "profiles",
    "manifests",
    "bindings",
    "secret-refs",
    "policy-profiles",
    "problematas",
    "plan-templates",
)


async def read(gate: GateFixture, principal: PrincipalFixture | None, path: str, **params: Any) -> httpx.Response:
    return await gate.client.get(path, params=params, headers=principal.by_key if principal else {})


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
        problemata=[row(uuid4(), **base, name=name, body={"version": "3"}, content_hash="a" * 64) for name in names],
        plan_template=[
            row(uuid4(), **base, name=name, body={"capability": name}, content_hash="b" * 64) for name in names
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
    document = (await read(gate, admin, f"/v1/admin/{view}")).json()
    assert document["items"], view
    assert {item["tenant"] for item in document["items"]} == {str(tenant)}
    assert all(isinstance(item["revision"], int) for item in document["items"])
    for item in document["items"]:
        entry = await read(gate, admin, f"/v1/admin/{view}/{item['key']}")
        assert entry.status_code == 200
        assert entry.json() == item
    missing = await read(gate, admin, f"/v1/admin/{view}/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "NOT_FOUND")
    text = json.dumps(document)
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
    principal = await gate.principal("one", type="admin")
    two = await gate.principal("two", type="admin")
    await gate.boot(two)
    system = uuid4()
    ruler = await gate.principal("ruler", tenant=system, type="admin", scope="Cluster")
    watcher = await gate.principal("watcher", tenant=system, type="observer", scope="Cluster")
    for path in ("/v1/admin/principals", "/v1/startups"):
        assert (await read(gate, principal, path, tenant=str(principal.tenant))).status_code == 200
        refused = await read(gate, principal, path, tenant=str(two.tenant))
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
    principal = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=principal.tenant)
    observer = await gate.principal("observer", tenant=principal.tenant, type="observer")
    stranger = await gate.principal("observer", type="observer")
    mine = (await gate.boot(principal, "a")).json()["startup"]["startup_id"]
    theirs = (await gate.boot(neighbour, "b")).json()["startup"]["startup_id"]
    assert [item["startup_id"] for item in (await read(gate, principal, "/v1/startups")).json()["items"]] == [mine]
    assert {item["startup_id"] for item in (await read(gate, observer, "/v1/startups")).json()["items"]} == {
        mine,
        theirs,
    }
    assert (await read(gate, stranger, "/v1/startups")).json() == {"items": [], "next_cursor": None}
    text = await read(gate, principal, f"/v1/startup/{mine}")
    assert text.status_code == 200
    assert text.json()["status"] == "OPEN"
    forbidden = await read(gate, principal, f"/v1/startup/{theirs}")
    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "NOT_YOURS")
    assert (await read(gate, observer, f"/v1/startup/{theirs}")).status_code == 200
    foreign, unknown = (
        await read(gate, stranger, f"/v1/startup/{mine}"),
        await read(gate, stranger, f"/v1/startup/{uuid4()}"),
    )
    assert foreign.status_code == 404
    assert foreign.json() == unknown.json()
    assert (await read(gate, principal, "/v1/startup/nonsense")).status_code == 422
    assert (await read(gate, None, "/v1/startup/nonsense")).status_code == 401


async def test_sessions_are_filtered_and_paged(gate: GateFixture) -> None:
    """Filters by status and component; pages in a stable order without loss or repetition."""
    principal = await gate.principal()
    ids = [(await gate.boot(principal, f"c_{n % 2}")).json()["startup"]["startup_id"] for n in range(7)]
    await gate.ready(principal, ids[0])
    await gate.failed(principal, ids[1])

    async def listed(**params: Any) -> list[str]:
        result, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            page = (await read(gate, principal, "/v1/startups", **params, **more)).json()
            assert set(page) == {"items", "next_cursor"}
            assert len(page["items"]) <= params.get("limit", 100)
            result += [item["startup_id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return result

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
    result, cursor = [], None
    while True:
        page = (await read(gate, admin, "/v1/admin/profiles", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        result += [item["key"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert result == [f"p{n}" for n in range(5)]


@pytest.mark.parametrize(
    "cursor",
    ["x", "AAAA", "%00", "W10", "WyJzdGFydHVwcyJd", "WyJwcm9maWxlcyIsIngiLCJ5Il0", "e30", "a" * 1_000, "\u00e9"],
)
async def test_foreign_cursors_are_422(gate: GateFixture, cursor: str) -> None:
    """What this list did not hand out is refused, never taken for a position."""
    principal = await gate.principal()
    answer = await read(gate, principal, "/v1/startups", cursor=cursor)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_CURSOR")


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 501}, {"limit": "x"}, {"status": "open"}, {"tenant": "x"}, {"component_key": ""}],
    ids=str,
)
async def test_parameters_are_judged(gate: GateFixture, params: dict[str, Any]) -> None:
    """What is out of bounds is 422 and not repeated."""
    principal = await gate.principal()
    answer = await read(gate, principal, "/v1/startups", **params)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_REQUEST")


async def test_the_packet_again(gate: GateFixture) -> None:
    """D-47: the owner reads the packet as of now; no session comes of it; the tag is honoured."""
    principal = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=principal.tenant)
    booted = (await gate.boot(principal)).json()
    session = booted["startup"]["startup_id"]
    before = await gate.sessions()
    path = f"/v1/startup/{session}/packet"
    again = await read(gate, principal, path)
    assert again.status_code == 200
    assert again.json() == booted
    same = await gate.client.get(path, headers={**principal.by_key, "if-none-match": again.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", again.headers["etag"])
    await gate.change(principal, body=shared_body(services={}))
    now = await gate.client.get(path, headers={**principal.by_key, "if-none-match": again.headers["etag"]})
    assert now.status_code == 200
    assert now.json()["services"] == {}
    assert now.json()["startup"]["startup_id"] == session
    assert (await read(gate, neighbour, path)).json()["code"] == "NOT_YOURS"
    assert (await read(gate, principal, f"/v1/startup/{uuid4()}/packet")).json()["code"] == "SESSION_NOT_FOUND"
    assert await gate.sessions() == before


async def test_policy_profiles(gate: GateFixture) -> None:
    """Any principal of the tenant reads the ruleset and its hash; another tenant's does not exist."""
    principal = await gate.principal()
    await furnish(gate, principal.tenant, ("public",))
    stranger = await gate.principal()
    text = await read(gate, principal, "/v1/policy-profiles/public")
    assert text.status_code == 200
    assert (text.json()["policy_hash"], text.json()["ruleset"]) == ("a" * 64, {"limits": {"maxSpawnDepth": 5}})
    assert (await read(gate, stranger, "/v1/policy-profiles/public")).json()["code"] == "NOT_FOUND"


@pytest.mark.invariant("INV-041")
async def test_topology(gate: GateFixture) -> None:
    """D-49: principals, permitted and seen components, services and who uses them, of the caller's tenant."""
    principal = await gate.principal(components=("indexer_*",))
    other = await gate.principal("other", tenant=principal.tenant, body=shared_body(services={}))
    stranger = await gate.principal("stranger")
    await gate.boot(principal)
    answer = await read(gate, other, "/v1/topology")
    assert answer.status_code == 200
    observations = {node["principal_key"]: node for node in answer.json()["principals"]}
    assert set(observations) == {"indexer", "other"}
    assert observations["indexer"]["components"] == {"permitted": ["indexer_*"], "seen": ["indexer_1"]}
    assert observations["indexer"]["services"] == ["memorygate"]
    [service] = answer.json()["services"]
    assert (service["name"], service["used_by"]) == ("memorygate", ["indexer"])
    assert stranger.name not in answer.text
    await gate.publish(deletes={"binding": [(str(principal.tenant), "indexer")]})
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
    principal = await gate.principal()
    await furnish(gate, principal.tenant, ("public",))
    for kind in ("admin", "observer"):
        central = await gate.principal(f"central-{kind}", type=kind, scope="Cluster")
        topology = (await read(gate, central, "/v1/topology", tenant=principal.tenant)).json()
        assert (topology["tenant"], topology["namespace"]) == (str(principal.tenant), None)
        assert [node["principal_key"] for node in topology["principals"]] == ["indexer"]
        ruleset = await read(gate, central, "/v1/policy-profiles/public", tenant=principal.tenant)
        assert ruleset.json()["key"] == "public"
    local = await gate.principal("local", type="admin")
    for path in ("/v1/topology", "/v1/policy-profiles/public"):
        refused = await read(gate, local, path, tenant=principal.tenant)
        assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")


async def test_a_key_is_bounded_as_the_description_says(gate: GateFixture) -> None:
    """Up to the described length a key that is nobody's is 404, the longest secret ref's too; beyond it 422."""
    admin = await gate.principal("admin", type="admin")
    described = [item for item in ENDPOINTS if item.method == "GET" and "{key}" in item.path]
    assert len(described) >= 3
    for item in described:
        [key] = [parameter for parameter in item.parameters if parameter["name"] == "key"]
        longest = key["schema"]["maxLength"]
        path = item.path.replace("{kind}", "secret-refs")
        assert longest >= 253 + 1 + 63
        for length, status in ((longest, 404), (longest + 1, 422)):
            assert (await read(gate, admin, path.replace("{key}", "k" * length))).status_code == status, path


async def test_introspection(gate: GateFixture) -> None:
    """D-48: a service learns who a credential of its tenant is; of anything else only that it is not active."""
    principal = await gate.principal()
    service = await gate.principal("gate", tenant=principal.tenant, type="service")
    suspended = await gate.principal("suspended", tenant=principal.tenant, suspended=True)
    stranger = await gate.principal("stranger")
    central = await gate.principal("central", type="service", scope="Cluster")

    async def ask(by: PrincipalFixture, token: str, *, form: bool = True) -> httpx.Response:
        kind = {"data": {"token": token}} if form else {"json": {"token": token}}
        return await gate.client.post("/v1/introspect", headers=by.by_key, **kind)

    for token in (principal.key, principal.token()):
        for form in (True, False):
            answer = await ask(service, token, form=form)
            assert answer.status_code == 200
            document = answer.json()
            assert (document["active"], document["tenant"], document["principal_key"], document["type"]) == (
                True,
                str(principal.tenant),
                "indexer",
                "component",
            )
            assert (document["exp"] is None) == (token == principal.key)
    for token in (
        stranger.key,
        stranger.token(),
        suspended.key,
        "junk",
        "mgk_junk",
        principal.token()[:-2],
        "a\nb",
        "\u00fc",
    ):
        assert (await ask(service, token)).json() == {"active": False}
    assert (await ask(central, stranger.key)).json()["principal_key"] == "stranger"
    refused = await ask(principal, principal.key)
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
    principal = await gate.principal()
    service = await gate.principal("gate", tenant=principal.tenant, type="service")
    await gate.publish(
        issuer=[
            row(
                principal.uid,
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
        issuer_key=[row(principal.uid, issuer=issuer, kid=key.kid, jwk=key.jwk(), alg=None)],
        subject=[
            row(
                principal.uid,
                issuer=issuer,
                subject="indexer@example.com",
                tenant=str(principal.tenant),
                principal_key=principal.name,
            )
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
            output = await asked(shown)
            assert (output["active"], output["aud"], output["principal_key"]) == (True, audience, principal.name)
        # Having been asked about, a token for another gate is no better at this one.
        assert await booted(shown) == (200 if audience == "metagate" else 401)
    for audience in ("depotgate", None, ["metagate", "memorygate"]):
        assert await asked(made_for(audience)) == {"active": False}
    assert (await asked(principal.key))["aud"] is None


async def test_writing_in_a_cluster_names_the_resource(gate: GateFixture) -> None:
    """D-12: without declared files POST and DELETE are 405 and say which custom resource to apply."""
    admin = await gate.principal("admin", type="admin")
    principal = await gate.principal("who", tenant=admin.tenant)
    resource = {
        "apiVersion": "metagate.legivellum.io/v1alpha1",
        "kind": "Profile",
        "metadata": {"name": "x"},
        "spec": {},
    }
    for view, plural in [("profiles", "profiles"), ("bindings", "principalbindings"), ("policy-profiles", "policyprofiles"), ("problematas", "problematas"), ("plan-templates", "plantemplates"),
                         ("secret-refs", "profiles"), ("token-issuers", "tokenissuers")]:  # fmt: skip
        for answer in (
            await gate.client.post(f"/v1/admin/{view}", json=resource, headers=admin.by_key),
            await gate.client.delete(f"/v1/admin/{view}/x", headers=admin.by_key),
        ):
            assert (answer.status_code, answer.json()["code"]) == (405, "DECLARED_BY_RESOURCE")
            assert f"{plural}.metagate.legivellum.io" in answer.json()["detail"]
            assert answer.headers["allow"]
    assert (await gate.client.post("/v1/admin/profiles", json=resource)).status_code == 401
    assert (await gate.client.post("/v1/admin/profiles", json=resource, headers=principal.by_key)).status_code == 403
    assert (await gate.client.post("/v1/admin/profiles", content=b"x", headers=principal.by_key)).status_code == 415
    assert (await gate.client.post("/v1/admin/nonsense", json=resource, headers=admin.by_key)).status_code == 404
