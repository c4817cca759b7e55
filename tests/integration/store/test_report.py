"""READY and FAILED: once, by the component itself, and never by a timer."""

import asyncio
from collections import Counter
from uuid import uuid4

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import Somebody, publish, somebody

from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, PodRow, ReportOutcome


async def boot(reader: Reader, who: Somebody, **kwargs):
    [answer] = await reader.bootstrap([who.ask(**kwargs)])
    assert answer.outcome is BootstrapOutcome.OPENED
    return answer.startup_id


@pytest.mark.invariant("INV-019", "INV-020")
async def test_reports(database: Database, reader: Reader) -> None:
    """READY is recorded once, repeated with its first moment, and FAILED after it is refused; the first payload stays."""
    who = somebody()
    await publish(database.publisher, who)
    startup = await boot(reader, who)
    [first] = await reader.report([who.tells(startup, payload='{"build_version": "7"}')])
    [again] = await reader.report([who.tells(startup, payload='{"build_version": "8"}')])
    [other] = await reader.report([who.tells(startup, "FAILED", payload='{"error": "x"}')])
    assert (first.outcome, first.status, first.late) == (ReportOutcome.RECORDED, "READY", False)
    assert (again.outcome, again.acknowledged_at) == (ReportOutcome.REPEATED, first.acknowledged_at)
    assert (other.outcome, other.status) == (ReportOutcome.OTHER_STATE, "READY")
    stored = await reader.startup(who.tenant, startup)
    assert stored is not None
    assert (stored.status, stored.report, stored.acknowledged_at) == (
        "READY",
        {"build_version": "7"},
        first.acknowledged_at,
    )


@pytest.mark.invariant("INV-021")
async def test_only_itself(database: Database, reader: Reader) -> None:
    """Another principal of the tenant is refused, another tenant's cannot tell it from an unknown one, and it stays OPEN."""
    who = somebody()
    neighbour = somebody("neighbour", tenant=who.tenant)
    stranger = somebody("stranger")
    await publish(database.publisher, who, neighbour, stranger)
    startup = await boot(reader, who)
    answers = await reader.report([neighbour.tells(startup), stranger.tells(startup), stranger.tells(uuid4())])
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.NOT_YOURS, ReportOutcome.UNKNOWN, ReportOutcome.UNKNOWN,
    ]  # fmt: skip
    assert answers[1] == answers[2]
    stored = await reader.startup(who.tenant, startup)
    assert stored is not None
    assert stored.status == "OPEN"


async def test_whose_pod(database: Database, reader: Reader) -> None:
    """What a pod opened, only that pod reports (D-43); what was opened without one, any credential of the principal."""
    who = somebody()
    await publish(database.publisher, who)
    bound, free = await boot(reader, who, pod=PodRow("a")), await boot(reader, who)
    answers = await reader.report(
        [
            who.tells(bound),
            who.tells(bound, pod=PodRow("b")),
            who.tells(free, pod=PodRow("b")),
            who.tells(bound, pod=PodRow("a")),
        ]
    )
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.NOT_THIS_POD, ReportOutcome.NOT_THIS_POD, ReportOutcome.RECORDED, ReportOutcome.RECORDED,
    ]  # fmt: skip


async def test_suspension_and_revocation_bite_at_once(database: Database, reader: Reader) -> None:
    """A report with a credential taken back, or by a suspended principal, changes nothing."""
    who = somebody()
    await publish(database.publisher, who)
    startup = await boot(reader, who)
    who.suspended = True
    await publish(database.publisher, who)
    other = somebody("other", tenant=who.tenant)
    answers = await reader.report([who.tells(startup), who.tells(startup, credential=other.credential)])
    assert [answer.outcome for answer in answers] == [ReportOutcome.SUSPENDED, ReportOutcome.CREDENTIAL_REVOKED]
    assert [answer.outcome for answer in await reader.report([other.tells(startup)])] == [
        ReportOutcome.UNKNOWN_PRINCIPAL
    ]


@pytest.mark.invariant("INV-022")
async def test_overdue_is_derived(database: Database, reader: Reader) -> None:
    """After the deadline the view says overdue while the stored row has not changed by a byte; a late READY is marked."""
    who = somebody(sla_seconds=1)
    await publish(database.publisher, who)
    startup = await boot(reader, who)
    connection = await asyncpg.connect(database.superuser)
    read = "SELECT s::text || xmin::text FROM metagate.startup AS s WHERE startup_id = $1"
    await connection.execute(
        "UPDATE metagate.startup SET deadline_at = opened_at + interval '1 ms' WHERE startup_id = $1", startup
    )
    before = await connection.fetchval(read, startup)
    await asyncio.sleep(0.01)
    stored = await reader.startup(who.tenant, startup)
    listed = await reader.startups(who.tenant, status="overdue")
    assert stored is not None
    assert (stored.status, stored.overdue, [one.startup_id for one in listed.items]) == ("OPEN", True, [startup])
    assert await connection.fetchval(read, startup) == before
    await connection.close()
    [answer] = await reader.report([who.tells(startup)])
    assert (answer.outcome, answer.late) == (ReportOutcome.RECORDED, True)
    stored = await reader.startup(who.tenant, startup)
    assert stored is not None
    assert (stored.overdue, stored.late) == (False, True)


async def test_one_startup_twice_in_a_batch(database: Database, reader: Reader) -> None:
    """The first report of a batch is recorded, its neighbours about the same startup are answered by it."""
    who = somebody()
    await publish(database.publisher, who)
    startup = await boot(reader, who)
    answers = await reader.report(
        [who.tells(startup, "FAILED"), who.tells(startup, "READY"), who.tells(startup, "FAILED")]
    )
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.RECORDED, ReportOutcome.OTHER_STATE, ReportOutcome.REPEATED,
    ]  # fmt: skip
    assert len({answer.acknowledged_at for answer in answers}) == 1


@pytest.mark.invariant("INV-020")
async def test_racing_pairs(database: Database) -> None:
    """Fifty racing READY/FAILED pairs: exactly one of each pair is recorded, the other is told which, one outbox row each."""
    who = somebody()
    await publish(database.publisher, who)
    reader = await Reader.connect(database.api, size=16, acquire_timeout=20, query_timeout=20)
    try:
        startups = [answer.startup_id for answer in await reader.bootstrap([who.ask() for _ in range(50)])]
        answers = await asyncio.gather(
            *(
                reader.report([who.tells(one, status, mirror=True)])
                for one in startups
                for status in ("READY", "FAILED")
            )
        )
        outcomes = Counter(answer.outcome for [answer] in answers)
        assert outcomes == {ReportOutcome.RECORDED: 50, ReportOutcome.OTHER_STATE: 50}
        for [ready], [failed] in zip(answers[::2], answers[1::2], strict=True):
            assert (ready.status, ready.acknowledged_at) == (failed.status, failed.acknowledged_at)
    finally:
        await reader.close()
    connection = await asyncpg.connect(database.superuser)
    rows = await connection.fetch(
        "SELECT startup_id, count(*) FROM metagate.outbox WHERE event <> 'OPEN' AND startup_id = ANY ($1) GROUP BY 1",
        startups,
    )
    await connection.close()
    assert sorted(row["count"] for row in rows) == [1] * 50


async def test_locked_row_keeps_nobody_waiting(database: Database, reader: Reader) -> None:
    """A row that somebody holds is CONTENDED after a moment, while its neighbours in the batch are recorded (F16)."""
    who = somebody()
    await publish(database.publisher, who)
    held, free = await boot(reader, who), await boot(reader, who)
    connection = await asyncpg.connect(database.superuser)
    async with connection.transaction():
        await connection.execute("SELECT FROM metagate.startup WHERE startup_id = $1 FOR UPDATE", held)
        answers = await asyncio.wait_for(reader.report([who.tells(held), who.tells(free)]), 1)
    await connection.close()
    assert [answer.outcome for answer in answers] == [ReportOutcome.CONTENDED, ReportOutcome.RECORDED]
    assert [answer.outcome for answer in await reader.report([who.tells(held)])] == [ReportOutcome.RECORDED]


async def test_outbox_follows_the_switch(fresh_database: Database) -> None:
    """Outbox rows are written in the same statement, in order, only while mirroring is on (D-39)."""
    who = somebody()
    await publish(fresh_database.publisher, who)
    reader = await Reader.connect(fresh_database.api, size=1)
    try:
        quiet = await boot(reader, who)
        loud = await boot(reader, who, mirror=True)
        await reader.report(
            [who.tells(quiet), who.tells(loud, "FAILED", mirror=True), who.tells(loud, "FAILED", mirror=True)]
        )
        state = await reader.state()
    finally:
        await reader.close()
    connection = await asyncpg.connect(fresh_database.superuser)
    rows = await connection.fetch(
        "SELECT event, startup_id, body::jsonb ->> 'principal_key' AS who FROM metagate.outbox ORDER BY seq"
    )
    await connection.close()
    assert [tuple(row) for row in rows] == [("OPEN", loud, who.name), ("FAILED", loud, who.name)]
    assert (state.mirror_waiting, state.mirror_lag_seconds >= 0) == (2, True)
