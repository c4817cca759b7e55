"""Bringing a database to the schema this release needs (D-54).

How migrations are applied and roles are set up is `legivellum.postgres.migrations`; here is what is MetaGate's own: its
roles, whose objects they are, and which cluster the database belongs to. Passwords travel as SCRAM verifiers, so that
no server log ever holds one.
"""

import asyncio
from collections.abc import Mapping

import asyncpg

from legivellum.postgres import migrations as kit_migrations
from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from legivellum.postgres.migrations import (
    LOCK_PATIENCE,
    LOCK_TIMEOUT,
    Migrated,
    Migration,
    Schema,
    apply,
    require_utf8,
    set_up_roles,
)
from metagate_store.errors import ForeignCluster, SchemaMismatch
from metagate_store.queries import sql

OWNER = "metagate_owner"
PUBLISHER = "metagate_publisher"
API = "metagate_api"
IDENTITY = "metagate_identity"
PROCESS_ROLES = (PUBLISHER, API, IDENTITY)

ROLE_SETTINGS: Mapping[str, Mapping[str, str]] = {
    # Below the request's deadline of 500 ms, in the order lock < statement < query < deadline (docs/database.md).
    API: {
        "lock_timeout": "100ms",
        "statement_timeout": "400ms",
        "idle_in_transaction_session_timeout": "1s",
        "default_transaction_isolation": "read committed",
        "synchronous_commit": "on",
        "jit": "off",
    },
    IDENTITY: {
        "lock_timeout": "100ms",
        "statement_timeout": "400ms",
        "idle_in_transaction_session_timeout": "1s",
        "default_transaction_read_only": "on",
        "jit": "off",
    },
    PUBLISHER: {
        "lock_timeout": "5s",
        "statement_timeout": "60s",
        "idle_in_transaction_session_timeout": "30s",
        "jit": "off",
    },
}
"""Set on the roles, because nothing may ever be set in a session of the pool."""

BEYOND = 1_000_000
"""So far a restored database's revisions are moved on: more than can have been published since its backup."""

SCHEMA = Schema(name="metagate", package="metagate_store", lock=0x6D657461_67617465, owner=OWNER, roles=ROLE_SETTINGS)


def migrations() -> tuple[Migration, ...]:
    return kit_migrations.migrations(SCHEMA)


def needed_version() -> int:
    return kit_migrations.needed_version(SCHEMA)


@translated
async def migrate(
    dsn: str,
    *,
    passwords: Mapping[str, str] | None = None,
    cluster_uid: str | None = None,
    adopt: bool = False,
    restored: bool = False,
    lock_timeout: str = LOCK_TIMEOUT,
    lock_patience: float = LOCK_PATIENCE,
) -> Migrated:
    """Create or bring up to date; harmless when there is nothing to do.

    `dsn`: the owner's, or an administrator's, who then acts as the owner.
    `passwords`: by process role; a role without one keeps its password, or is created without LOGIN.
    `cluster_uid`: whose database this is from now on; another cluster's is refused unless `adopt`. `adopt` without it
    leaves the database to the next writer that comes. `restored`: it comes from a backup, and revisions go on beyond
    any that was served since (I3). `lock_timeout`: for how long one try may wait for a table, `lock_patience`: seconds
    of tries.
    Raises SchemaMismatch when an applied migration has changed; UnusableEncoding, ForeignCluster, StoreUnavailable.
    """
    connection = await connect(dsn, seconds=10, server_settings={"application_name": "metagate migrate"})
    try:
        await require_utf8(connection)
        await connection.fetchval("SELECT pg_advisory_lock($1)", SCHEMA.lock)
        warnings = await set_up_roles(connection, SCHEMA, passwords or {})
        await _become_owner(connection)
        await connection.execute("CREATE SCHEMA IF NOT EXISTS metagate")
        applied = await apply(connection, SCHEMA, lock_timeout, lock_patience)
        await connection.fetchval("SELECT metagate.prepare_partitions(2)")
        if adopt:
            # Another cluster's namespaces are other tenants: their keys would all be somebody else's.
            await connection.execute("DELETE FROM metagate.key_digest")
        if cluster_uid is not None:
            await _claim(connection, cluster_uid, adopt=adopt)
        elif adopt:
            await connection.execute("DELETE FROM metagate.installation")
        if restored:
            await _go_on(connection)
        return Migrated(applied, needed_version(), (*warnings, *await _contested_keys(connection)))
    finally:
        await connection.close(timeout=5)


async def wait_until_migrated(dsn: str, *, seconds: float = 120.0, every: float = 0.5) -> int:
    """For readers (`migrate --wait`): return the schema version once it fits; raise what kept it from fitting."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            version = await schema_version(dsn)
            if version >= needed_version():
                return version
            raise SchemaMismatch(f"schema version {version}, this release needs {needed_version()}")  # noqa: TRY301
        except Exception:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(every)


@translated
async def schema_version(dsn: str) -> int:
    """0: there is no schema. Any of the roles may ask."""
    connection = await connect(dsn, seconds=5)
    try:
        try:
            return int(await connection.fetchval("SELECT schema_version FROM metagate.state()") or 0)
        except (asyncpg.UndefinedFunctionError, asyncpg.InvalidSchemaNameError, asyncpg.InsufficientPrivilegeError):
            return 0
    finally:
        await connection.close(timeout=2)


async def _become_owner(connection: asyncpg.Connection) -> None:
    """An administrator makes the owner own it all: a function with its owner's rights must not have a superuser's."""
    me = await connection.fetchrow(
        "SELECT r.rolname, r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname = current_user"
    )
    if not me["rolsuper"]:
        return
    if not await connection.fetchval("SELECT count(*) FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1", OWNER):
        await connection.execute(f"CREATE ROLE {OWNER} NOLOGIN")
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    await connection.execute(f"GRANT CONNECT, CREATE ON DATABASE {database} TO {OWNER}")
    await connection.execute(f"SET ROLE {OWNER}")


async def _claim(connection: asyncpg.Connection, cluster_uid: str, *, adopt: bool) -> None:
    owner_uid = await connection.fetchval("SELECT metagate.claim($1)", cluster_uid)
    if owner_uid == cluster_uid:
        return
    if not adopt:
        raise ForeignCluster(
            f"the database belongs to {owner_uid}, not to {cluster_uid}; `metagate migrate --adopt` takes it over"
        )
    await connection.execute("UPDATE metagate.installation SET cluster_uid = $1, since = now()", cluster_uid)


async def _contested_keys(connection: asyncpg.Connection) -> list[str]:
    return [
        f"Principal {row['namespace']}/{row['name']} declares keys ({row['keys']}) that another namespace declared "
        "first: they open nothing there; declare new ones (D-70)"
        for row in await connection.fetch(sql("load.contested_keys"))
    ]


async def _go_on(connection: asyncpg.Connection) -> None:
    """A writer that still runs finds a revision it does not know, writes nothing, and loads anew."""
    async with connection.transaction():
        await connection.execute(sql("publish.lock"))
        revision = await connection.fetchval(sql("publish.restored_revision"), BEYOND)
        if revision is not None:
            await connection.execute(sql("publish.restored_bindings"), revision)
            await connection.execute(sql("publish.restored_policies"))
            await connection.execute(sql("publish.restored_problematas"))
            await connection.execute(sql("publish.restored_plan_templates"))
