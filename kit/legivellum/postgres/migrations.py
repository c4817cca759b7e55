"""Bringing a gate's schema to what its release needs (D-54): plain SQL files, once each, in order, each in a
transaction of its own, under an advisory lock, recorded with their checksum.

A hundred lines of our own rather than a tool: the known ones bring SQLAlchemy or a second driver into packages that may
only know asyncpg. Roles are created where the caller may create them, and only checked where not.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import asyncpg

from legivellum.postgres.connecting import connect
from legivellum.postgres.driver import translated
from legivellum.postgres.errors import SchemaMismatch, UnusableEncoding
from legivellum.postgres.scram import scram_verifier

LOCK_TIMEOUT = "80ms"
"""For how long one try of a migration may wait for a lock: less than the gates' own requests wait (100 ms)."""
LOCK_PATIENCE = 60.0
"""Seconds for which it is tried again."""

WRITER_SETTINGS: Mapping[str, str] = {
    "lock_timeout": "300ms",
    "statement_timeout": "700ms",
    "idle_in_transaction_session_timeout": "1s",
    "default_transaction_isolation": "read committed",
    "synchronous_commit": "on",
    "jit": "off",
}
"""Of a role that appends to the ledger. Below the request's deadline, in the order lock < statement < query < deadline
(docs/database.md). It may wait longer for a lock than MetaGate's roles: two batches of one root follow each other, they
do not fail.
"""


@dataclass(frozen=True, slots=True)
class Schema:
    """One gate's schema: where its files are, who owns it, and which roles its processes have (with each role's
    settings).
    """

    name: str
    package: str
    lock: int
    owner: str
    """Owns every object."""
    roles: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    granted: tuple[str, ...] = ()
    """Roles of other gates that `grants.sql` names. Created when missing; where that is not allowed, a warning."""
    after: tuple[str, ...] = ()
    """Statements that end every migration: what must be prepared again and again, like the coming months."""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Migrated:
    applied: tuple[str, ...]
    version: int
    warnings: tuple[str, ...]
    """What an administrator has to do, because this role may not."""


def migrations(schema: Schema) -> tuple[Migration, ...]:
    folder = files(schema.package) / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name[:4].isdigit())
    return tuple(
        Migration(int(name[:4]), name.removesuffix(".sql"), (folder / name).read_text(encoding="utf-8"))
        for name in names
    )


def needed_version(schema: Schema) -> int:
    return migrations(schema)[-1].version


@translated
async def migrate(
    schema: Schema,
    dsn: str,
    *,
    passwords: Mapping[str, str] | None = None,
    lock_timeout: str = LOCK_TIMEOUT,
    lock_patience: float = LOCK_PATIENCE,
) -> Migrated:
    """Create or bring up to date; harmless when there is nothing to do. `grants.sql` and `Schema.after` come last,
    each time.

    `passwords`: by role; a role without one keeps its password, or is created without LOGIN. `lock_timeout`: for how
    long one try may wait for a table; `lock_patience`: seconds of tries.
    Raises SchemaMismatch when an applied migration has changed or a role is missing; UnusableEncoding; Unavailable.
    """
    connection = await connect(dsn, seconds=10, server_settings={"application_name": f"{schema.name} migrate"})
    try:
        await require_utf8(connection)
        await connection.execute(f"SELECT pg_advisory_lock({schema.lock})")
        await _owner(connection, schema)
        warnings = await set_up_roles(connection, schema, passwords or {})
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema.name} AUTHORIZATION {schema.owner}")
        await connection.execute(f"SET ROLE {schema.owner}")
        applied = await apply(connection, schema, lock_timeout, lock_patience)
        for statement in schema.after:
            await connection.execute(statement)
        return Migrated(applied, needed_version(schema), warnings)
    finally:
        await connection.close(timeout=5)


async def require_utf8(connection: asyncpg.Connection) -> None:
    """Raises UnusableEncoding before anything is written.

    In another encoding some names cannot be stored and digests of texts differ: a gate would be ready, and every
    publication or receipt with such a text would fail.
    """
    encoding = await connection.fetchval("SHOW server_encoding")
    if encoding != "UTF8":
        raise UnusableEncoding(
            f"the database's encoding is {encoding}, and has to be UTF8: "
            "create it with ENCODING 'UTF8' TEMPLATE template0, and migrate that one"
        )


async def apply(
    connection: asyncpg.Connection,
    schema: Schema,
    lock_timeout: str = LOCK_TIMEOUT,
    lock_patience: float = LOCK_PATIENCE,
) -> tuple[str, ...]:
    """Whatever migration is not recorded yet, then the grants. Returns the names of those applied."""
    await connection.execute(
        f"CREATE TABLE IF NOT EXISTS {schema.name}.migration ("
        "version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )
    recorded = await connection.fetch(f"SELECT version, name, checksum FROM {schema.name}.migration")  # noqa: S608 - ours
    known = {row["version"]: row for row in recorded}
    applied: list[str] = []
    for migration in migrations(schema):
        if (row := known.get(migration.version)) is not None:
            if row["checksum"] != migration.checksum:
                raise SchemaMismatch(f"migration {row['name']} was applied with another content than this release has")
            continue
        record = f"INSERT INTO {schema.name}.migration (version, name, checksum) VALUES ($1, $2, $3)"  # noqa: S608 - ours
        values = (migration.version, migration.name, migration.checksum)
        await _patiently(connection, [(migration.sql, ()), (record, values)], lock_timeout, lock_patience)
        applied.append(migration.name)
    grants = (files(schema.package) / "migrations" / "grants.sql").read_text(encoding="utf-8")
    await _patiently(connection, [(grants, ())], lock_timeout, lock_patience)
    return tuple(applied)


async def _patiently(
    connection: asyncpg.Connection,
    statements: Sequence[tuple[str, tuple[Any, ...]]],
    lock_timeout: str,
    patience: float,
) -> None:
    """All of them in one transaction, again while a lock is not to be had, for `patience` seconds.

    Who waits for a table makes everybody else queue for it. So each try is shorter than what a gate's request waits
    for a lock: a migration behind somebody's open transaction delays requests by that much and fails none (F22).
    """
    until = time.monotonic() + patience
    while True:
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
                for statement, values in statements:
                    await connection.execute(statement, *values)
        except asyncpg.LockNotAvailableError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(random.uniform(0.3, 0.7))  # noqa: S311 - spreads, protects nothing
        else:
            return


async def _owner(connection: asyncpg.Connection, schema: Schema) -> None:
    """Make sure that the owner exists and that this session may act as it."""
    if not await connection.fetchval("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = $1", schema.owner):
        await _create(connection, schema.owner)
    # Since PostgreSQL 16 a member may be one without SET; before, every member may SET ROLE and there is no such word.
    privilege = "SET" if connection.get_server_version().major >= 16 else "MEMBER"
    if not await connection.fetchval("SELECT pg_has_role($1, $2)", schema.owner, privilege):
        try:
            await connection.execute(f"GRANT {schema.owner} TO CURRENT_USER")
        except asyncpg.InsufficientPrivilegeError as error:
            raise SchemaMismatch(f"this role may not act as {schema.owner}: grant it that") from error


async def _create(connection: asyncpg.Connection, role: str) -> None:
    try:
        await connection.execute(f"CREATE ROLE {role} NOLOGIN")
    except asyncpg.InsufficientPrivilegeError as error:
        raise SchemaMismatch(
            f"role {role} does not exist and may not be created by this one; create it (docs/database.md)"
        ) from error
    except asyncpg.DuplicateObjectError:
        pass  # another database of this server is being migrated too


async def set_up_roles(connection: asyncpg.Connection, schema: Schema, passwords: Mapping[str, str]) -> tuple[str, ...]:
    """Create and set up the process roles, as far as this role may. Returns what it may not."""
    warnings: list[str] = []
    existing = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_catalog.pg_roles")}
    for role in schema.roles:
        if role not in existing:
            await _create(connection, role)
        await _set_up(connection, role, schema.roles[role], passwords.get(role), warnings)
    for role in schema.granted:
        if role not in existing:
            try:
                await _create(connection, role)
            except SchemaMismatch:
                warnings.append(f"role {role}: an administrator has to create it before that gate can be installed")
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    try:
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(schema.roles)}")
    except asyncpg.InsufficientPrivilegeError:
        warnings.append(f"the roles may lack CONNECT on database {database}")
    return tuple(warnings)


async def _set_up(
    connection: asyncpg.Connection, role: str, settings: Mapping[str, str], password: str | None, warnings: list[str]
) -> None:
    role_settings = await connection.fetchrow("SELECT rolconfig FROM pg_catalog.pg_roles WHERE rolname = $1", role)
    statements = [] if password is None else [f"ALTER ROLE {role} LOGIN PASSWORD '{scram_verifier(password)}'"]
    if not {f"{name}={value}" for name, value in settings.items()} <= set(
        (role_settings and role_settings["rolconfig"]) or ()
    ):
        statements += [f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in settings.items()]
    for statement in statements:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            what = "its password" if "PASSWORD" in statement else statement
            warnings.append(f"role {role}: an administrator has to set {what}")
