"""InterView of MetaGate: counts of sessions, derived when they are read, and nothing is written by looking."""

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture

from metagate_store.reader import SPAN

MANY_STARTUPS = (
    "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at, "
    "revision, late, status, principal_key, component_key, digest) "
    "SELECT $1, (lpad(to_hex(n), 12, '0') || repeat('0', 20))::uuid, gen_random_uuid(), 'epoch'::timestamptz + n * interval '1 s', "
    "now(), CASE WHEN n > 150 THEN now() END, now(), 1, false, CASE WHEN n > 150 THEN 'READY' ELSE 'OPEN' END, 'p', 'c', '' "
    "FROM generate_series(1, $2::int) AS n"
)
"""Sessions of a tenant, one a second since the epoch; the first 150 are open."""


async def summary(gate: GateFixture, principal: PrincipalFixture | None, **params: Any) -> httpx.Response:
    return await gate.client.get("/v1/summary", params=params, headers=principal.by_key if principal else {})


async def opened(gate: GateFixture, principal: PrincipalFixture, component: str = "indexer_1") -> str:
    answer = await gate.boot(principal, component)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["startup"]["startup_id"])


@pytest.mark.invariant("INV-095", "INV-022")
async def test_sessions_are_counted_by_state(gate: GateFixture) -> None:
    """Open, ready, failed, overdue by the database's clock, the oldest open one and the latest; an OPEN row stays as it was."""
    principal = await gate.principal()
    hasty = await gate.principal("hasty", tenant=principal.tenant, sla_seconds=1)
    observer = await gate.principal("observer", tenant=principal.tenant, type="observer")
    ids = [await opened(gate, principal) for _ in range(5)]
    late = await opened(gate, hasty)
    for startup_id in ids[:2]:
        assert (await gate.ready(principal, startup_id)).status_code == 200
    response = await gate.client.post(
        "/v1/startup/failed", json={"startup_id": ids[2], "error": "no disk"}, headers=principal.by_key
    )
    assert response.status_code == 200
    async with asyncio.timeout(5):
        while (document := (await summary(gate, observer)).json())["overdue"] == 0:
            await asyncio.sleep(0.05)
    sessions = {
        item: (await gate.client.get(f"/v1/startup/{item}", headers=observer.by_key)).json() for item in [*ids, late]
    }
    assert document == {
        "tenant": str(principal.tenant),
        "principal_key": None,
        "startups": {"open": 3, "ready": 2, "failed": 1},
        "oldest_open_at": sessions[ids[3]]["opened_at"],
        "overdue": 1,
        "latest_opened_at": sessions[late]["opened_at"],
        "counted_since": None,
    }
    assert sessions[late]["status"] == "overdue"


async def test_nobody_is_told_of_others(gate: GateFixture) -> None:
    """A component's own sessions; the tenant's for admin and observer; any tenant's for a cluster-wide one; else refused."""
    principal = await gate.principal()
    neighbour = await gate.principal("neighbour", tenant=principal.tenant)
    await opened(gate, principal)
    await opened(gate, neighbour)
    mine = (await summary(gate, principal)).json()
    assert (mine["principal_key"], mine["startups"]["open"]) == (principal.name, 1)
    for kind in ("admin", "observer"):
        reader = await gate.principal(f"a-{kind}", tenant=principal.tenant, type=kind)
        assert (await summary(gate, reader)).json()["startups"]["open"] == 2
        stranger = await gate.principal(f"a-{kind}", type=kind)
        assert (await summary(gate, stranger)).json()["startups"] == {"open": 0, "ready": 0, "failed": 0}
        refused = await summary(gate, stranger, tenant=str(principal.tenant))
        assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")
        cluster = await gate.principal(f"c-{kind}", type=kind, scope="Cluster")
        everything = (await summary(gate, cluster, tenant=str(principal.tenant))).json()
        assert (everything["tenant"], everything["startups"]["open"]) == (str(principal.tenant), 2)
        unknown = (await summary(gate, cluster, tenant=str(uuid4()))).json()
        assert unknown["startups"] == {"open": 0, "ready": 0, "failed": 0}
        assert unknown["oldest_open_at"] is None
    scoped = await gate.principal("scoped", scope="Cluster")
    assert (await summary(gate, scoped, tenant=str(principal.tenant))).status_code == 403
    assert (await summary(gate, None)).status_code == 401
    assert (await summary(gate, principal, tenant="nonsense")).status_code == 422


async def interview(gate: GateFixture, principal: PrincipalFixture | None, **params: Any) -> httpx.Response:
    return await gate.client.get("/v1/interview", params=params, headers=principal.by_key if principal else {})


@pytest.mark.invariant("INV-095")
async def test_interview_tells_any_principal_of_its_tenant_what_waits(gate: GateFixture) -> None:
    """Principals, bindings and sessions of the tenant, the oldest open one, as of the database's time; it is flat and small."""
    principal = await gate.principal()
    out = await gate.principal("out", tenant=principal.tenant, suspended=True)
    hasty = await gate.principal("hasty", tenant=principal.tenant, sla_seconds=1)
    await gate.principal("elsewhere")
    first = await opened(gate, principal)
    await opened(gate, hasty)
    done = await opened(gate, principal)
    assert (await gate.ready(principal, done)).status_code == 200
    async with asyncio.timeout(5):
        while (answer := await interview(gate, principal)).json()["counts"]["startups_overdue"] == 0:
            await asyncio.sleep(0.05)
    session = (await gate.client.get(f"/v1/startup/{first}", headers=principal.by_key)).json()
    document = answer.json()
    assert datetime.fromisoformat(document.pop("as_of")) > datetime.fromisoformat(session["opened_at"])
    assert document == {
        "gate": "metagate",
        "version": (await gate.client.get("/")).json()["version"],
        "tenant_id": str(principal.tenant),
        "counts": {
            "principals": 3, "principals_suspended": 1, "bindings": 3, "bindings_incomplete": 0,
            "startups_open": 2, "startups_overdue": 1, "startups_ready": 1, "startups_failed": 0,
        },
        "oldest": {"startups_open": session["opened_at"]},
        "notes": [],
    }  # fmt: skip
    assert len(answer.content) < 2_000
    assert (await interview(gate, out)).json()["code"] == "PRINCIPAL_SUSPENDED"


@pytest.mark.invariant("INV-095")
async def test_interview_is_of_the_own_tenant(gate: GateFixture) -> None:
    """Another's is refused; a cluster-wide admin or observer names one; without a credential, or with nonsense: a problem."""
    principal = await gate.principal()
    stranger = await gate.principal("stranger", type="admin")
    cluster = await gate.principal("cluster", type="observer", scope="Cluster")
    refused = await interview(gate, stranger, tenant=str(principal.tenant))
    assert (refused.status_code, refused.json()["code"]) == (403, "TENANT_MISMATCH")
    shown = (await interview(gate, cluster, tenant=str(principal.tenant))).json()
    assert (shown["tenant_id"], shown["counts"]["principals"], shown["oldest"]) == (
        str(principal.tenant),
        1,
        {"startups_open": None},
    )
    assert (await interview(gate, None)).status_code == 401
    assert [(await interview(gate, principal, **query)).status_code for query in ({"tenant": "x"}, {"limit": 1})] == [
        422,
        422,
    ]


async def test_interview_of_a_huge_tenant_says_since_when_it_counts(gate: GateFixture) -> None:
    """Of more sessions than one look takes the newest are counted, and a note says so."""
    principal = await gate.principal()
    await gate.ask(MANY_STARTUPS, principal.tenant, SPAN + 10)
    document = (await interview(gate, principal)).json()
    assert document["counts"]["startups_open"] + document["counts"]["startups_ready"] == SPAN
    assert document["notes"] == ["Startups are counted from 1970-01-01T00:00:11.000000Z on."]


async def contents(gate: GateFixture) -> dict[str, Any]:
    connection = await asyncpg.connect(gate.database.superuser)
    try:
        tables = await connection.fetch(
            "SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'metagate'::regnamespace AND relkind = 'r'"
        )
        return {
            name: await connection.fetchval(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} AS t")
            for (name,) in tables
        }
    finally:
        await connection.close()


@pytest.mark.invariant("INV-095")
async def test_looking_on_writes_nothing_and_post_there_is_405(gate: GateFixture) -> None:
    """Health, readiness, metrics, summary and interview, hammered: every table as before; POST on each is 405."""
    principal = await gate.principal(type="observer")
    await opened(gate, principal)
    paths = ("/", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/v1/summary", "/v1/interview")
    before = await contents(gate)
    answers = await asyncio.gather(
        *(gate.client.get(path, headers=principal.by_key) for path in paths for _ in range(30))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 30 * len(paths)}
    posted = [await gate.client.post(path, json={}, headers=principal.by_key) for path in paths]
    assert {answer.status_code for answer in posted} == {405}
    assert await contents(gate) == before


async def test_a_huge_tenant_costs_no_more_than_a_large_one(gate: GateFixture) -> None:
    """The newest sessions are counted and since when is said; what lies before them is not even looked at."""
    observer = await gate.principal(type="observer")
    connection = await asyncpg.connect(gate.database.superuser)
    try:
        await connection.execute(MANY_STARTUPS, observer.tenant, 400)
        whole = (await summary(gate, observer)).json()
        assert (whole["startups"], whole["counted_since"]) == ({"open": 150, "ready": 250, "failed": 0}, None)
        bounded = await connection.fetchrow("SELECT * FROM metagate.summary($1, NULL, 300)", observer.tenant)
        assert (bounded["opened"], bounded["ready"]) == (50, 250)
        since = datetime.fromisoformat("1970-01-01T00:01:41+00:00")
        assert bounded["counted_since"] == bounded["oldest_open"] == since
        for kind in ("seqscan", "bitmapscan", "sort"):
            await connection.execute(f"SET enable_{kind} = off")  # as in the function: no statistics of this day yet
        plan = await connection.fetch(
            "EXPLAIN (ANALYZE, COSTS off, TIMING off, SUMMARY off, BUFFERS off) SELECT max(status) FROM "
            "(SELECT status FROM metagate.startup WHERE tenant = $1 ORDER BY tenant DESC, startup_id DESC LIMIT 300) s",
            observer.tenant,
        )
        shown = "\n".join(line[0] for line in plan)
        assert "Index Scan Backward" in shown
        assert "Seq Scan" not in shown
        assert "Sort Method" not in shown
    finally:
        await connection.close()
