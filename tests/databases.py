"""Real PostgreSQL for the tests: one server per run, one database per module, cloned from a migrated template.

`DATABASE_URL` (a superuser's) takes any other server instead of the embedded one; `METAGATE_TEST_POSTGRES_BIN`, the
directory of another PostgreSQL's binaries, starts one of those (`make test-postgres`).
"""

import os
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
from tests.calendar_days import IS_CALENDAR
from tests.installed_postgres import InstalledPostgres

from metagate_postgres import EmbeddedPostgres
from metagate_store.migrating import OWNER, PROCESS_ROLES, migrate

ROLES = (OWNER, *PROCESS_ROLES)
TEMPLATE = "metagate_template"


@dataclass(frozen=True, slots=True)
class Database:
    """One migrated database and how each role reaches it."""

    name: str
    superuser: str
    owner: str
    publisher: str
    api: str
    identity: str


class ClockedPostgres(EmbeddedPostgres):
    """A server whose clock is that of `make test-calendar`; it is started without the environment of the tests."""

    def _command(self, *where: Any) -> Sequence[str]:
        clock = {name: os.environ[name] for name in ("LD_PRELOAD", "CLOCK_OFFSET") if name in os.environ}  # noqa: TID251
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in clock.items()), *super()._command(*where)]


def embedded_postgres(directory: Path, **options: Any) -> EmbeddedPostgres:
    """A server of the run's clock."""
    kind = ClockedPostgres if IS_CALENDAR else EmbeddedPostgres
    return kind(directory, **options)


class Server:
    """A PostgreSQL server with the four roles."""

    def __init__(
        self,
        superuser: str,
        passwords: dict[str, str],
        embedded: EmbeddedPostgres | None,
        installed: InstalledPostgres | None = None,
    ) -> None:
        self.superuser = superuser
        self.passwords = passwords
        self.embedded = embedded
        self.installed = installed

    @classmethod
    def start(cls, directory: Path | None = None) -> Self:
        if url := os.environ.get("DATABASE_URL"):  # noqa: TID251 - the one setting of the suite
            return cls(url, {role: secrets.token_urlsafe(12) for role in ROLES}, None)
        if binaries := os.environ.get("METAGATE_TEST_POSTGRES_BIN"):  # noqa: TID251
            installed = InstalledPostgres(Path(binaries)).start()
            return cls(installed.url, {role: secrets.token_urlsafe(12) for role in ROLES}, None, installed)
        directory = directory or Path(tempfile.mkdtemp(prefix="metagate-tests-"))
        directory.chmod(0o755)  # the server's account enters it
        # Nothing here outlives the run; tests of durability start their own server.
        settings = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "64MB"}
        embedded = embedded_postgres(directory, settings=settings).start()
        passwords = {role: embedded.password(role) for role in ROLES}
        return cls(embedded.dsn("postgres", database="postgres"), passwords, embedded)

    def stop(self) -> None:
        if self.installed is not None:
            self.installed.stop()
        if self.embedded is not None:
            self.embedded.stop()
            shutil.rmtree(self.embedded.directory, ignore_errors=True)

    @property
    def server_pid(self) -> int | None:
        """The postmaster's process id; None when it does not run, or is not ours to stop."""
        running = self.embedded or self.installed
        return None if running is None else running.server_pid

    @property
    def log(self) -> Path | None:
        """Where the server writes its log, if it is ours."""
        if self.embedded is not None:
            return self.embedded.directory / "postgres.log"
        return None if self.installed is None else self.installed.log

    def halt(self) -> None:
        """Stop the server and leave what it holds; `resume` starts it again at the same port."""
        if self.installed is not None:
            self.installed.halt()
        if self.embedded is not None:
            self._port = self.embedded.port
            self.embedded.stop()

    def resume(self) -> None:
        if self.installed is not None:
            self.installed.resume()
        if self.embedded is not None:
            self.embedded = type(self.embedded)(self.embedded.directory, port=self._port).start()

    def dsn(self, role: str, database: str) -> str:
        parts = urlsplit(self.superuser)
        if role == "postgres":
            return urlunsplit(parts._replace(path=f"/{database}"))
        place = parts.netloc.rpartition("@")[2]
        return urlunsplit(
            parts._replace(netloc=f"{role}:{quote(self.passwords[role], safe='')}@{place}", path=f"/{database}")
        )

    async def make_template(self) -> None:
        connection = await asyncpg.connect(self.superuser)
        try:
            if not await connection.fetchval(f"SELECT count(*) FROM pg_roles WHERE rolname = '{OWNER}'"):
                await connection.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE")
            await connection.execute(f"ALTER ROLE {OWNER} PASSWORD '{self.passwords[OWNER]}'")
            await connection.execute(f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER {OWNER}")
        finally:
            await connection.close()
        await migrate(self.dsn(OWNER, TEMPLATE), passwords={role: self.passwords[role] for role in PROCESS_ROLES})

    async def make(self, *, migrated: bool = True) -> Database:
        name = f"test_{secrets.token_hex(4)}"
        connection = await asyncpg.connect(self.superuser)
        try:
            template = f" TEMPLATE {TEMPLATE}" if migrated else ""
            await connection.execute(f"CREATE DATABASE {name} OWNER {OWNER}{template}")
        finally:
            await connection.close()
        return Database(name, *(self.dsn(role, name) for role in ("postgres", *ROLES)))

    async def drop(self, database: Database) -> None:
        connection = await asyncpg.connect(self.superuser)
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")
        finally:
            await connection.close()


def patient(dsn: str, milliseconds: int = 20_000) -> str:
    """With longer limits than the role's own, which a busy machine does not keep."""
    return f"{dsn}{'&' if '?' in dsn else '?'}lock_timeout={milliseconds}&statement_timeout={milliseconds}"
