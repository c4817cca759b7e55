"""Bringing a database to the schema this release needs (D-54).

The migrations are plain SQL files, applied once each, in order, each in its own transaction, under an advisory lock,
and recorded with their checksum. A hundred lines of our own rather than a tool: Alembic and yoyo would bring SQLAlchemy
or a second driver into a package that may only know asyncpg, to do what is done here.

Roles are created where the caller may create them, and only checked where not. Passwords travel as SCRAM verifiers, so
that no server log ever holds one.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from metagate_store.driver import translated
from metagate_store.errors import ForeignCluster, SchemaMismatch

OWNER = "metagate_owner"
PUBLISHER = "metagate_publisher"
API = "metagate_api"
IDENTITY = "metagate_identity"
PROCESS_ROLES = (PUBLISHER, API, IDENTITY)

ROLE_SETTINGS: Mapping[str, Mapping[str, str]] = {
    # Below the request's deadline of 500 ms, in the order lock < statement < query < deadline (DESIGN §3.6).
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

_LOCK = 0x6D657461_67617465  # "metagate"


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


def migrations() -> tuple[Migration, ...]:
    found = sorted(entry.name for entry in (files(__package__) / "migrations").iterdir() if entry.name[:4].isdigit())
    return tuple(Migration(int(name[:4]), name.removesuffix(".sql"), _text(name)) for name in found)


def needed_version() -> int:
    return migrations()[-1].version


def _text(name: str) -> str:
    return (files(__package__) / "migrations" / name).read_text(encoding="utf-8")


@translated
async def migrate(
    dsn: str,
    *,
    passwords: Mapping[str, str] | None = None,
    cluster_uid: str | None = None,
    adopt: bool = False,
    lock_timeout: str = "2s",
) -> Migrated:
    """Create or bring up to date; harmless when there is nothing to do.

    `dsn`: the owner's, or an administrator's, who then acts as the owner.
    `passwords`: by process role; a role without one keeps its password, or is created without LOGIN.
    `cluster_uid`: whose database this is from now on; another cluster's is refused unless `adopt`. `adopt` without it
    leaves the database to the next writer that comes.
    Raises SchemaMismatch when an applied migration has changed; ForeignCluster; StoreUnavailable.
    """
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "metagate migrate"})
    try:
        await connection.fetchval("SELECT pg_advisory_lock($1)", _LOCK)
        warnings = await _roles(connection, passwords or {})
        await _become_owner(connection)
        await _prepare(connection)
        applied = await _apply(connection, lock_timeout)
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
            await connection.execute(_text("grants.sql"))
        await connection.fetchval("SELECT metagate.prepare_partitions(2)")
        if cluster_uid is not None:
            await _claim(connection, cluster_uid, adopt=adopt)
        elif adopt:
            await connection.execute("DELETE FROM metagate.installation")
        return Migrated(applied, needed_version(), warnings)
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
    connection = await asyncpg.connect(dsn, timeout=5)
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


async def _prepare(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE SCHEMA IF NOT EXISTS metagate; "
        "CREATE TABLE IF NOT EXISTS metagate.migration ("
        "version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
        "applied_at timestamptz NOT NULL DEFAULT now())"
    )


async def _apply(connection: asyncpg.Connection, lock_timeout: str) -> tuple[str, ...]:
    known = {
        row["version"]: row for row in await connection.fetch("SELECT version, name, checksum FROM metagate.migration")
    }
    ours = migrations()
    applied: list[str] = []
    for migration in ours:
        if (row := known.get(migration.version)) is not None:
            if row["checksum"] != migration.checksum:
                raise SchemaMismatch(f"migration {row['name']} was applied with another content than this release has")
            continue
        async with connection.transaction():
            # A migration behind somebody's open transaction must not queue the API's requests behind itself (F22).
            await connection.execute(f"SET LOCAL lock_timeout = '{lock_timeout}'")
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO metagate.migration (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
        applied.append(migration.name)
    return tuple(applied)


async def _claim(connection: asyncpg.Connection, cluster_uid: str, *, adopt: bool) -> None:
    held = await connection.fetchval("SELECT metagate.claim($1)", cluster_uid)
    if held == cluster_uid:
        return
    if not adopt:
        raise ForeignCluster(
            f"the database belongs to {held}, not to {cluster_uid}; `metagate migrate --adopt` takes it over"
        )
    await connection.execute("UPDATE metagate.installation SET cluster_uid = $1, since = now()", cluster_uid)


async def _roles(connection: asyncpg.Connection, passwords: Mapping[str, str]) -> tuple[str, ...]:
    """Create and set up the process roles, as far as this role may. Returns what it may not."""
    warnings: list[str] = []
    existing = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_catalog.pg_roles")}
    for role in PROCESS_ROLES:
        if role not in existing:
            try:
                await connection.execute(f"CREATE ROLE {role} NOLOGIN")
            except asyncpg.InsufficientPrivilegeError as error:
                raise SchemaMismatch(
                    f"role {role} does not exist and may not be created by this one; create it (docs/database.md)"
                ) from error
            except asyncpg.DuplicateObjectError:
                pass  # another database of this server is being migrated too
        await _set_up(connection, role, passwords.get(role), warnings)
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    try:
        await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {', '.join(PROCESS_ROLES)}")
    except asyncpg.InsufficientPrivilegeError:
        warnings.append(f"the roles may lack CONNECT on database {database}")
    return tuple(warnings)


async def _set_up(connection: asyncpg.Connection, role: str, password: str | None, warnings: list[str]) -> None:
    held = await connection.fetchrow(
        "SELECT r.rolcanlogin, r.rolconfig FROM pg_catalog.pg_roles AS r WHERE r.rolname = $1", role
    )
    wanted = [f"{name}={value}" for name, value in ROLE_SETTINGS[role].items()]
    statements = [] if password is None else [f"ALTER ROLE {role} LOGIN PASSWORD '{scram_verifier(password)}'"]
    if not set(wanted) <= set(held["rolconfig"] or ()):
        statements += [f"ALTER ROLE {role} SET {name} = '{value}'" for name, value in ROLE_SETTINGS[role].items()]
    for statement in statements:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            what = "its password" if "PASSWORD" in statement else statement
            warnings.append(f"role {role}: an administrator has to set {what}")


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = 4096) -> str:
    """What PostgreSQL stores for a password (RFC 5803), so that the password itself never travels in a statement."""
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    spelt = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{spelt[0]}${spelt[1]}:{spelt[2]}"
