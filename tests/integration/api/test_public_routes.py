"""What needs no credential, and what every answer has in common."""

import asyncio
import re

import httpx
import pytest
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, settings_for

from metagate_api.endpoints import ENDPOINTS
from metagate_api.problem_codes import Code
from metagate_api.server import serving

PLAIN = ("/", "/health", "/livez", "/readyz", "/.well-known/metagate.json", "/metrics", "/openapi.json")


@pytest.mark.invariant("INV-001")
async def test_discovery(gate: GateFixture) -> None:
    """Without credentials: version, bootstrap endpoint, ways to authenticate; the endpoint named there answers."""
    answer = await gate.client.get("/.well-known/metagate.json")
    assert answer.status_code == 200
    document = answer.json()
    assert document["metagate_version"] == "0.1"
    assert document["supported_auth"] == ["api_key", "jwt"]
    assert document["issuers"] == ["metagate"]
    assert set(document["startup_endpoints"]) == {"ready", "failed"}
    for path in (document["bootstrap_endpoint"], *document["startup_endpoints"].values()):
        assert (await gate.client.post(path)).status_code == 401


@pytest.mark.invariant("EXT-29")
async def test_the_host_header_is_never_trusted(gate: GateFixture, database: Database) -> None:
    """EXT-29: nothing in the document comes from the request; a base URL comes from the settings."""
    hostile = {"host": "evil.example", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"}
    for path in PLAIN:
        assert "evil" not in (await gate.client.get(path, headers=hostile)).text
    async with (
        serving(settings_for(database, public_url="https://metagate.example/")) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        document = (await client.get("/.well-known/metagate.json", headers=hostile)).json()
        assert document["bootstrap_endpoint"] == "https://metagate.example/v1/bootstrap"


@pytest.mark.invariant("INV-035")
async def test_health_needs_nobody(gate: GateFixture) -> None:
    """200 without credentials, and no row anywhere comes of it."""
    before = await gate.sessions()
    for path in ("/", "/health", "/livez", "/readyz"):
        answer = await gate.client.get(path)
        assert answer.status_code == 200
    assert (await gate.client.get("/")).json()["doctrine"] == "MetaGate is truth, not control."
    assert await gate.sessions() == before


@pytest.mark.parametrize("path", PLAIN)
async def test_head_and_options(gate: GateFixture, path: str) -> None:
    """HEAD is GET without its body, OPTIONS says what the path takes."""
    got = await gate.client.get(path)
    head = await gate.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    options = await gate.client.options(path)
    assert options.status_code == 204
    assert {"GET", "HEAD", "OPTIONS"} <= set(options.headers["allow"].split(", "))
    assert "access-control-allow-origin" not in options.headers


async def test_wrong_methods_and_paths_are_problems(gate: GateFixture) -> None:
    """405 names what is allowed, 404 nothing; both are problem+json on every path."""
    paths = sorted({endpoint.path for endpoint in ENDPOINTS})
    for path in paths:
        concrete = re.sub(r"\{\w+\}", "x", path)
        allowed = {endpoint.method for endpoint in ENDPOINTS if endpoint.path == path}
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - allowed:
            if method == "GET" and path in {"/v1/startup/ready", "/v1/startup/failed"}:
                pass
            answer = await gate.client.request(method, concrete)
            assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED"), (method, path)
            assert allowed <= set(answer.headers["allow"].split(", "))
    for path in (
        "/nothing",
        "/v1",
        "/v1/",
        "/v1/bootstrap/",
        "//v1/bootstrap",
        "/V1/bootstrap",
        "/v1/admin",
        "/v1/%2e%2e/x",
        "/docs",
    ):
        for method in ("GET", "POST", "HEAD"):
            answer = await gate.client.request(method, path)
            assert answer.status_code == 404, path
            assert answer.headers["content-type"] == "application/problem+json"


async def test_every_answer_has_the_same_headers(gate: GateFixture) -> None:
    """no-store, nosniff, a policy, an id; no CORS, no server banner; whatever the answer is."""
    principal = await gate.principal()
    boot = await gate.boot(principal)
    answers = [
        boot,
        await gate.boot(principal, headers={"if-none-match": boot.headers["etag"]}),
        await gate.boot(principal, ""),
        await gate.client.get("/nothing"),
        await gate.client.get("/v1/topology", headers=principal.by_key),
        await gate.client.get("/v1/topology"),
        await gate.client.post("/livez"),
        await gate.client.options("/livez"),
        *[await gate.client.get(path) for path in PLAIN],
    ]
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store", answer.url
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_correlation_ids(gate: GateFixture) -> None:
    """A sane X-Request-Id is echoed; anything else is replaced by a new one."""
    assert (await gate.client.get("/livez", headers={"x-request-id": "abc-123.x"})).headers[
        "x-request-id"
    ] == "abc-123.x"
    for insane in ("", "a b", "<script>", "x" * 200, "a\tb"):
        echoed = (await gate.client.get("/livez", headers={"x-request-id": insane})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", echoed)


async def test_metrics(gate: GateFixture) -> None:
    """What happens is counted by route template and outcome; no name that somebody declared is in it."""
    principal = await gate.principal("canary-principal-name")
    await gate.boot(principal, "canary-component")
    await gate.client.get("/v1/startup/01a1fddc-1f95-70fb-95ba-f3bf1240ecc9", headers=principal.by_key)
    await gate.client.get("/canary-path")
    await gate.client.get("/livez", headers={"x-api-key": "junk"})
    text = (await gate.client.get("/metrics")).text
    assert 'metagate_bootstraps_total{outcome="OPENED"}' in text
    assert 'route="/v1/bootstrap",status="200"' in text
    assert 'route="/v1/startup/{startup_id}",status="404"' in text
    assert "canary" not in text
    assert principal.key not in text
    assert str(principal.tenant) not in text


async def test_problems_are_problems(gate: GateFixture) -> None:
    """Every refusal has the five members, a known code, and a status that agrees with its code."""
    principal = await gate.principal()
    for answer in (
        await gate.boot(principal, ""),
        await gate.client.get("/x"),
        await gate.client.post("/v1/bootstrap"),
    ):
        problem = answer.json()
        assert set(problem) == {"type", "title", "status", "detail", "code"}
        assert problem["status"] == answer.status_code
        assert problem["code"] in Code.registered()


@pytest.mark.invariant("INV-024", "INV-023")
async def test_nothing_but_the_database_is_connected_to(
    gate: GateFixture, socket_guard: list[tuple[str, object]]
) -> None:
    """Every route is used while each connect() of the process is watched: only PostgreSQL is ever called."""
    principal = await gate.principal("admin", type="admin")
    session = (await gate.boot(principal)).json()["startup"]["startup_id"]
    before = len(socket_guard)
    async with httpx.AsyncClient(base_url=gate.url) as client:
        for endpoint in ENDPOINTS:
            path = endpoint.path.format(
                startup_id=session, kind="profiles", key="x", problemata_id="mail", instance="here"
            )
            body = {} if endpoint.method == "GET" else {"json": {"component_key": "a", "startup_id": session}}
            await client.request(endpoint.method, path, headers=principal.by_key, **body)
    await asyncio.sleep(0.1)
    places = {str(address) for event, address in socket_guard[before:] if event == "socket.connect"}
    database = gate.settings.dsn
    for place in places:
        ours = str(gate.address[1]) in place
        assert ours or ".s.PGSQL" in place or any(part in place for part in re.findall(r":(\d+)/", database)), place
    assert not [event for event, _ in socket_guard[before:] if event == "socket.getaddrinfo" and "evil" in str(_)]


@pytest.mark.invariant("INV-029")
async def test_no_work_is_assigned_here(gate: GateFixture) -> None:
    """Neither the API's paths nor the database's tables know tasks, leases, queues or jobs."""
    document = (await gate.client.get("/openapi.json")).json()
    tables = [row[0] for row in await gate.ask("SELECT tablename FROM pg_tables WHERE schemaname = 'metagate'")]
    for name in (*document["paths"], *tables):
        assert not re.search(r"task|lease|queue|job|work_?item|assign|dispatch|schedul", name.lower()), name
