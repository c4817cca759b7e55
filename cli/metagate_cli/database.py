"""Which database a command works on: one of our own in a directory, or one that was named; and each role's
way into it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from legivellum.postgres.connecting import connect
from legivellum.postgres.dsn import address
from metagate_store.migrating import API, IDENTITY, OWNER, PROCESS_ROLES, PUBLISHER, migrate


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """DSNs by what they may do; `running` is False once a server of our own has ended by itself.

    `administrator` makes the schemas of other gates, with owners of their own: were it MetaGate's owner, that login
    would be a member of the ledger's owner, and could change its rows. A database that was named has only its owner.
    """

    administrator: str
    owner: str
    publisher: str
    api: str
    identity: str
    running: Callable[[], bool] = lambda: True


@asynccontextmanager
async def database(directory: Path, url: str | None) -> AsyncIterator[DatabaseUrls]:
    """A migrated database: embedded in `directory`, or the one at `url`, whose owner it names.

    Raises:
        PostgresError: the embedded server cannot start; says what to do.
        StoreError: the database at `url` is away or not ours to migrate, or `url` is malformed.

    """
    if url is not None:
        passwords = _passwords(directory)
        owner = address(url, "--database-url")
        await migrate(owner, passwords=passwords)
        yield DatabaseUrls(
            administrator=owner,
            owner=owner,
            publisher=as_role(owner, PUBLISHER, passwords[PUBLISHER]),
            api=as_role(owner, API, passwords[API]),
            identity=as_role(owner, IDENTITY, passwords[IDENTITY]),
        )
        return
    from metagate_postgres.cluster import SUPERUSER
    from metagate_postgres.server import EmbeddedPostgres

    server = EmbeddedPostgres(directory)
    await asyncio.to_thread(server.start)
    try:
        await migrate(server.dsn(), passwords={role: server.password(role) for role in PROCESS_ROLES})
        yield DatabaseUrls(
            administrator=server.dsn(SUPERUSER),
            owner=server.dsn(),
            publisher=server.dsn(PUBLISHER),
            api=server.dsn(API),
            identity=server.dsn(IDENTITY),
            running=lambda: server.running,
        )
    finally:
        await asyncio.shield(asyncio.to_thread(server.stop))


async def withdraw_memberships(database: DatabaseUrls) -> None:
    """Take from MetaGate's owner what lets it act as the owner of another gate's schema: earlier releases made those
    schemas as that login.
    """
    if database.administrator == database.owner:
        return
    connection = await connect(database.administrator, seconds=10)
    try:
        for role in await connection.fetch(_OTHER_OWNERS, OWNER):
            await connection.execute(f"REVOKE {role['name']} FROM {OWNER} CASCADE")
    finally:
        await connection.close(timeout=5)


_OTHER_OWNERS: Final = """
SELECT DISTINCT quote_ident(r.rolname) AS name
FROM pg_catalog.pg_namespace AS n
JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
JOIN pg_catalog.pg_auth_members AS m ON m.roleid = r.oid
JOIN pg_catalog.pg_roles AS l ON l.oid = m.member
WHERE l.rolname = $1 AND r.rolname <> $1 AND NOT r.rolsuper AND r.rolname NOT LIKE 'pg\\_%'
"""


def as_role(url: str, role: str, password: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{host}"))


def _passwords(directory: Path) -> dict[str, str]:
    """Those of the process roles: made once, kept in a file with mode 0600."""
    directory.mkdir(parents=True, exist_ok=True)
    file_path = directory / "roles.json"
    try:
        return dict(json.loads(file_path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        passwords = {role: secrets.token_urlsafe(24) for role in PROCESS_ROLES}
        with os.fdopen(os.open(file_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(passwords, file)
        return passwords
