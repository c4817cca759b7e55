"""From an empty database to the schema, whoever asks for it and however often."""

import asyncio
import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from tests.databases import Database, Server
from tests.unit.cli.running import metagate

from legivellum.postgres.migrations import Migration
from legivellum.postgres.scram import scram_verifier
from metagate_store import migrating
from metagate_store.errors import SchemaMismatch, StoreUnavailable
from metagate_store.migrating import (
    API,
    OWNER,
    migrate,
    migrations,
    needed_version,
    schema_version,
    wait_until_migrated,
)
from metagate_store.queries import every, parse

SCHEMA = Path(migrating.__file__).parent / "schema.sql"


@pytest.fixture
async def empty(postgres: Server):
    made = await postgres.make(migrated=False)
    yield made
    await postgres.drop(made)


async def dump(database: Database, postgres: Server) -> str:
    """The schema as PostgreSQL tells it, without what depends on the day or the server's release."""
    assert postgres.embedded is not None
    done = await asyncio.to_thread(
        subprocess.run,
        [postgres.embedded.binaries / "pg_dump", "--schema-only", "--schema=metagate", "--no-comments", database.owner],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    kept = [
        line
        for line in done.stdout.splitlines()
        if line and not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)
    ]
    statements = re.split(r"(?<=;)\n(?=[A-Z])", "\n".join(kept))
    return "\n\n".join(statement for statement in statements if not re.search(r"\bstartup_\d{8}", statement)) + "\n"


@pytest.mark.invariant("EXT-05")
async def test_migrations_arrive_at_the_schema(empty: Database, postgres: Server) -> None:
    """Applied to an empty database the migrations give schema.sql (write it anew: tests/integration/store/write_schema.py)."""
    if postgres.embedded is None or postgres.embedded.binaries is None:
        pytest.skip("schema.sql is as pg_dump of the embedded release writes it")
    await migrate(empty.owner)
    assert await dump(empty, postgres) == SCHEMA.read_text(encoding="utf-8")


def test_schema_does_not_depend_on_the_day() -> None:
    """No name in schema.sql holds a date, as those of daily partitions and of all that belongs to them do."""
    assert re.findall(r"\w*_20\d{6}\w*", SCHEMA.read_text(encoding="utf-8")) == []


async def test_idempotent(empty: Database) -> None:
    """A second run applies nothing and changes nothing."""
    first, second = await migrate(empty.owner), await migrate(empty.owner)
    assert first.applied == tuple(migration.name for migration in migrations())
    assert (second.applied, second.version) == ((), needed_version())
    assert await schema_version(empty.api) == needed_version()


async def test_many_at_once(empty: Database) -> None:
    """Several runs at the same time wait for each other; one applies."""
    done = await asyncio.gather(*(migrate(empty.owner) for _ in range(4)))
    assert sorted(len(item.applied) for item in done) == [0, 0, 0, len(migrations())]


async def test_administrator_hands_over(empty: Database) -> None:
    """Run by a superuser, everything belongs to the owner role all the same."""
    connection = await asyncpg.connect(empty.superuser)
    await connection.execute(f"ALTER DATABASE {empty.name} OWNER TO postgres")
    await migrate(empty.superuser)
    owners = await connection.fetch(
        "SELECT DISTINCT r.rolname FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner "
        "WHERE c.relnamespace = 'metagate'::regnamespace"
    )
    await connection.close()
    assert [owner["rolname"] for owner in owners] == [OWNER]
    await migrate(empty.owner)


async def test_without_the_right_to_create_roles(empty: Database) -> None:
    """A role that may not create roles migrates when they exist, and says what an administrator has to do."""
    connection = await asyncpg.connect(empty.superuser)
    try:
        await connection.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
        done = await migrate(empty.owner, passwords={API: "new"})
    finally:
        await connection.execute(f"ALTER ROLE {OWNER} CREATEROLE")
        await connection.close()
    assert done.version == needed_version()
    assert done.warnings == (f"role {API}: an administrator has to set its password",)
    assert await schema_version(empty.api) == needed_version()


async def test_missing_role_is_named(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing role that may not be created is an error that names it; nothing is applied."""
    roles = {**migrating.SCHEMA.roles, "metagate_missing": {}}
    monkeypatch.setattr(migrating, "SCHEMA", replace(migrating.SCHEMA, roles=roles))
    connection = await asyncpg.connect(empty.superuser)
    try:
        await connection.execute(f"ALTER ROLE {OWNER} NOCREATEROLE")
        with pytest.raises(SchemaMismatch, match="metagate_missing"):
            await migrate(empty.owner)
    finally:
        await connection.execute(f"ALTER ROLE {OWNER} CREATEROLE")
        await connection.close()
    assert await schema_version(empty.owner) == 0


async def test_changed_migration_is_refused(fresh_database: Database) -> None:
    """A migration that was applied with another content is refused by name."""
    connection = await asyncpg.connect(fresh_database.owner)
    await connection.execute("UPDATE metagate.migration SET checksum = 'x' WHERE version = 2")
    await connection.close()
    with pytest.raises(SchemaMismatch, match="0002_requests"):
        await migrate(fresh_database.owner)


async def test_newer_database_serves_older_release(fresh_database: Database) -> None:
    """A database of the next release is left alone and counts as fitting (D-54)."""
    connection = await asyncpg.connect(fresh_database.owner)
    await connection.execute("INSERT INTO metagate.migration VALUES (9999, 'next', 'x')")
    await connection.close()
    assert (await migrate(fresh_database.owner)).applied == ()
    assert await wait_until_migrated(fresh_database.api, seconds=0) == 9999


async def test_waiting(empty: Database) -> None:
    """Readers wait for the schema, and give up with what is missing."""
    connection = await asyncpg.connect(empty.superuser)
    await connection.execute(f"GRANT CONNECT ON DATABASE {empty.name} TO {API}")
    await connection.close()
    with pytest.raises(SchemaMismatch, match="schema version 0"):
        await wait_until_migrated(empty.api, seconds=0)
    waiting = asyncio.create_task(wait_until_migrated(empty.api, seconds=20, every=0.05), name="waiting")
    await migrate(empty.owner)
    assert await waiting == needed_version()


async def test_nobody_there() -> None:
    """Without a server the error is StoreUnavailable, and holds no password."""
    with pytest.raises(StoreUnavailable) as caught:
        await migrate("postgresql://u:hush@127.0.0.1:1/x")
    assert "hush" not in str(caught.value)


async def test_long_transaction_does_not_queue_requests(
    fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration behind somebody's lock gives up after its lock timeout instead of queueing everybody behind itself (F22)."""
    later = Migration(9000, "9000_later", "ALTER TABLE metagate.startup ADD COLUMN x integer")
    known = migrations()
    monkeypatch.setattr("legivellum.postgres.migrations.migrations", lambda _schema: (*known, later))
    connection = await asyncpg.connect(fresh_database.superuser)
    async with connection.transaction():
        await connection.execute("SELECT FROM metagate.startup")
        with pytest.raises(StoreUnavailable, match="55P03"):
            await migrate(fresh_database.owner, lock_timeout="50ms", lock_patience=0.5)
    await connection.close()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_another_encoding_is_refused_by_name(postgres: Server, encoding: str) -> None:
    """Each gate's `migrate` refuses the database before it writes anything, and says what to do."""
    name = f"test_{encoding.lower()}"
    connection = await asyncpg.connect(postgres.superuser)
    try:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.execute(
            f"CREATE DATABASE {name} OWNER {OWNER} ENCODING '{encoding}' LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0"
        )
        url = postgres.dsn("postgres", name)
        ledger = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", "from memorygate.main import main; main()", "migrate", "--database-url", url],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        for done in (metagate("migrate", DATABASE_URL=url), ledger):
            assert done.returncode not in {0, 1}, done.stderr
            assert f"the database's encoding is {encoding}, and has to be UTF8" in done.stderr
            assert "this is a bug" not in done.stderr
        there = await asyncpg.connect(postgres.dsn("postgres", name))
        assert await there.fetch("SELECT FROM pg_namespace WHERE nspname IN ('metagate', 'memorygate')") == []
        await there.close()
    finally:
        await connection.execute(f"DROP DATABASE IF EXISTS {name}")
        await connection.close()


async def test_parameters_of_libpq_do_not_reach_the_server(empty: Database) -> None:
    """What people copy from their provider migrates and serves; another parameter is a wrong setting, by its name."""
    tuning = "connect_timeout=3&keepalives_idle=30&channel_binding=prefer&application_name=copied"
    url = f"{empty.owner}{'&' if '?' in empty.owner else '?'}{tuning}"
    done = metagate("migrate", DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    wrong = metagate("migrate", DATABASE_URL=f"{url}&pool_size=5")
    assert wrong.returncode not in {0, 1}
    assert "pool_size" in wrong.stderr
    assert "setting is wrong" in wrong.stderr


async def test_passwords_travel_as_verifiers(postgres: Server) -> None:
    """PostgreSQL accepts the verifier as the password's own; the text of the password is not in it."""
    connection = await asyncpg.connect(postgres.superuser)
    await connection.execute(f"CREATE ROLE tester LOGIN PASSWORD '{scram_verifier('s3cret pass')}'")
    try:
        stored = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = 'tester'")
        assert stored.startswith("SCRAM-SHA-256$4096:")
        assert "s3cret" not in stored
        dsn = postgres.dsn("postgres", "postgres")
        parts = re.sub(r"//[^@]*@", "//tester:s3cret%20pass@", dsn)
        again = await asyncpg.connect(parts)
        await again.close()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(re.sub(r"//[^@]*@", "//tester:other@", dsn))
    finally:
        await connection.execute("DROP ROLE tester")
        await connection.close()


async def test_every_query_prepares(database: Database) -> None:
    """Each named query is valid against the schema, for the role that uses it."""
    roles = {"read": database.api, "publish": database.publisher, "load": database.publisher}
    for name, query in every().items():
        connection = await asyncpg.connect(roles.get(name.partition(".")[0], database.publisher))
        try:
            await connection.prepare(query.sql)
        finally:
            await connection.close()
        assert query.says.endswith(".")
    assert len(every()) > 50


def test_queries_are_used() -> None:
    """No query lies about unused."""
    package = Path(migrating.__file__).parent
    code = "\n".join(path.read_text(encoding="utf-8") for path in package.glob("*.py"))
    unused = [name for name in every() if not name.startswith(("upsert.", "delete.")) and f'"{name}"' not in code]
    assert unused == []


def test_query_files_are_strict() -> None:
    """A block without a description is refused."""
    with pytest.raises(ValueError, match="description"):
        parse("-- name: a.b\nSELECT 1;\n")


def test_migrations_are_numbered_without_gaps() -> None:
    """Versions count up from one, and no content appears twice."""
    result = migrations()
    assert [item.version for item in result] == list(range(1, len(result) + 1))
    assert len({hashlib.sha256(item.sql.encode()).digest() for item in result}) == len(result)
