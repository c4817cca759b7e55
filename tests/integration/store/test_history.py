"""What was: on a real database, with many sessions and revisions, and only by index."""

import json
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from time import perf_counter
from uuid import UUID, uuid4

import asyncpg
import pytest_asyncio
from tests.databases import Database
from tests.integration.store.worlds import Somebody, publish, somebody

from metagate_store.history import spec_of
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, Change, DeclaredRow

SESSIONS = 100_000
REVISIONS = 2_000


@pytest_asyncio.fixture(loop_scope="session")
async def reader(database: Database) -> AsyncIterator[Reader]:
    opened = await Reader.connect(database.api, size=1, acquire_timeout=5, query_timeout=5)
    yield opened
    await opened.close()


async def write(database: Database, sql: str, *arguments: object) -> None:
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


async def past_of(database: Database, principal: Somebody, generations: Iterable[int]) -> dict[str, UUID]:
    """Binding, Profile and Manifest of a principal: each revision another generation of the Manifest."""
    uids = {kind: uuid4() for kind in ("PrincipalBinding", "Profile", "Manifest")}
    binding = {
        "principalRef": {"name": principal.name},
        "profileRef": {"name": "worker"},
        "manifestRef": {"name": "prod"},
    }
    connection = await asyncpg.connect(database.superuser)
    names = {"PrincipalBinding": principal.name, "Profile": "worker", "Manifest": "prod"}
    for generation in generations:
        for kind, uid in uids.items():
            spec = binding if kind == "PrincipalBinding" else {"n": generation}
            await connection.execute(
                "INSERT INTO metagate.declared (uid, generation, kind, tenant, namespace, name, created_at, spec, manager) "
                "VALUES ($1, $2, $3, $4, 'team', $5, now(), $6, 'kubectl')",
                uid, generation, kind, principal.tenant, names[kind], json.dumps(spec),
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO metagate.change (revision, kind, tenant, namespace, name, uid, generation, served_generation, "
                "before_digest, after_digest, manager, principal_key, packet_digest) "
                "VALUES ($1, $2, $3, 'team', $4, $5, $1, $1, 'a', 'b', 'kubectl', $6, $7)",
                generation, kind, principal.tenant, names[kind], uid,
                principal.name if kind == "PrincipalBinding" else None, principal.digest if kind == "PrincipalBinding" else None,
            )  # fmt: skip
    await connection.close()
    return uids


async def test_layers_are_those_of_the_revision(database: Database, reader: Reader) -> None:
    """The generations of then, whatever came later; nothing before there was anything, nothing of a stranger."""
    principal = somebody()
    await publish(database.publisher, principal)
    uids = await past_of(database, principal, (2, 4, 6))
    for revision, generation in ((2, 2), (3, 2), (4, 4), (5, 4), (6, 6), (9, 6)):
        layers = await reader.history.layers(principal.tenant, principal.name, revision)
        assert {layer.kind: (layer.uid, layer.generation) for layer in layers} == {
            kind: (uid, generation) for kind, uid in uids.items()
        }
    assert await reader.history.layers(principal.tenant, principal.name, 1) == []
    assert await reader.history.layers(uuid4(), principal.name, 9) == []


async def test_pages_of_declared_and_of_history_are_whole(database: Database, reader: Reader) -> None:
    """One by one or all at once: the same, and each object as it was."""
    principal = somebody()
    await publish(database.publisher, principal)
    await past_of(database, principal, (2, 4))
    at, pages = None, []
    while True:
        page = await reader.history.declared_at(principal.tenant, 3, after=at, limit=1)
        pages += page.items
        at = page.next
        if at is None:
            break
    whole = (await reader.history.declared_at(principal.tenant, 3)).items
    assert tuple(pages) == whole
    assert [(item.kind, item.generation) for item in whole] == [
        ("Manifest", 2),
        ("PrincipalBinding", 2),
        ("Profile", 2),
    ]
    before, happened = None, []
    while True:
        part = await reader.history.change_events(principal.tenant, before=before, limit=2)
        happened += part.items
        before = part.next
        if before is None:
            break
    assert tuple(happened) == (await reader.history.change_events(principal.tenant)).items
    assert (await reader.history.change_events(uuid4())).items == ()
    items = (await reader.history.change_events(None, limit=500)).items
    assert {item.seq for item in happened} <= {item.seq for item in items}


async def test_numbers_come_back_as_they_were(fresh_database: Database) -> None:
    """jsonb spells 1e300 with three hundred zeros: the last good spec has a float all the same."""
    row = DeclaredRow(
        str(uuid4()), 1, "Manifest", uuid4(), "team", "prod", datetime.now(UTC), {"environment": {"n": 1e300}}, None
    )
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    await publisher.publish(Change(declared=[row]))
    await publisher.close()
    again = await Publisher.open(fresh_database.publisher)
    [result] = (await again.load()).declared
    await again.close()
    assert repr(result.spec) == "{'environment': {'n': 1e+300}}"
    assert spec_of('{"a": 1000000000000000000000, "b": 9007199254740991, "c": -3, "d": 1.0}') == {
        "a": 1e21,
        "b": 9007199254740991,
        "c": -3,
        "d": 1.0,
    }
    assert isinstance(spec_of("1" + "0" * 300), float)


async def test_explaining_looks_at_an_index_only(database: Database, reader: Reader) -> None:
    """A session among a hundred thousand, after two thousand revisions: three statements, well below 100 ms."""
    principal = somebody()
    await publish(database.publisher, principal)
    await past_of(database, principal, range(2, 4))
    await write(
        database,
        "INSERT INTO metagate.change (revision, kind, tenant, namespace, name, uid, generation, served_generation, "
        "before_digest, after_digest) SELECT 3 + n, 'Manifest', $1::uuid, 'team', 'other' || n % 50, gen_random_uuid(), 1, 1, "
        "'a', 'b' FROM generate_series(1, $2::int) AS n",
        principal.tenant,
        REVISIONS,
    )
    [opened] = await reader.bootstrap([principal.ask("a")])
    assert opened.outcome in {BootstrapOutcome.OPENED, BootstrapOutcome.PACKET}
    if opened.outcome is BootstrapOutcome.PACKET:
        [opened] = await reader.bootstrap([principal.ask("a", expected_digest=principal.digest)])
    assert opened.startup_id is not None
    await write(
        database,
        "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, "
        "principal_key, component_key, digest) SELECT $1::uuid, gen_random_uuid(), gen_random_uuid(), now(), now(), now(), 3, "
        "$2, 'x', $3 FROM generate_series(1, $4::int)",
        principal.tenant, principal.name, principal.digest, SESSIONS,
    )  # fmt: skip
    taken = []
    for _ in range(5):
        started = perf_counter()
        boot = await reader.history.boot_of(principal.tenant, opened.startup_id)
        assert boot is not None
        assert boot.body == principal.body
        assert len(await reader.history.layers(principal.tenant, principal.name, 3)) == 3
        taken.append(perf_counter() - started)
    assert min(taken) < 0.05
    connection = await asyncpg.connect(database.superuser)
    plan = await connection.fetch(
        "EXPLAIN SELECT s.* FROM metagate.startup AS s LEFT JOIN metagate.packet AS p ON p.digest = s.digest "
        "WHERE s.tenant = $1 AND s.startup_id = $2", principal.tenant, opened.startup_id,
    )  # fmt: skip
    await connection.close()
    assert not any("Seq Scan on startup" in line[0] for line in plan)
