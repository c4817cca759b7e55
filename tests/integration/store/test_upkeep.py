"""Partitions, retention and the outbox: best effort, and never in the way of a bootstrap."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import Somebody, publish, somebody

from metagate_store.errors import RowRefused, StoreUnavailable
from metagate_store.maintenance import MaintenanceStore, Purged
from metagate_store.outbox import OutboxStore
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome

HOURS_72 = timedelta(hours=72)


@pytest.fixture
async def maintenance(fresh_database: Database):
    made = MaintenanceStore(fresh_database.publisher)
    yield made
    await made.close()


@pytest.fixture
async def outbox(fresh_database: Database):
    made = await OutboxStore.open(fresh_database.publisher)
    yield made
    await made.close()


@pytest.fixture
async def boots(fresh_database: Database):
    made = await Reader.connect(fresh_database.api, size=2)
    yield made
    await made.close()


async def run(database: Database, *statements: str, dsn: str | None = None) -> list:
    connection = await asyncpg.connect(dsn or database.superuser)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return [tuple(row) for row in await connection.fetch(statements[-1])]
    finally:
        await connection.close()


async def opened(reader: Reader, principal: Somebody, *, mirror: bool = False, key: str | None = None):
    [answer] = await reader.bootstrap([principal.ask(mirror=mirror, idempotency_key=key)])
    assert answer.outcome is BootstrapOutcome.OPENED
    assert answer.startup_id is not None
    return answer.startup_id


def aged(ids, hours: int = 73) -> str:
    listed = ", ".join(f"'{item}'" for item in ids)
    return (
        f"UPDATE metagate.startup SET opened_at = opened_at - interval '{hours} hours' WHERE startup_id IN ({listed})"
    )


async def remaining(database: Database) -> set:
    return {item for [item] in await run(database, "SELECT startup_id FROM metagate.startup")}


@pytest.mark.invariant("INV-037")
async def test_aged_sessions_leave(fresh_database: Database, maintenance: MaintenanceStore, boots: Reader) -> None:
    """Without mirroring aged sessions leave whatever their state; younger ones stay."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    old_open, old_ready, young = [await opened(boots, principal) for _ in range(3)]
    await boots.report([principal.tells(old_ready)])
    await run(fresh_database, aged([old_open, old_ready]), "SELECT")
    assert await maintenance.purge(HOURS_72, mirroring=False) == Purged(2, 0, 0)
    assert await remaining(fresh_database) == {young}


@pytest.mark.invariant("INV-037")
async def test_unmirrored_sessions_stay(
    fresh_database: Database, maintenance: MaintenanceStore, outbox: OutboxStore, boots: Reader
) -> None:
    """With mirroring an aged session stays until its last state is delivered, then leaves, an OPEN one too."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    waiting, delivered = await opened(boots, principal, mirror=True), await opened(boots, principal, mirror=True)
    await boots.report([principal.tells(waiting, mirror=True)])
    await run(fresh_database, aged([waiting, delivered]), "SELECT")
    async with outbox.batch() as batch:
        assert [(row.event, row.startup_id) for row in batch.rows] == [
            ("OPEN", waiting), ("OPEN", delivered), ("READY", waiting),
        ]  # fmt: skip
        batch.delivered.extend(row.seq for row in batch.rows[:2])
    assert await maintenance.purge(HOURS_72, mirroring=True) == Purged(1, 0, 0)
    assert await remaining(fresh_database) == {waiting}
    async with outbox.batch() as batch:
        batch.delivered.extend(row.seq for row in batch.rows)
    assert await maintenance.purge(HOURS_72, mirroring=True) == Purged(1, 0, 0)


async def test_partitions_are_made_and_dropped(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """The coming days get partitions once; a past day's is dropped whole when none of its rows must stay."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    await maintenance.prepare_partitions(2)  # a database that was migrated yesterday lacks one
    assert await maintenance.prepare_partitions(2) == 0
    assert await maintenance.prepare_partitions(4) == 2
    now = await opened(boots, principal)
    [(where,)] = await run(fresh_database, "SELECT tableoid::regclass::text FROM metagate.startup")
    assert where == f"metagate.startup_{datetime.now(UTC):%Y%m%d}"
    past = datetime(2026, 1, 1, tzinfo=UTC)
    insert = (
        "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, "
        "principal_key, component_key, digest) SELECT tenant, (left(metagate.id_at('2026-01-01 12:00Z')::text, 24) || lpad(n::text, 12, '0'))::uuid, "
        "packet_id, '2026-01-01 12:00Z', deadline_at, compiled_at, revision, principal_key, component_key, digest "
        f"FROM metagate.startup, generate_series(1, 10) AS n WHERE startup_id = '{now}'"
    )
    await run(
        fresh_database,
        f"CREATE TABLE metagate.startup_20260101 PARTITION OF metagate.startup FOR VALUES FROM (metagate.id_at('{past}')) "
        f"TO (metagate.id_at('{past + timedelta(days=1)}'))",
        insert,
        "SELECT",
        dsn=fresh_database.owner,
    )
    assert len(await remaining(fresh_database)) == 11
    assert await maintenance.purge(HOURS_72, mirroring=False) == Purged(0, 1, 0)
    assert await remaining(fresh_database) == {now}
    assert await run(fresh_database, "SELECT to_regclass('metagate.startup_20260101') IS NULL") == [(True,)]


async def test_missing_partition_stops_nobody(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """Without today's partition the default one takes the row, which is found, reported and purged like any other (D-39)."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    await maintenance.prepare_partitions(2)  # a database that was migrated yesterday lacks one
    today = f"metagate.startup_{datetime.now(UTC):%Y%m%d}"
    await run(fresh_database, f"DROP TABLE {today}", "SELECT")
    startup = await opened(boots, principal)
    assert await run(fresh_database, "SELECT startup_id FROM metagate.startup_default") == [(startup,)]
    assert await maintenance.prepare_partitions(2) == 0
    assert (await boots.report([principal.tells(startup)]))[0].outcome == "RECORDED"
    await run(fresh_database, aged([startup]), "SELECT")
    assert await maintenance.purge(HOURS_72, mirroring=True) == Purged(1, 0, 0)
    assert await maintenance.prepare_partitions(2) == 1


@pytest.mark.invariant("INV-028")
async def test_upkeep_gives_way(fresh_database: Database, maintenance: MaintenanceStore, boots: Reader) -> None:
    """While somebody reads, dropping a partition gives up at once, and a bootstrap meanwhile is not held up."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    await run(
        fresh_database,
        "CREATE TABLE metagate.startup_20260101 PARTITION OF metagate.startup "
        "FOR VALUES FROM (metagate.id_at('2026-01-01Z')) TO (metagate.id_at('2026-01-02Z'))",
        "SELECT",
        dsn=fresh_database.owner,
    )
    connection = await asyncpg.connect(fresh_database.superuser)
    async with connection.transaction():
        await connection.fetch("SELECT FROM metagate.startup")
        purge = asyncio.create_task(maintenance.purge(HOURS_72, mirroring=False), name="purge")
        await asyncio.sleep(0)
        await asyncio.wait_for(opened(boots, principal), 1)
        assert await asyncio.wait_for(purge, 2) == Purged(0, 0, 0)
    await connection.close()
    assert await maintenance.purge(HOURS_72, mirroring=False) == Purged(0, 1, 0)


async def test_keys_leave(fresh_database: Database, maintenance: MaintenanceStore, boots: Reader) -> None:
    """Idempotency keys leave after 24 hours, or with shorter retentions earlier; in bounded batches."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    for n in range(5):
        await opened(boots, principal, key=f"k{n}")
    await run(
        fresh_database,
        "UPDATE metagate.idempotency SET opened_at = opened_at - interval '25 hours' WHERE key <> 'k0'",
        "SELECT",
    )
    assert await maintenance.purge(HOURS_72, mirroring=False, batch=3) == Purged(0, 0, 3)
    assert await maintenance.purge(HOURS_72, mirroring=False, batch=3) == Purged(0, 0, 1)
    assert await run(fresh_database, "SELECT key FROM metagate.idempotency") == [("k0",)]
    with pytest.raises(RowRefused):
        await maintenance.purge(timedelta(seconds=1), mirroring=False)


async def test_outbox(fresh_database: Database, outbox: OutboxStore, boots: Reader) -> None:
    """Receipts come in order and stay until they are delivered; one that is not due yet holds back its startup's later
    ones only; a refused one is put aside.
    """
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    first, second = await opened(boots, principal, mirror=True), await opened(boots, principal, mirror=True)
    await boots.report([principal.tells(first, mirror=True), principal.tells(second, "FAILED", mirror=True)])
    async with outbox.batch() as batch:
        rows = batch.rows
        assert [(row.event, row.startup_id) for row in rows] == [
            ("OPEN", first), ("OPEN", second), ("READY", first), ("FAILED", second),
        ]  # fmt: skip
        assert rows[0].body["component_key"] == "indexer_1"
        assert rows[2].body["report"] == {"build_version": "1"}
    await run(
        fresh_database,
        f"UPDATE metagate.outbox SET not_before = now() + interval '60 s' WHERE seq = {rows[0].seq}",
        "SELECT",
    )
    async with outbox.batch() as batch:
        assert [row.seq for row in batch.rows] == [rows[1].seq, rows[3].seq]
        batch.refused.append((rows[1].seq, "TENANT_MISMATCH", "no"))
        batch.delivered.append(rows[3].seq)
    async with outbox.batch() as batch:
        assert batch.rows == []
    waiting, lag = await outbox.backlog()
    assert (waiting, lag >= 0) == (2, True)
    assert await outbox.refused() == 1
    assert await run(fresh_database, "SELECT seq, code FROM metagate.outbox_refused") == [
        (rows[1].seq, "TENANT_MISMATCH")
    ]


async def test_the_outbox_comes_back(fresh_database: Database, outbox: OutboxStore) -> None:
    """A relay whose connection was ended opens another."""
    await run(
        fresh_database,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'metagate relay'",
    )
    for _ in range(2):
        with contextlib.suppress(StoreUnavailable):
            await outbox.backlog()
    assert await outbox.backlog() == (0, 0.0)


@pytest.mark.invariant("INV-022")
async def test_overdue_components_are_counted(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """One that never said how it went counts for an hour, once however often it booted; one with a later report does not."""
    late, well = somebody("late"), somebody("well")
    await publish(fresh_database.publisher, late, well)
    first = late.ask()
    await boots.bootstrap([first, late.ask(), well.ask()])
    assert await maintenance.overdue(100) == 0
    await run(fresh_database, "UPDATE metagate.startup SET deadline_at = opened_at", "SELECT 1")
    assert await maintenance.overdue(100) == 2
    again = well.ask()
    await boots.bootstrap([again])
    await boots.report([well.tells(again.startup_id)])
    assert await maintenance.overdue(100) == 1
    await boots.report([late.tells(first.startup_id)])
    assert await maintenance.overdue(100) == 1, (
        "a session that was not opened later says nothing about the one that is overdue"
    )
    last = late.ask()
    await boots.bootstrap([last])
    await boots.report([late.tells(last.startup_id, "FAILED")])
    assert await maintenance.overdue(100) == 0
    await run(
        fresh_database,
        "UPDATE metagate.startup SET status = 'OPEN', acknowledged_at = NULL, late = NULL, report = NULL, "
        "deadline_at = now() - interval '61 minutes'",
        "SELECT 1",
    )
    assert await maintenance.overdue(100) == 0


async def test_counting_the_overdue_is_bounded(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """However many tenants there are, one count looks at so many sessions: each tenant has its share of them."""
    principals = [somebody(f"late-{n}") for n in range(6)]
    await publish(fresh_database.publisher, *principals)
    for principal in principals:
        await boots.bootstrap([principal.ask("a"), principal.ask("b")])
    await run(fresh_database, "UPDATE metagate.startup SET deadline_at = opened_at", "SELECT 1")
    assert await maintenance.overdue(100) == 12
    assert await maintenance.overdue(1) == 6, "the newest of each tenant"
    assert await maintenance.overdue(100, total=6) == 6
    assert await maintenance.overdue(100, total=4) == 4, "more tenants than sessions that may be looked at"


async def stored(database: Database) -> set[str]:
    return {digest for [digest] in await run(database, "SELECT digest FROM metagate.packet")}


async def rebound(database: Database, boots: Reader) -> tuple[Somebody, Somebody]:
    """One principal as it was and as it is now; a session was given its first packet."""
    before = somebody()
    await publish(database.publisher, before)
    await opened(boots, before)
    after = replace(before, body=b'{"capabilities":{"new":true},"services":{}}')
    await publish(database.publisher, after)
    return before, after


def let_go(hours: float) -> str:
    return f"UPDATE metagate.unbound SET since = since - interval '{hours} hours'"


async def test_packets_that_nothing_refers_to_leave(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """A packet leaves once no binding has had it for longer than the retention; one that is bound stays, however old."""
    before, after = await rebound(fresh_database, boots)
    assert await maintenance.purge_packets(HOURS_72) == 0
    await run(
        fresh_database,
        "SET session_replication_role = replica",  # nobody may change a packet
        "UPDATE metagate.packet SET created_at = created_at - interval '80 hours'",
        let_go(71),
        "SELECT",
    )
    assert await maintenance.purge_packets(HOURS_72) == 0
    assert await stored(fresh_database) == {before.digest, after.digest}
    await run(fresh_database, let_go(2), "SELECT")
    assert await maintenance.purge_packets(HOURS_72) == 1
    assert await stored(fresh_database) == {after.digest}
    assert await maintenance.purge_packets(HOURS_72) == 0


async def test_packets_of_sessions_that_are_kept_stay(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """An aged session that stays, because the ledger has not seen it, keeps the packet it was given."""
    before, after = await rebound(fresh_database, boots)
    old = (
        "INSERT INTO metagate.startup (tenant, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, "
        "principal_key, component_key, digest) SELECT tenant, metagate.id_at(now() - interval '81 hours'), packet_id, "
        "opened_at - interval '81 hours', deadline_at, compiled_at, revision, principal_key, component_key, digest "
        "FROM metagate.startup"
    )
    await run(fresh_database, old, let_go(80), "SELECT")
    assert await maintenance.purge_packets(HOURS_72) == 0
    assert await stored(fresh_database) == {before.digest, after.digest}
    assert await maintenance.purge(HOURS_72, mirroring=False) == Purged(1, 0, 0)
    assert await maintenance.purge_packets(HOURS_72) == 1


async def test_packets_are_removed_in_batches(fresh_database: Database, maintenance: MaintenanceStore) -> None:
    """No more than `batch` of them at a time, and every one of them in the end."""
    tenant = uuid4()
    people = [somebody(f"p{n}", tenant=tenant, body=b'{"n":%d}' % n) for n in range(5)]
    await publish(fresh_database.publisher, *people)
    await publish(fresh_database.publisher, *[replace(person, body=people[0].body) for person in people])
    await run(fresh_database, let_go(80), "SELECT")
    assert [await maintenance.purge_packets(HOURS_72, batch=3) for _ in range(3)] == [3, 1, 0]
    assert await stored(fresh_database) == {people[0].digest}


async def test_no_packet_leaves_under_who_is_about_to_bind_it(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """A publication that is being written keeps packets in place; a bootstrap right after it gets what it bound."""
    before, _ = await rebound(fresh_database, boots)
    await run(fresh_database, let_go(80), "SELECT")
    writer = await asyncpg.connect(fresh_database.publisher)
    try:
        async with writer.transaction():
            await writer.execute("SELECT pg_advisory_xact_lock(5570193308531253605)")
            await writer.execute("UPDATE metagate.binding SET digest = $1", before.digest)
            assert await maintenance.purge_packets(HOURS_72) == 0
    finally:
        await writer.close()
    assert await maintenance.purge_packets(HOURS_72) == 0
    [answer] = await boots.bootstrap([before.ask(expected_digest=None)])
    assert (answer.outcome, answer.body) == (BootstrapOutcome.PACKET, before.body)


async def test_a_packet_that_is_leaving_is_published_again(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """Whoever binds a packet in the moment in which it is removed waits for that, and stores it anew."""
    before, after = await rebound(fresh_database, boots)
    await run(fresh_database, let_go(80), "SELECT")
    keeper = await asyncpg.connect(fresh_database.superuser)
    try:
        removal = keeper.transaction()
        await removal.start()
        assert await keeper.fetchval("SELECT metagate.purge_packets('72 hours', 10)") == 1
        # A bootstrap is not held up meanwhile: it reads what is bound.
        [answer] = await boots.bootstrap([after.ask()])
        assert answer.outcome is BootstrapOutcome.OPENED
        publication = asyncio.create_task(publish(fresh_database.publisher, before), name="publish")
        while not await keeper.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
            await asyncio.sleep(0.01)
        assert not publication.done()
        await removal.commit()
        await publication
    finally:
        await keeper.close()
    assert await stored(fresh_database) == {before.digest, after.digest}
    [answer] = await boots.bootstrap([before.ask()])
    assert answer.outcome is BootstrapOutcome.OPENED


async def test_a_replay_finds_its_packet(
    fresh_database: Database, maintenance: MaintenanceStore, boots: Reader
) -> None:
    """D-41: for 24 hours an answer is given again as it was, also when sessions are kept for a shorter time."""
    before = somebody()
    await publish(fresh_database.publisher, before)
    await opened(boots, before, key="once")
    await publish(fresh_database.publisher, replace(before, body=b'{"capabilities":{"new":true},"services":{}}'))
    aging = "UPDATE metagate.idempotency SET opened_at = opened_at - interval '23 hours'"
    await run(fresh_database, let_go(23), aging, "SELECT")
    assert await maintenance.purge_packets(timedelta(hours=1)) == 0
    [answer] = await boots.bootstrap([before.ask(expected_digest=None, idempotency_key="once")])
    assert (answer.outcome, answer.body) == (BootstrapOutcome.REPLAYED, before.body)
