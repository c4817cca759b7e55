"""A database of the last release is brought up to date without a step by hand, and its readers go on meanwhile (D-54)."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.databases import Database, Server
from tests.integration.store.worlds import Somebody, somebody

from metagate_store.migrating import API, IDENTITY, migrate, migrations, needed_version
from metagate_store.publisher import Publisher
from metagate_store.queries import sql
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome

LAST = 9
"""The schema version of the last release; its grants are in `grants_0009.sql`, its migrations may not change any more."""
GRANTS = Path(__file__).with_name("grants_0009.sql")


@pytest.fixture
async def old_database(postgres: Server) -> AsyncIterator[Database]:
    """As the last release made it."""
    made = await postgres.make(migrated=False)
    connection = await asyncpg.connect(made.owner)
    await connection.execute(
        "CREATE SCHEMA metagate; CREATE TABLE metagate.migration (version integer PRIMARY KEY, name text NOT NULL, "
        "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    for migration in migrations()[:LAST]:
        await connection.execute(migration.sql)
        record = "INSERT INTO metagate.migration (version, name, checksum) VALUES ($1, $2, $3)"
        await connection.execute(record, migration.version, migration.name, migration.checksum)
    await connection.execute(GRANTS.read_text(encoding="utf-8"))
    await connection.fetchval("SELECT metagate.prepare_partitions(2)")
    await connection.close()
    yield made
    await postgres.drop(made)


async def fill(database: Database, *people: Somebody) -> None:
    """What the last release's writer would have written."""
    connection = await asyncpg.connect(database.publisher)
    async with connection.transaction():
        for person in people:
            await connection.execute(
                sql("publish.tenants"),
                [person.tenant],
                [f"team-{person.tenant.hex[:8]}"],
                [datetime(2026, 1, 1, tzinfo=UTC)],
            )
            await connection.execute(sql("publish.packets"), [person.digest], [person.body])
            for table, rows in person.rows().items():
                await connection.execute(sql(f"upsert.{table}"), json.dumps(rows), 1)
        newest = await connection.fetchval("SELECT coalesce(max(r.revision), 0) FROM metagate.revision AS r")
        await connection.execute(sql("publish.revision"), newest + 1, 1, "{}")
    await connection.close()


async def declare(database: Database, principal: Somebody, sha256: str, *, at: datetime) -> None:
    """A generation of a Principal in the history, with one key."""
    connection = await asyncpg.connect(database.superuser)
    await connection.execute(
        "INSERT INTO metagate.declared (uid, generation, kind, tenant, namespace, name, created_at, spec, declared_at) "
        "VALUES ($1, 1, 'Principal', $2, $3, $4, $5, $6, $5)",
        principal.uid, principal.tenant, f"team-{principal.tenant.hex[:8]}", principal.name, at,
        json.dumps({"type": "component", "apiKeys": [{"id": sha256[:10], "sha256": sha256}]}),
    )  # fmt: skip
    await connection.close()


async def callable_functions(database: Database, role: str) -> set[str]:
    """What a role may call, with arguments and results."""
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT p.oid::regprocedure || ' -> ' || pg_get_function_result(p.oid) FROM pg_proc AS p "
        "WHERE p.pronamespace = 'metagate'::regnamespace AND has_function_privilege($1, p.oid, 'EXECUTE')",
        role,
    )
    await connection.close()
    return {row[0] for row in rows}


async def test_an_old_database_is_migrated_while_its_readers_go_on(old_database: Database) -> None:
    """Sessions are opened and reported without one failure from before the migration until after it; what the last
    release's readers call is there as it was; what was stored is there too.
    """
    principal = somebody()
    await fill(old_database, principal)
    before = {role: await callable_functions(old_database, role) for role in (API, IDENTITY)}
    reader = await Reader.connect(old_database.api, size=2)
    migrated = asyncio.Event()
    outcomes: list[Any] = []

    async def boot() -> None:
        opened = principal.ask()
        [result] = await reader.bootstrap([opened])
        [report] = await reader.report([principal.tells(opened.startup_id)])
        outcomes.append((result.outcome, report.outcome))

    async def go_on_booting() -> None:
        while not migrated.is_set():
            await boot()
        await boot()

    booting = asyncio.create_task(go_on_booting())
    try:
        done = await migrate(old_database.owner)
    finally:
        migrated.set()
    await booting
    assert done.applied == tuple(migration.name for migration in migrations()[LAST:])
    assert done.warnings == ()
    assert len(outcomes) > 1
    assert set(outcomes) == {(BootstrapOutcome.OPENED, "RECORDED")}
    after = {role: await callable_functions(old_database, role) for role in (API, IDENTITY)}
    assert {role: before[role] - after[role] for role in before} == {API: set(), IDENTITY: set()}
    assert (await reader.state()).schema_version == needed_version()
    page = await reader.startups(principal.tenant, limit=500)
    assert len(page.items) == len(outcomes)
    await reader.close()
    assert (await migrate(old_database.owner)).applied == ()


async def test_a_migration_finds_keys_that_were_taken_over(old_database: Database) -> None:
    """D-70: a digest that history gives to another tenant opens nothing from the migration on, and is named; a
    namespace that was made again keeps the keys that it has.
    """
    rightful, thief, honest = somebody("rightful"), somebody("thief"), somebody("honest")
    await fill(old_database, thief, honest)
    then = datetime(2026, 2, 1, tzinfo=UTC)
    await declare(old_database, rightful, thief.key, at=then)
    await declare(old_database, thief, thief.key, at=then + timedelta(days=1))
    await declare(old_database, honest, honest.key, at=then + timedelta(days=2))
    again = replace(somebody("again"), tenant=somebody().tenant)
    earlier = replace(again, tenant=somebody().tenant, uid=somebody().uid)
    await fill(old_database, again)
    await declare(old_database, earlier, again.key, at=then)
    connection = await asyncpg.connect(old_database.superuser)
    await connection.execute("UPDATE metagate.declared SET withdrawn_at = now() WHERE uid = $1", earlier.uid)
    await connection.execute(
        "INSERT INTO metagate.tenant (tenant, namespace, created_at, retired_at) "
        "SELECT $1, t.namespace, t.created_at - interval '1 day', now() FROM metagate.tenant AS t WHERE t.tenant = $2",
        earlier.tenant, again.tenant,
    )  # fmt: skip
    await connection.close()
    done = await migrate(old_database.owner)
    reader = await Reader.connect(old_database.api, size=1)
    [stolen, own, made_again] = await reader.resolve([thief.credential, honest.credential, again.credential])
    assert stolen is None
    assert own is not None
    assert made_again is not None
    changes = await reader.credentials(0)
    assert thief.key not in {key.sha256 for key in changes.api_keys}
    await reader.close()
    [warning] = done.warnings
    assert warning.startswith(f"Principal team-{thief.tenant.hex[:8]}/thief declares keys ({thief.key[:10]})")


async def test_a_writer_of_the_last_release_takes_no_key_over(fresh_database: Database) -> None:
    """It does not know the rule: the database keeps it (D-70)."""
    rightful, thief = somebody("rightful"), somebody("thief")
    await fill(fresh_database, rightful)
    connection = await asyncpg.connect(fresh_database.publisher)
    await connection.execute(sql("delete.api_key"), [rightful.key])
    stolen = {**thief.rows()["api_key"][0], "sha256": rightful.key, "key_id": rightful.key[:10]}
    await connection.execute(sql("upsert.api_key"), json.dumps([stolen]), 2)
    assert await connection.fetch("SELECT FROM metagate.api_key") == []
    await connection.execute(sql("upsert.api_key"), json.dumps(rightful.rows()["api_key"]), 2)
    assert [row["tenant"] for row in await connection.fetch("SELECT tenant FROM metagate.api_key")] == [rightful.tenant]
    await connection.execute(sql("upsert.api_key"), json.dumps([stolen]), 3)
    assert [row["tenant"] for row in await connection.fetch("SELECT tenant FROM metagate.api_key")] == [rightful.tenant]
    await connection.close()


async def test_another_cluster_begins_with_no_keys_of_others(fresh_database: Database) -> None:
    """Whoever takes a database over has other tenants: `--adopt` forgets whose the keys were."""
    principal = somebody()
    await fill(fresh_database, principal)
    publisher = await Publisher.open(fresh_database.publisher)
    assert (await publisher.load()).key_owners == {principal.key: str(principal.tenant)}
    await publisher.close()
    await migrate(fresh_database.owner, cluster_uid="another", adopt=True)
    publisher = await Publisher.open(fresh_database.publisher, cluster_uid="another")
    assert (await publisher.load()).key_owners == {}
    await publisher.close()
