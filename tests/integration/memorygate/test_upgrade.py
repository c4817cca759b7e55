"""A ledger of the release before comes to this one by `migrate` alone, while a process of that release goes on."""

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.memorygate.conftest import (
    PASSWORD,
    LedgerDatabase,
    _as,
    accepted,
    complete,
    escalate,
    new_id,
    rows,
)
from tests.integration.memorygate.test_emitting import body_of, session_of

from legivellum.receipts.receipt import Receipt, examine
from legivellum.receipts.rights import Right
from memorygate.ledger import Entry, MemoryGateDatabase, entry
from memorygate.schema import AUDITOR, LEDGER, OWNER, WRITER, migrate_ledger
from memorygate.verifying import verify

BEFORE = ("0001_ledger", "0002_append", "0003_reading", "0004_projections", "0005_inlining", "0006_comparing")
# What a process of that release asks, word for word.
OLD_APPEND = f"SELECT * FROM memorygate.append($1::text[]::uuid[], {', '.join(f'${n}' for n in range(2, 20))})"
OLD_GRANTS = f"""
    GRANT EXECUTE ON FUNCTION
        memorygate.append, memorygate.receipt, memorygate.task_receipts, memorygate.chain_receipts, memorygate.inbox,
        memorygate.settled, memorygate.stream, memorygate.summary, memorygate.state
    TO {WRITER}
"""
OLD_QUERIES = (
    ("SELECT * FROM memorygate.receipt($1, $2)", ("receipt_id",)),
    ("SELECT * FROM memorygate.task_receipts($1, $2, '-infinity', '', 100)", ("task_id",)),
    ("SELECT * FROM memorygate.chain_receipts($1, $2, 100)", ("receipt_id",)),
    ("SELECT * FROM memorygate.inbox($1, $2, 'obligation', NULL, NULL, '-infinity', '', 100)", ("custodian",)),
    ("SELECT * FROM memorygate.stream($1, '0'::xid8, '-infinity', 100)", ()),
    ("SELECT * FROM memorygate.summary($1)", ()),
)


def made(tenant: UUID, body: dict[str, object], right: Right = Right.OPEN) -> Entry:
    receipt = examine({"principal_ai": "alice", **body}, tenant=str(tenant), emitter="alice")
    assert isinstance(receipt, Receipt), receipt
    return entry(receipt, right)


@pytest_asyncio.fixture(loop_scope="session")
async def old_ledger(postgres: Server) -> AsyncIterator[LedgerDatabase]:
    """The schema as the release before left it: its migrations, its grants, its roles."""
    database = await postgres.make()
    # Roles live in the server: another test's ledger made them. Here only what this database holds is of the release before.
    scratch = await postgres.make()
    await migrate_ledger(scratch.owner, passwords={WRITER: PASSWORD, AUDITOR: PASSWORD})
    await postgres.drop(scratch)
    folder = files("memorygate") / "migrations"
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(f"CREATE SCHEMA memorygate AUTHORIZATION {OWNER}; SET ROLE {OWNER}")
        await connection.execute(
            "CREATE TABLE memorygate.migration (version integer PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        for number, name in enumerate(BEFORE, start=1):
            sql = (folder / f"{name}.sql").read_text(encoding="utf-8")
            await connection.execute(sql)
            await connection.execute(
                "INSERT INTO memorygate.migration VALUES ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'))",
                number, name, sql,
            )  # fmt: skip
        await connection.execute(f"""
            REVOKE ALL ON ALL ROUTINES IN SCHEMA memorygate FROM PUBLIC;
            GRANT USAGE ON SCHEMA memorygate TO {WRITER};
            GRANT USAGE ON TYPE memorygate.stored_receipt TO {WRITER};
            {OLD_GRANTS};
            SELECT memorygate.prepare_partitions(12);
        """)
    finally:
        await connection.close()
    yield LedgerDatabase(database, _as(database.owner, WRITER), _as(database.owner, AUDITOR))
    await postgres.drop(database)


async def old_append(connection: asyncpg.Connection, *entries: Entry) -> list[str]:
    answer = await connection.fetch(OLD_APPEND, *map(list, zip(*entries, strict=True)))
    return [row["outcome"] for row in sorted(answer, key=lambda row: row["ordinal"])]


async def test_a_ledger_of_the_release_before_is_migrated_and_holds(old_ledger: LedgerDatabase):
    """Its receipts verify, its projections rebuild equal, its views page, and other gates can emit beside them."""
    tenant, cause = uuid4(), new_id()
    writer = await asyncpg.connect(old_ledger.writer)
    try:
        outcomes = await old_append(
            writer,
            made(tenant, accepted(receipt_id=cause, task_id="root", dedupe_key="k")),
            made(tenant, accepted(task_id="child", parent_task_id="root", recipient_ai="svc:asyncgate", caused_by_receipt_id=cause)),
            made(tenant, escalate("bob", task_id="root")),
            made(tenant, accepted(task_id="alone", receipt_id="0" * 26)),
            made(tenant, complete(task_id="alone")),
        )  # fmt: skip
        assert outcomes == ["STORED"] * 5
        done = await migrate_ledger(old_ledger.owner)
        assert [name[:4] for name in done.applied] == [f"{n:04}" for n in range(7, done.version + 1)]
        assert (await migrate_ledger(old_ledger.owner)).applied == ()
        # A rollback runs the grants of the release before on the new schema.
        await rows(old_ledger.superuser, OLD_GRANTS)
        # The process of the release before, still running: it writes and asks as before.
        assert await old_append(writer, made(tenant, complete(task_id="unopened"))) == ["OBLIGATION_NOT_ACCEPTED"]
        assert await old_append(writer, made(tenant, accepted(task_id="later"))) == ["STORED"]
        values = {"receipt_id": cause, "task_id": "root", "custodian": "bob"}
        for query, names in OLD_QUERIES:
            assert await writer.fetch(query, tenant, *(values[name] for name in names)), query
    finally:
        await writer.close()
    verdict = await verify(old_ledger.auditor)
    assert (verdict.bad, verdict.receipts) == (None, 6)
    tables = ("task", "obligation", "dedupe")
    before = [
        await rows(old_ledger.superuser, f"SELECT * FROM memorygate.{table} ORDER BY 1, 2, 3") for table in tables
    ]
    assert (await verify(old_ledger.superuser, rebuild=True)).bad is None
    assert [
        await rows(old_ledger.superuser, f"SELECT * FROM memorygate.{table} ORDER BY 1, 2, 3") for table in tables
    ] == before
    ledger = await MemoryGateDatabase.connect(old_ledger.writer, size=2, query_timeout=10)
    try:
        assert [receipt.position for receipt in (await ledger.root(tenant, "child")).items] == [1, 2, 3]
        assert len(await ledger.chain_links(tenant, cause, most=100)) == 2
        [custody] = await ledger.custody(tenant, ["child"])
        assert custody.custodian == "svc:asyncgate"
    finally:
        await ledger.close()
    session = await session_of(old_ledger, "asyncgate")
    try:
        body = body_of(tenant, "svc:asyncgate", "obligation", "complete", task_id="child", obligation_id="child")
        assert await session.emit(body) == ["STORED"]
    finally:
        await session.connection.close()
    assert (await verify(old_ledger.auditor)).bad is None


@pytest.mark.invariant("INV-058")
async def test_writers_of_the_release_before_go_on_while_it_is_migrated(old_ledger: LedgerDatabase):
    """Every receipt that was answered with STORED during the migration is there; none waits longer than a statement may."""
    tenant = uuid4()
    stored: list[str] = []
    migrated = asyncio.Event()

    async def write(number: int) -> None:
        connection = await asyncpg.connect(old_ledger.writer)
        try:
            count = 0
            while not migrated.is_set() or count == 0:
                item = made(tenant, accepted(task_id=f"t{number}-{count}"))
                try:
                    assert await old_append(connection, item) == ["STORED"]
                    stored.append(item.receipt_id)
                except (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):
                    pass  # a 503: the emitter sends it again
                count += 1
        finally:
            await connection.close()

    async def bring_up_to_date() -> None:
        try:
            await migrate_ledger(old_ledger.owner)
        finally:
            migrated.set()

    await asyncio.gather(bring_up_to_date(), *(write(number) for number in range(3)))
    result = await rows(old_ledger.superuser, "SELECT receipt_id FROM memorygate.receipt WHERE tenant = $1", tenant)
    assert {receipt_id for (receipt_id,) in result} >= set(stored)
    assert stored
    assert (await verify(old_ledger.auditor)).bad is None


def test_a_released_migration_is_never_edited():
    """The checksums that databases out there have recorded."""
    from legivellum.postgres.migrations import migrations

    released = {
        "0001_ledger": "f70a96941920fa8a43e73b90ea3f798abb3f13ff163d634d6495750bb8b16f5b", "0002_append": "000eef30f019e796443f37b94cc47bc99453485b82975790164942cc64ff08df", "0003_reading": "04ee603262af236cc959a7687322998cbb089d1b9e464c46d554ad5f86623c96", "0004_projections": "3e8256ed04747a84cadcaf2506827c75e99ee3223414be35c73160817fb4c9c3", "0005_inlining": "fa44481235d6f071c4e8281a9a4b4eec7c412096dd83941c928dc9e9b7d5cdae",
        "0006_comparing": "fd42177c2264b6e76b3996ceade9427096a5386c6b37d7bd3bfb6f437a305826",
    }  # fmt: skip
    assert {
        migration.name: migration.checksum for migration in migrations(LEDGER) if migration.name in released
    } == released
