"""A ledger that was touched says where; what is derived can be thrown away and derived again; archives stand by themselves."""

import asyncio
import gzip
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from tests.integration.memorygate.conftest import LedgerDatabase, accepted, complete, escalate, new_id, rows
from typer.testing import CliRunner
from ulid import ULID

from legivellum.receipts.archive_format import ArchiveUnreadable
from legivellum.receipts.receipt import Receipt, examine
from legivellum.receipts.rights import Right
from memorygate.archiving import MonthNotOver, default_partition, export, verify_archive
from memorygate.ledger import Entry, MemoryGateDatabase, Outcome, entry
from memorygate.main import app
from memorygate.schema import migrate_ledger
from memorygate.verifying import verify

TENANT = "00000000-0000-4000-8000-00000000000a"
OTHER = "00000000-0000-4000-8000-00000000000b"


def made(body: dict[str, object], *, tenant: str = TENANT, right: Right = Right.OPEN) -> Entry:
    receipt = examine({"principal_ai": "alice", **body}, tenant=tenant, emitter="alice")
    assert isinstance(receipt, Receipt), receipt
    return entry(receipt, right)


def at(moment: datetime) -> str:
    return str(ULID.from_datetime(moment))


async def fill(database: LedgerDatabase) -> list[str]:
    """A small history: two tenants, trees of tasks, every kind of change, a dedupe key, odd ids. Returns A's ids in order."""
    ledger = await MemoryGateDatabase.connect(database.writer, size=2, query_timeout=10)
    try:
        old = datetime.now(UTC) - timedelta(days=400)
        entries = [
            made(accepted(task_id="root", dedupe_key='k "é', metadata={"deadline_at": "2020-01-01T00:00:00Z"})),
            made(accepted(task_id="child", parent_task_id="root", receipt_id=at(old))),
            made(accepted(task_id="grandchild", parent_task_id="child", body={"n": [1.5, "ü", None]})),
            made(escalate("bob", task_id="child")),
            made(complete(task_id="root", status="failure")),
            made(accepted(task_id="alone")),
            made(complete(task_id="alone")),
            made(accepted(task_id="orphan", parent_task_id="never-seen")),
        ]
        theirs = [made(accepted(task_id=f"t{n}"), tenant=OTHER) for n in range(5)]
        for answers in (
            await ledger.append(entries[:4]),
            await ledger.append(entries[4:]),
            await ledger.append(theirs),
        ):
            assert {answer.outcome for answer in answers} == {Outcome.STORED}
        witness = made({**accepted(task_id="s"), "kind": "startup"}, right=Right.EMIT)
        assert [item.outcome for item in await ledger.append([witness])] == [Outcome.STORED]
    finally:
        await ledger.close()
    return [entry.receipt_id for entry in entries]


async def tamper(database: LedgerDatabase, statement: str, *args: object) -> None:
    """As somebody who owns the server."""
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(statement, *args)
    finally:
        await connection.close()


@pytest.mark.invariant("INV-047")
async def test_an_untouched_ledger_holds(fresh_ledger: LedgerDatabase):
    """Fourteen receipts in their chains, verified by the role that may only read."""
    await fill(fresh_ledger)
    verdict = await verify(fresh_ledger.auditor)
    assert (verdict.bad, verdict.receipts) == (None, 14)


@pytest.mark.invariant("INV-049", "INV-047")
async def test_one_flipped_byte_is_found_and_named(fresh_ledger: LedgerDatabase):
    """In the body, the digest, the chain, the predecessor, the clock, the place, any column: the first bad receipt is named."""
    ids = await fill(fresh_ledger)
    touched = ids[3]
    for change in (
        "body = replace(body, 'somebody', 'sumebody')",
        "body = replace(body, '\"attempt\":0', '\"attempt\": 0')",
        "digest = set_byte(digest, 7, get_byte(digest, 7) # 1)",
        "chain = set_byte(chain, 31, get_byte(chain, 31) # 128)",
        "previous = set_byte(previous, 0, get_byte(previous, 0) # 1)",
        "stored_at = stored_at + interval '1 microsecond'",
        "task_id = 'grandchild'",
        "obligation_id = 'x'",
        "phase = 'complete'",
        "kind = 'admission'",
        "caused_by = 'x'",
        "root_task_id = 'alone2'",
        "position = 77",
    ):
        [kept] = await rows(
            fresh_ledger.superuser, "SELECT r FROM memorygate.receipt AS r WHERE receipt_id = $1", touched
        )
        await tamper(fresh_ledger, f"UPDATE memorygate.receipt SET {change} WHERE receipt_id = '{touched}'")
        bad = (await verify(fresh_ledger.auditor)).bad
        assert bad is not None, change
        assert touched in bad.place or "position" in change or "root_task_id" in change, (change, bad)
        assert bad.tenant == TENANT
        await tamper(fresh_ledger, "DELETE FROM memorygate.receipt WHERE receipt_id = $1", touched)
        await tamper(fresh_ledger, "INSERT INTO memorygate.receipt SELECT ($1::memorygate.receipt).*", kept[0])
        assert (await verify(fresh_ledger.auditor)).bad is None, change


@pytest.mark.invariant("INV-049")
async def test_a_removed_receipt_is_missed(fresh_ledger: LedgerDatabase):
    """From the middle of a chain by its successor, from the end by what is derived."""
    ids = await fill(fresh_ledger)
    await tamper(fresh_ledger, "DELETE FROM memorygate.receipt WHERE receipt_id = $1", ids[2])
    bad = (await verify(fresh_ledger.auditor)).bad
    assert bad is not None
    assert (bad.place, bad.reason) == (f"receipt {ids[3]}", "a receipt before it is missing")


async def test_a_removed_end_is_missed_by_what_is_derived(fresh_ledger: LedgerDatabase):
    """The last receipt of a chain leaves no gap, but its root's head remembers."""
    ids = await fill(fresh_ledger)
    await tamper(fresh_ledger, "DELETE FROM memorygate.receipt WHERE receipt_id = $1", ids[6])
    bad = (await verify(fresh_ledger.auditor)).bad
    assert bad is not None
    assert bad.place == "task alone"


TABLES = {
    "task": "tenant, task_id, root_task_id, length, head",
    "obligation": "tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at, moved_by, custody_at, due_at, closed_by, closed_at",
    "dedupe": "tenant, emitter, dedupe_key, receipt_id, digest, stored_at, position",
}


async def projections(database: LedgerDatabase) -> dict[str, list[tuple[object, ...]]]:
    result = {
        name: await rows(database.superuser, f"SELECT {columns} FROM memorygate.{name} ORDER BY 1, 2, 3")
        for name, columns in TABLES.items()
    }
    result["tally"] = await rows(
        database.superuser,
        "SELECT tenant, sum(receipts), sum(obligations), sum(succeeded), sum(failed), sum(canceled), sum(startups), "
        "sum(startups_ready), sum(startups_failed), max(last_stored_at) FROM memorygate.tally GROUP BY tenant ORDER BY tenant",
    )
    return result


@pytest.mark.invariant("INV-050", "INV-120")
async def test_what_is_derived_can_be_thrown_away_and_derived_again(fresh_ledger: LedgerDatabase):
    """Every projection truncated, then rebuilt: row for row what it was, and the ledger goes on from there."""
    await fill(fresh_ledger)
    before = await projections(fresh_ledger)
    assert all(before.values())
    await tamper(fresh_ledger, "TRUNCATE memorygate.task, memorygate.obligation, memorygate.dedupe, memorygate.tally")
    bad = (await verify(fresh_ledger.auditor)).bad
    assert bad is not None
    assert "--rebuild" in bad.reason
    assert (await verify(fresh_ledger.owner, rebuild=True)).bad is None
    assert await projections(fresh_ledger) == before
    assert (await verify(fresh_ledger.auditor)).bad is None
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        answers = await ledger.append(
            [made(complete(task_id="orphan")), made(accepted(task_id="root", dedupe_key='k "é'))]
        )
    finally:
        await ledger.close()
    assert [answer.outcome for answer in answers] == [Outcome.STORED, Outcome.DEDUPE_CONFLICT]
    assert (await verify(fresh_ledger.auditor)).bad is None


@pytest.mark.invariant("INV-050")
@pytest.mark.parametrize("change", [
    "UPDATE memorygate.obligation SET custodian = 'eve' WHERE obligation_id = 'child'",
    "DELETE FROM memorygate.obligation WHERE obligation_id = 'alone'",
    "UPDATE memorygate.obligation SET state = 'open', closed_by = NULL, closed_at = NULL WHERE obligation_id = 'alone'",
    "UPDATE memorygate.tally SET receipts = receipts + 1",
    "DELETE FROM memorygate.dedupe",
    "INSERT INTO memorygate.task (tenant, task_id, root_task_id) SELECT tenant, 'ghost', 'ghost' FROM memorygate.task LIMIT 1",
])  # fmt: skip
async def test_a_touched_projection_is_found(fresh_ledger: LedgerDatabase, change: str):
    """Somebody else in custody, a closed obligation reopened, a count too high, a ghost: named without touching receipts."""
    await fill(fresh_ledger)
    await tamper(fresh_ledger, change)
    assert (await verify(fresh_ledger.auditor)).bad is not None


@pytest.mark.invariant("INV-054")
async def test_the_ledgers_clock_never_goes_back(fresh_ledger: LedgerDatabase):
    """With the latest receipt an hour in the future (the machine's clock was set back), the next one is later still."""
    await fill(fresh_ledger)
    await tamper(fresh_ledger, "UPDATE memorygate.tally SET last_stored_at = last_stored_at + interval '1 hour'")
    [(latest,)] = await rows(
        fresh_ledger.superuser, "SELECT max(last_stored_at) FROM memorygate.tally WHERE tenant = $1::text::uuid", TENANT
    )
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        times = [
            answer.stored_at for n in range(3) for answer in await ledger.append([made(accepted(task_id=f"later{n}"))])
        ]
    finally:
        await ledger.close()
    assert times == sorted(set(times))
    assert times[0] > latest


async def test_a_month_is_archived_and_checked_without_a_database(fresh_ledger: LedgerDatabase, tmp_path: Path):
    """Export writes finished months only; the file verifies, and a changed or cut file does not."""
    await fill(fresh_ledger)
    await tamper(fresh_ledger, f"""
        CREATE TABLE memorygate.receipt_2020_01 PARTITION OF memorygate.receipt
        FOR VALUES FROM ('{ULID.from_datetime(datetime(2020, 1, 1, tzinfo=UTC)).__str__()[:10]}0000000000000000')
        TO ('{ULID.from_datetime(datetime(2020, 2, 1, tzinfo=UTC)).__str__()[:10]}0000000000000000')""")  # fmt: skip
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        january = [
            made(accepted(task_id=f"j{n}", parent_task_id="root", receipt_id=at(datetime(2020, 1, 5, n, tzinfo=UTC))))
            for n in range(9)
        ]
        await ledger.append(january)
    finally:
        await ledger.close()
    assert await export(fresh_ledger.auditor, tmp_path, before=date(2020, 1, 31)) == []
    [archived] = await export(fresh_ledger.auditor, tmp_path, before=date(2020, 2, 1))
    assert (archived.receipts, archived.path.name) == (9, "receipt_2020_01.jsonl.gz")
    assert verify_archive(archived.path).bad is None
    lines = gzip.decompress(archived.path.read_bytes()).splitlines(keepends=True)
    assert {json.loads(line)["receipt_id"] for line in lines[1:-1]} == {item.receipt_id for item in january}
    runner = CliRunner()
    assert runner.invoke(app, ["verify", "--archive", str(archived.path)]).exit_code == 0
    changed = tmp_path / "changed.jsonl.gz"
    changed.write_bytes(gzip.compress(b"".join([*lines[:4], lines[4].replace(b"alice", b"malice"), *lines[5:]])))
    assert verify_archive(changed).bad is not None
    assert runner.invoke(app, ["verify", "--archive", str(changed)]).exit_code == 1
    changed.write_bytes(gzip.compress(b"".join([*lines[:4], *lines[5:]])))
    assert verify_archive(changed).bad is not None
    for cut in (gzip.compress(b"".join(lines[:-1])), archived.path.read_bytes()[:-20], b"hello"):
        changed.write_bytes(cut)
        with pytest.raises(ArchiveUnreadable):
            verify_archive(changed)


@pytest.mark.invariant("INV-037")
async def test_what_is_not_of_this_time_is_kept_all_the_same(fresh_ledger: LedgerDatabase):
    """ULIDs of 1970 and of the year 10889 are stored, found and verified: they lie in the default partition."""
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        for receipt_id in ("0" * 26, "7" + "Z" * 25):
            [answer] = await ledger.append([made(accepted(task_id=f"t{receipt_id[0]}", receipt_id=receipt_id))])
            assert answer.outcome is Outcome.STORED
            assert await ledger.receipt(UUID(TENANT), receipt_id) is not None
    finally:
        await ledger.close()
    assert (await verify(fresh_ledger.auditor)).receipts == 2
    assert await rows(fresh_ledger.superuser, "SELECT count(*) FROM memorygate.receipt_default") == [(2,)]


async def insert_stored(database: LedgerDatabase, receipt_id: str, stored_at: datetime) -> None:
    """A receipt as `append` would have stored it at another time: the first of its own chain."""
    item = made(accepted(task_id=receipt_id, receipt_id=receipt_id))
    await tamper(
        database,
        """INSERT INTO memorygate.receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id,
                                            body, digest, previous, chain)
           SELECT $1, $2, $3, 'obligation', 'accepted', $2, $2, 1, $2, $4, $5, memorygate.chain_seed($1, $2),
                  memorygate.link(memorygate.chain_seed($1, $2), $5, $2, 1, $3)""",
        UUID(TENANT), receipt_id, stored_at, item.body, item.digest,
    )  # fmt: skip


def exported(directory: Path) -> dict[str, set[str]]:
    """The receipts in each archive; every archive verifies."""
    result = {}
    for path in directory.iterdir():
        assert verify_archive(path).bad is None, path
        lines = gzip.decompress(path.read_bytes()).splitlines()[1:-1]
        result[path.name.removesuffix(".jsonl.gz")] = {json.loads(line)["receipt_id"] for line in lines}
    return result


async def test_every_receipt_is_in_some_archive_after_its_month(fresh_ledger: LedgerDatabase, tmp_path: Path):
    """Ids of 1970, of a month without a partition and of the year 5000; none is archived before its month is over."""
    long_ago, without_partition = "0" * 26, at(datetime(2020, 1, 5, tzinfo=UTC))
    future, last_of_month = (
        at(datetime(5000, 1, 1, tzinfo=UTC)),
        at(datetime(2020, 1, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
    )
    stored_at = {
        long_ago: datetime(2020, 3, 1, tzinfo=UTC),
        without_partition: datetime(2020, 1, 5, tzinfo=UTC),
        last_of_month: datetime(2020, 2, 1, tzinfo=UTC),
        future: datetime(2020, 4, 30, 23, 59, 59, tzinfo=UTC),
    }
    for receipt_id, moment in stored_at.items():
        await insert_stored(fresh_ledger, receipt_id, moment)
    now = at(datetime.now(UTC))
    await insert_stored(fresh_ledger, now, datetime.now(UTC))
    await export(fresh_ledger.auditor, tmp_path, before=date(2020, 4, 30))
    january = {without_partition, last_of_month}
    assert exported(tmp_path) == {"receipt_default_1970_01": {long_ago}, "receipt_default_2020_01": january}
    today = datetime.now(UTC).date()
    await export(fresh_ledger.auditor, tmp_path, before=today)
    assert exported(tmp_path) == {
        "receipt_default_1970_01": {long_ago}, "receipt_default_2020_01": january, "receipt_default_2020_04": {future},
    }  # fmt: skip
    assert str(await default_partition(fresh_ledger.auditor)).startswith(
        "4 receipts lie in the default partition, of months from 1970-01 to 2020-04"
    )
    printed = await asyncio.to_thread(
        CliRunner().invoke,
        app,
        ["export", "--database-url", fresh_ledger.auditor, "--before", str(today), "--directory", str(tmp_path)],
    )
    assert "4 receipts lie in the default partition" in printed.output, printed.output


async def test_a_ledger_that_was_not_migrated_for_a_year_is_archived_whole(
    fresh_ledger: LedgerDatabase, tmp_path: Path
):
    """Without any month's partition: each month is in an archive, and `migrate` afterwards loses none of it."""
    partitions = await rows(
        fresh_ledger.superuser,
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'memorygate.receipt'::regclass AND inhrelid <> 'memorygate.receipt_default'::regclass",
    )
    for (name,) in partitions:
        await tamper(fresh_ledger, f"DROP TABLE {name}")
    months = [datetime(2024, month, 3, tzinfo=UTC) for month in range(1, 13)]
    for moment in months:
        await insert_stored(fresh_ledger, at(moment), moment)
    await migrate_ledger(fresh_ledger.owner)
    await export(fresh_ledger.auditor, tmp_path, before=date(2025, 1, 1))
    assert sorted(exported(tmp_path)) == [f"receipt_default_{moment:%Y_%m}" for moment in months]
    assert sum(len(ids) for ids in exported(tmp_path).values()) == 12


async def test_a_month_that_goes_on_is_not_archived(fresh_ledger: LedgerDatabase, tmp_path: Path):
    """`--before` a day to come is refused, in words and with exit status 2; today is not."""
    today = datetime.now(UTC).date()
    with pytest.raises(MonthNotOver):
        await export(fresh_ledger.auditor, tmp_path, before=today + timedelta(days=1))
    runner = CliRunner()
    arguments = ["export", "--database-url", fresh_ledger.auditor, "--directory", str(tmp_path), "--before"]
    refused = await asyncio.to_thread(runner.invoke, app, [*arguments, "2999-01-01"])
    assert (refused.exit_code, "day to come" in refused.output) == (2, True), refused.output
    assert list(tmp_path.iterdir()) == []
    assert (await asyncio.to_thread(runner.invoke, app, [*arguments, str(today)])).exit_code == 0


async def test_what_verify_found_last_is_kept(fresh_ledger: LedgerDatabase):
    """When, whether it held, and where not; told to the tenant whose receipt is bad and to no other."""
    ids = await fill(fresh_ledger)
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        assert await ledger.last_verification(UUID(TENANT)) is None
        before = datetime.now(UTC)
        await verify(fresh_ledger.auditor)
        first = await ledger.last_verification(UUID(TENANT))
        assert first is not None
        assert (first.held, first.place, first.reason) == (True, None, None)
        assert before <= first.started_at <= first.finished_at
        await tamper(fresh_ledger, f"UPDATE memorygate.receipt SET phase = 'complete' WHERE receipt_id = '{ids[0]}'")
        await verify(fresh_ledger.auditor)
        own, other = [await ledger.last_verification(UUID(tenant)) for tenant in (TENANT, OTHER)]
        assert own is not None
        assert other is not None
        assert (own.held, own.place) == (False, f"receipt {ids[0]}")
        assert (other.held, other.place, other.reason) == (False, None, None)
        await tamper(fresh_ledger, f"UPDATE memorygate.receipt SET phase = 'accepted' WHERE receipt_id = '{ids[0]}'")
        await verify(fresh_ledger.superuser, rebuild=True)
        again = await ledger.last_verification(UUID(TENANT))
        assert again is not None
        assert again.held
    finally:
        await ledger.close()
    assert await rows(fresh_ledger.superuser, "SELECT count(*), bool_and(rebuilt) FROM memorygate.verification") == [
        (1, True)
    ]


async def test_the_auditor_writes_nothing_else(fresh_ledger: LedgerDatabase):
    """What `verify` found is its one row; every table refuses it, whatever its session says."""
    connection = await asyncpg.connect(fresh_ledger.auditor)
    try:
        await connection.execute("SET default_transaction_read_only = off")
        for statement in ("DELETE FROM memorygate.verification", "UPDATE memorygate.receipt SET body = ''"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()


def test_new_ids_are_ulids():
    """The tests' own ids are what the table wants."""
    assert len(new_id()) == 26
