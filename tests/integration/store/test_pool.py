"""The readers' pool under the faults of a database that is away, frozen, or refuses."""

import asyncio
import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import publish, somebody

from legivellum.postgres.driver import translate
from metagate_postgres import EmbeddedPostgres
from metagate_store.errors import RowRefused, SchemaMismatch, StoreUnavailable
from metagate_store.migrating import PROCESS_ROLES, migrate
from metagate_store.pool import NamedQueryPool
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome


@pytest.fixture(scope="module")
async def server():
    """A server of one's own, to be frozen and killed."""
    directory = Path(tempfile.mkdtemp(prefix="metagate-faults-"))
    directory.chmod(0o755)
    made = EmbeddedPostgres(directory)
    made.start()
    await migrate(made.dsn(), passwords={role: made.password(role) for role in PROCESS_ROLES})
    yield made
    made.stop()


async def answers(reader: Reader, principal, *, within: float) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            [answer] = await reader.bootstrap([principal.ask()])
        except StoreUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        else:
            assert answer.outcome is BootstrapOutcome.OPENED
            return


@contextlib.asynccontextmanager
async def taken(pool: NamedQueryPool):
    """A connection of the pool's, to look into."""
    connection = await pool._take()
    yield connection
    pool._give(connection)


def processes(server: EmbeddedPostgres) -> list[int]:
    """The postmaster and its children."""
    postmaster = server.server_pid
    assert postmaster is not None
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


@pytest.mark.invariant("INV-026")
async def test_frozen_server(server: EmbeddedPostgres) -> None:
    """While the server is frozen every call ends within its bound, and the pool works again by itself afterwards (F05)."""
    principal = somebody()
    await publish(server.dsn("metagate_publisher"), principal)
    reader = await Reader.connect(server.dsn("metagate_api", tcp=True), size=4, acquire_timeout=0.2, query_timeout=0.3)
    await answers(reader, principal, within=1)
    frozen = processes(server)
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            started = time.monotonic()
            results = await asyncio.gather(
                *(reader.bootstrap([principal.ask()]) for _ in range(12)), return_exceptions=True
            )
            assert {type(result) for result in results} == {StoreUnavailable}
            assert time.monotonic() - started < 0.8
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    await answers(reader, principal, within=5)
    await reader.close()


async def test_terminated_connections(server: EmbeddedPostgres) -> None:
    """Connections that the server ends are replaced; at most one call per connection fails (F03)."""
    principal = somebody()
    await publish(server.dsn("metagate_publisher"), principal)
    reader = await Reader.connect(server.dsn("metagate_api"), size=2)
    administrator = await asyncpg.connect(server.dsn("postgres"))
    for _ in range(10):
        await administrator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metagate api'"
        )
        await answers(reader, principal, within=2)
    await administrator.close()
    await reader.close()


async def test_restarted_server(server: EmbeddedPostgres) -> None:
    """After a stop and a start on the same data the same pool serves again; in between each call fails fast (F04, F09)."""
    principal = somebody()
    await publish(server.dsn("metagate_publisher"), principal)
    server._fixed_port = server.port
    reader = await Reader.connect(server.dsn("metagate_api", tcp=True), size=2)
    await asyncio.to_thread(server.stop)
    for wait in (0.5, 0.1, 0.1):
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await reader.bootstrap([principal.ask()])
        assert time.monotonic() - started < wait
    await asyncio.to_thread(server.start)
    await answers(reader, principal, within=5)
    async with asyncio.timeout(3):
        while reader._pool.live < 2:
            await asyncio.sleep(0.02)
    await reader.close()


async def test_one_frozen_backend(server: EmbeddedPostgres) -> None:
    """One frozen backend costs its slot only: the other connections answer, and the slot is filled anew (F06)."""
    principal = somebody()
    await publish(server.dsn("metagate_publisher"), principal)
    reader = await Reader.connect(server.dsn("metagate_api"), size=3, acquire_timeout=1, query_timeout=0.3)
    async with taken(reader._pool) as connection:
        frozen = connection.get_server_pid()
    os.kill(frozen, signal.SIGSTOP)
    try:
        results = await asyncio.gather(*(reader.bootstrap([principal.ask()]) for _ in range(9)), return_exceptions=True)
        assert sum(isinstance(result, StoreUnavailable) for result in results) == 1
        results = await asyncio.gather(*(reader.bootstrap([principal.ask()]) for _ in range(9)))
        assert {answer.outcome for [answer] in results} == {BootstrapOutcome.OPENED}
    finally:
        os.kill(frozen, signal.SIGCONT)
    await reader.close()


async def test_slow_login(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """A login that takes longer than any request may wait still succeeds, in the background (F10)."""
    principal = somebody()
    await publish(server.dsn("metagate_publisher"), principal)
    reader = await Reader.connect(server.dsn("metagate_api"), size=1, acquire_timeout=0.05)
    connect = NamedQueryPool._connect

    async def slowly(pool: NamedQueryPool):
        await asyncio.sleep(0.3)
        return await connect(pool)

    monkeypatch.setattr(NamedQueryPool, "_connect", slowly)
    async with taken(reader._pool) as connection:
        connection.terminate()
    with pytest.raises(StoreUnavailable):
        await reader.bootstrap([principal.ask()])
    await answers(reader, principal, within=2)
    await reader.close()


async def test_closing(database: Database) -> None:
    """Closing ends what runs and what waits, and later calls are refused."""
    pool = await NamedQueryPool.open(
        database.api, size=1, acquire_timeout=5, query_timeout=5, prepared=True, name="test"
    )
    await pool._take()
    waiting = asyncio.create_task(pool.fetch("read.state"), name="waiting")
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
    with pytest.raises(StoreUnavailable, match="closed"):
        await pool.fetch("read.state")


async def test_table_lock(database: Database, reader: Reader) -> None:
    """A lock on the sessions' table is an error after the lock timeout, not a wait (F15)."""
    principal = somebody()
    await publish(database.publisher, principal)
    connection = await asyncpg.connect(database.superuser)
    async with connection.transaction():
        await connection.execute("LOCK TABLE metagate.startup IN ACCESS EXCLUSIVE MODE")
        started = time.monotonic()
        with pytest.raises(StoreUnavailable, match="55P03"):
            await reader.bootstrap([principal.ask()])
        assert 0.09 < time.monotonic() - started < 0.4
    await connection.close()
    await answers(reader, principal, within=1)


async def test_exhausted_pool(database: Database) -> None:
    """More callers than connections wait no longer than the acquire timeout (F21)."""
    pool = await NamedQueryPool.open(
        database.api, size=1, acquire_timeout=0.1, query_timeout=1, prepared=True, name="test"
    )
    busy = await pool._take()
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await pool.fetch("read.state")
    assert time.monotonic() - started < 0.3
    pool._give(busy)
    assert len(await pool.fetch("read.state")) == 1
    await pool.close()


async def test_cancelled_call_gives_its_connection_back(database: Database) -> None:
    """A caller that gives up leaves neither a leaked slot nor a connection in the middle of something."""
    principal = somebody()
    await publish(database.publisher, principal)
    reader = await Reader.connect(database.api, size=1)
    blocker = await asyncpg.connect(database.superuser)
    async with blocker.transaction():
        await blocker.execute("LOCK TABLE metagate.startup IN ACCESS EXCLUSIVE MODE")
        call = asyncio.create_task(reader.bootstrap([principal.ask()]), name="call")
        await asyncio.sleep(0.03)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await blocker.close()
    await answers(reader, principal, within=2)
    await reader.close()


async def test_without_named_statements(database: Database) -> None:
    """The switch for PgBouncer leaves no prepared statement behind."""
    principal = somebody()
    await publish(database.publisher, principal)
    reader = await Reader.connect(database.api, size=1, prepared=False)
    await answers(reader, principal, within=1)
    async with taken(reader._pool) as connection:
        assert (
            await connection.fetchval(
                "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%metagate%' AND name <> ''"
            )
            == 0
        )
    await reader.close()


async def test_new_connection_asks_nothing(database: Database) -> None:
    """A new connection's first bootstrap is one statement: the driver needs to ask the server for no type."""
    principal = somebody()
    await publish(database.publisher, principal)
    pool = await NamedQueryPool.open(
        database.api, size=1, acquire_timeout=1, query_timeout=1, prepared=True, name="test"
    )
    observations: list[str] = []
    async with taken(pool) as connection:
        connection.add_query_logger(lambda record: observations.append(record.query))
    reader = Reader(pool)
    await answers(reader, principal, within=1)
    assert len([item for item in observations if "pg_type" in item]) == 0
    await pool.close()


async def test_not_migrated(postgres) -> None:
    """A database without the schema is SchemaMismatch, not an outage."""
    empty = await postgres.make(migrated=False)
    reader = await Reader.connect(empty.api, size=1)
    with pytest.raises(SchemaMismatch):
        await reader.state()
    await reader.close()
    await postgres.drop(empty)


async def test_no_server() -> None:
    """Connecting to nothing is StoreUnavailable, at once."""
    with pytest.raises(StoreUnavailable):
        await Reader.connect("postgresql://u:p@127.0.0.1:1/x", size=1)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("08006", StoreUnavailable), ("25006", StoreUnavailable), ("53100", StoreUnavailable), ("53300", StoreUnavailable),
        ("57P01", StoreUnavailable), ("57P03", StoreUnavailable), ("57014", StoreUnavailable), ("55P03", StoreUnavailable),
        ("40001", StoreUnavailable), ("40P01", StoreUnavailable), ("XX000", StoreUnavailable), ("P0001", StoreUnavailable),
        ("42883", SchemaMismatch), ("42501", SchemaMismatch), ("23514", RowRefused), ("22021", RowRefused),
    ],
)  # fmt: skip
def test_translation(code: str, kind: type) -> None:
    """Each SQLSTATE of docs/database.md has one meaning, and the driver's text stays behind."""
    error = asyncpg.PostgresError.new({"C": code, "M": "secret text", "S": "ERROR"})
    ours = translate(error)
    assert type(ours) is kind
    assert "secret" not in str(ours)


@pytest.mark.parametrize(
    "error", [OSError("x"), TimeoutError(), asyncpg.InterfaceError("x"), asyncpg.InternalClientError("x"), EOFError()]
)
def test_translation_without_a_code(error: Exception) -> None:
    """Whatever else the driver raises is an outage."""
    assert type(translate(error)) is StoreUnavailable
