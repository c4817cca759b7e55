"""Principals with their health, by pages; who else failed with an error; what a publish changed."""

import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from tests.databases import Database
from tests.integration.store.worlds import Somebody, publish, row, somebody

from metagate_store.principal_health import STATES, PrincipalHealthPage
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, Change, ChangeRow, DeclaredRow, PodRow


async def boot(
    reader: Reader,
    principal: Somebody,
    component: str = "a",
    status: str | None = None,
    pod: str | None = None,
    **report: str,
) -> UUID:
    """A session, and what it reported."""
    where = None if pod is None else PodRow(pod)
    query = principal.ask(component, pod=where)
    [opened] = await reader.bootstrap([query])
    assert opened.outcome is BootstrapOutcome.OPENED
    if status is not None:
        payload = json.dumps(report or {"build_version": "1"})
        await reader.report([principal.tells(query.startup_id, status, pod=where, payload=payload)])
    return query.startup_id


async def execute(database: Database, statement: str, *arguments: Any) -> None:
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(statement, *arguments)
    finally:
        await connection.close()


async def states(reader: Reader, tenant: UUID) -> dict[str, str]:
    page = await reader.principals.page(tenant, limit=100)
    return {item.principal_key: item.state for item in page.items}


async def test_every_state(database: Database, reader: Reader) -> None:
    """Each principal is as well as the worst of its components; a component is what its newest settled session says."""
    tenant = uuid4()
    names = ["failed", "overdue", "starting", "ready", "silent", "worse-first", "again"]
    people = {name: somebody(name, tenant=tenant) for name in names}
    people["suspended"] = somebody("suspended", tenant=tenant, suspended=True)
    people["unbound"] = somebody("unbound", tenant=tenant, bound=False)
    people["incomplete"] = somebody("incomplete", tenant=tenant, body=None)
    await publish(database.publisher, *people.values())
    await boot(reader, people["failed"], "a", "READY")
    failed = await boot(reader, people["failed"], "b", "FAILED")
    late = await boot(reader, people["overdue"], "a")
    await boot(reader, people["starting"])
    last = await boot(reader, people["ready"], "a", "READY")
    await boot(reader, people["worse-first"], "a", "FAILED")
    await boot(reader, people["worse-first"], "b", "READY")
    await boot(reader, people["again"], "a", "FAILED")
    await boot(reader, people["again"], "a", "READY")
    await boot(reader, people["again"], "a")
    await execute(
        database, "UPDATE metagate.startup SET deadline_at = now() - interval '1 s' WHERE startup_id = $1", late
    )
    page = await reader.principals.page(tenant, limit=100)
    found = {item.principal_key: item for item in page.items}
    assert {name: item.state for name, item in found.items()} == {
        "failed": "failed", "overdue": "overdue", "starting": "starting", "ready": "ready", "silent": "silent",
        "worse-first": "failed", "again": "ready", "suspended": "suspended", "unbound": "unbound", "incomplete": "incomplete",
    }  # fmt: skip
    assert page.counts == {
        "failed": 2, "overdue": 1, "starting": 1, "ready": 2, "silent": 1, "suspended": 1, "unbound": 1, "incomplete": 1,
    }  # fmt: skip
    assert set(page.counts) == set(STATES)
    assert (found["failed"].trouble_id, found["overdue"].trouble_id) == (failed, late)
    assert (found["failed"].components, found["failed"].components_ready) == (2, 1)
    assert (found["ready"].startup_id, found["ready"].trouble_id) == (last, None)
    assert (found["silent"].startup_id, found["silent"].opened_at) == (None, None)
    assert (found["ready"].profile, found["ready"].manifest, found["ready"].binding) == (
        "worker",
        "prod",
        "ready-binding",
    )
    assert page.every_session
    assert await reader.principals.health(tenant, "failed") == found["failed"]
    assert await reader.principals.health(tenant, "nobody") is None
    assert await reader.principals.health(uuid4(), "failed") is None


async def test_replicas_are_pods(database: Database, reader: Reader) -> None:
    """A pod counts once, however often it restarted; without a pod a component counts as one."""
    principal = somebody("web")
    await publish(database.publisher, principal)
    for pod in ("p-1", "p-2", "p-3"):
        await boot(reader, principal, "web", "FAILED", pod=pod)
        await boot(reader, principal, "web", "FAILED" if pod == "p-1" else "READY", pod=pod)
    await boot(reader, principal, "job", "READY")
    await boot(reader, principal, "job", "READY")
    item = await reader.principals.health(principal.tenant, "web")
    assert item is not None
    assert (item.replicas, item.replicas_ready) == (4, 3)
    assert (item.components, item.components_ready) == (2, 2)


async def test_filters_and_pages(database: Database, reader: Reader) -> None:
    """By state, letters and Manifest; each principal on exactly one page, also when a page looks at few principals."""
    tenant = uuid4()
    people = [somebody(f"p-{at:02}", tenant=tenant) for at in range(25)]
    await publish(database.publisher, *people)
    for at in (3, 17, 22):
        await boot(reader, people[at], "a", "FAILED")
    await execute(
        database, "UPDATE metagate.binding SET manifest = 'other' WHERE tenant = $1 AND principal_key = 'p-17'", tenant
    )

    async def walk(**filters: Any) -> list[str]:
        names: list[str] = []
        page: PrincipalHealthPage | None = None
        while page is None or page.next is not None:
            page = await reader.principals.page(tenant, after=None if page is None else page.next, limit=2, **filters)
            names += [item.principal_key for item in page.items]
        return names

    assert await walk() == [f"p-{at:02}" for at in range(25)]
    assert await walk(state="failed") == ["p-03", "p-17", "p-22"]
    assert await walk(state="failed", scan=4) == ["p-03", "p-17", "p-22"]
    assert await walk(letters="P-1") == [f"p-{at}" for at in range(10, 20)]
    assert await walk(letters="%") == []
    assert await walk(manifest="other") == ["p-17"]
    first = await reader.principals.page(tenant, limit=2, state="failed")
    assert first.counts == {"failed": 3, "silent": 22}, "the counts are of every state"
    assert first.scanned_all
    assert not (await reader.principals.page(tenant, limit=2, scan=4)).scanned_all


async def test_every_tenant(database: Database, reader: Reader) -> None:
    """For a cluster-wide reader: by tenant and name, each with its namespace; another tenant's sessions say nothing."""
    people = [somebody("twin"), somebody("twin")]
    await publish(database.publisher, *people)
    await boot(reader, people[0], "a", "FAILED")
    page = await reader.principals.page(None, limit=10_000, letters="twin")
    found = {item.tenant: item for item in page.items}
    assert [found[principal.tenant].state for principal in people] == ["failed", "silent"]
    assert found[people[1].tenant].namespace == f"team-{people[1].tenant.hex[:8]}"
    assert await states(reader, people[1].tenant) == {"twin": "silent"}


async def test_the_cost_at_10_000_principals_is_bounded(database: Database, reader: Reader) -> None:
    """Ten times the principals cost about ten times as much, not a hundred times; what is beyond the bounds costs nothing."""
    like = somebody("like")
    await publish(database.publisher, like)
    await boot(reader, like, "a", "READY")
    small, large, huge = uuid4(), uuid4(), uuid4()
    for tenant, people, sessions in ((small, 1_000, 2_000), (large, 10_000, 20_000), (huge, 20_000, 60_000)):
        await execute(database, "INSERT INTO metagate.tenant VALUES ($1, 'team', now())", tenant)
        await execute(
            database,
            "INSERT INTO metagate.principal SELECT $1::uuid, 'p-' || lpad(g::text, 6, '0'), type, scope, rights, suspended, "
            "generation, gen_random_uuid(), content, revision FROM metagate.principal, generate_series(1, $2::integer) AS g "
            "WHERE tenant = $3",
            tenant, people, like.tenant,
        )  # fmt: skip
        await execute(
            database,
            "INSERT INTO metagate.binding SELECT $1::uuid, 'p-' || lpad(g::text, 6, '0'), 'b-' || g, digest, components, sla_seconds, "
            "profile, manifest, generation, gen_random_uuid(), content, revision, compiled_at "
            "FROM metagate.binding, generate_series(1, $2::integer) AS g WHERE tenant = $3",
            tenant, people, like.tenant,
        )  # fmt: skip
        await execute(
            database,
            "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, acknowledged_at, compiled_at, "
            "revision, late, status, principal_key, component_key, digest, report) "
            "SELECT $1::uuid, (left(s.startup_id::text, 24) || lpad(to_hex(g), 12, '0'))::uuid, s.packet_id, now(), now(), now(), "
            "s.compiled_at, s.revision, false, CASE g % 9 WHEN 0 THEN 'FAILED' ELSE 'READY' END, "
            "'p-' || lpad((g % $4::integer + 1)::text, 6, '0'), 'c', s.digest, s.report "
            "FROM metagate.startup AS s, generate_series(1, $2::integer) AS g WHERE s.tenant = $3",
            tenant, sessions, like.tenant, people,
        )  # fmt: skip
    blocks = {tenant: await _blocks(database, tenant) for tenant in (small, large, huge)}
    assert blocks[large] <= 14 * blocks[small]
    assert blocks[huge] <= 1.2 * blocks[large]
    # the superuser has no time limit, so that a busy machine changes the seconds and not the result
    patient = await Reader.connect(database.superuser, size=1, acquire_timeout=60, query_timeout=60)
    seconds = {tenant: await _fastest(patient, tenant) for tenant in (small, large, huge)}
    pages = {tenant: await patient.principals.page(tenant, limit=50) for tenant in (small, large, huge)}
    await patient.close()
    assert {tenant: sum(page.counts.values()) for tenant, page in pages.items()} == {
        small: 1_000,
        large: 10_000,
        huge: 10_000,
    }
    assert seconds[large] <= 30 * seconds[small], seconds
    assert seconds[huge] <= 4 * seconds[large], seconds


async def _blocks(database: Database, tenant: UUID) -> int:
    """Blocks of the database that a page of 50 reads."""
    connection = await asyncpg.connect(database.superuser)
    try:
        [row] = await connection.fetch(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM metagate.principals_page("
            f"'{tenant}', false, NULL, NULL, NULL, NULL, NULL, NULL, 51, 10000, 20000)"
        )
    finally:
        await connection.close()
    plan = json.loads(row[0])[0]["Plan"]
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


async def _fastest(reader: Reader, tenant: UUID) -> float:
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        await reader.principals.page(tenant, limit=50)
        taken.append(time.perf_counter() - begun)
    return min(taken)


async def test_a_connection_that_knew_a_small_tenant_draws_a_large_one_as_fast(fresh_database: Database) -> None:
    """A connection keeps its plans: one made for a handful of bindings walked its own intermediate results twenty times as long."""
    like = somebody("like")
    await publish(fresh_database.publisher, like)
    old = await Reader.connect(fresh_database.superuser, size=1, acquire_timeout=60, query_timeout=60)
    for _ in range(8):  # a plan is kept from the sixth call on
        await old.topology(like.tenant, limit=2_000)
    await execute(
        fresh_database,
        "INSERT INTO metagate.principal SELECT tenant, 'p-' || lpad(g::text, 6, '0'), type, scope, rights, suspended, generation, "
        "gen_random_uuid(), content, revision FROM metagate.principal, generate_series(1, 10000) AS g WHERE tenant = $1",
        like.tenant,
    )
    await execute(
        fresh_database,
        "INSERT INTO metagate.binding SELECT tenant, 'p-' || lpad(g::text, 6, '0'), 'b-' || g, digest, components, sla_seconds, profile, "
        "manifest, generation, gen_random_uuid(), content, revision, compiled_at FROM metagate.binding, generate_series(1, 10000) AS g "
        "WHERE tenant = $1",
        like.tenant,
    )
    new = await Reader.connect(fresh_database.superuser, size=1, acquire_timeout=60, query_timeout=60)
    seconds: dict[str, list[float]] = {"old": [], "new": []}
    for _ in range(5):
        for name, reader in (("old", old), ("new", new)):
            begun = time.perf_counter()
            page = await reader.topology(like.tenant, limit=2_000)
            seconds[name].append(time.perf_counter() - begun)
            assert len(page.principals) == 2_000
    await old.close()
    await new.close()
    assert min(seconds["old"]) <= 5 * min(seconds["new"]), seconds


async def test_others_with_the_same_error(database: Database, reader: Reader) -> None:
    """How many others failed like this session, in its tenant only; and all of them, newest first, by pages."""
    one, other = somebody("one"), somebody("other")
    await publish(database.publisher, one, other)
    sessions = [await boot(reader, one, f"c-{at % 2}", "FAILED", error="no route") for at in range(5)]
    await boot(reader, one, "c-9", "FAILED", error="no disk")
    await boot(reader, other, "c-9", "FAILED", error="no route")
    silent = await boot(reader, one, "c-8", "FAILED", message="none")
    same = await reader.overviews.same_error(one.tenant, sessions[0])
    assert same is not None
    assert (same.error, same.startups, same.components, same.principals) == ("no route", 4, 2, 1)
    assert await reader.overviews.same_error(one.tenant, silent) is None
    assert await reader.overviews.same_error(other.tenant, sessions[0]) is None
    first = await reader.overviews.failed_with(one.tenant, "no route", limit=3)
    assert [row.startup_id for row in first.items] == sessions[:1:-1]
    assert first.next is not None
    rest = await reader.overviews.failed_with(one.tenant, "no route", before=UUID(first.next[1]), limit=3)
    assert ([row.startup_id for row in rest.items], rest.next) == (sessions[1::-1], None)
    assert [row.startup_id for row in (await reader.overviews.failed_with(one.tenant, "", limit=9)).items] == [silent]
    assert len((await reader.overviews.failed_with(None, "no route", limit=99)).items) == 6


async def test_what_a_change_changed(database: Database, reader: Reader) -> None:
    """The specs before and after: nothing before what is new, nothing after what is gone; what is too long says so."""
    tenant, uid = uuid4(), uuid4()

    async def published(generation: int, before: str | None, after: str | None, spec: dict[str, Any]) -> None:
        event = ChangeRow(
            "Manifest", tenant, "team", "world", str(uid), generation, before, after,
            served_generation=None if after is None else generation,
        )  # fmt: skip
        body = row(uid, tenant=str(tenant), name="world", body=spec, generation=generation)
        declaration = DeclaredRow(str(uid), generation, "Manifest", tenant, "team", "world", datetime.now(UTC), spec)
        change = Change(upserts={"manifest": [body]}, declared=[declaration], audit=[event])
        publisher = await Publisher.open(database.publisher)
        await publisher.load()
        await publisher.publish(change)
        await publisher.close()

    await published(1, None, "d1", {"environment": {"region": "eu"}})
    await published(2, "d1", "d2", {"environment": {"region": "us"}})
    await published(3, "d2", None, {"environment": {}})
    events = (await reader.history.change_events(tenant)).items
    changes = await reader.history.spec_changes(tenant, events)
    assert [(changes[event.seq].before, changes[event.seq].after) for event in events] == [
        ({"environment": {"region": "us"}}, None),
        ({"environment": {"region": "eu"}}, {"environment": {"region": "us"}}),
        (None, {"environment": {"region": "eu"}}),
    ]
    assert all(changes[event.seq].complete for event in events)
    short = await reader.history.spec_changes(tenant, events, budget=60)
    assert [short[event.seq].complete for event in events] == [True, False, False]
    assert await reader.history.spec_changes(tenant, []) == {}
    assert await reader.history.spec_changes(uuid4(), events) == {}
    assert await reader.history.spec_changes(None, events) == changes
