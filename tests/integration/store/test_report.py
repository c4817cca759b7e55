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


async def boot(reader: Reader, principal: Somebody, **kwargs):
    [answer] = await reader.bootstrap([principal.ask(**kwargs)])
    assert answer.outcome is BootstrapOutcome.OPENED
    return answer.startup_id


@pytest.mark.invariant("INV-019", "INV-020")
async def test_reports(database: Database, reader: Reader) -> None:
    """READY is recorded once, repeated with its first moment, and FAILED after it is refused; the first payload stays."""
    principal = somebody()
    await publish(database.publisher, principal)
    startup = await boot(reader, principal)
    [first] = await reader.report([principal.tells(startup, payload='{"build_version": "7"}')])
    [again] = await reader.report([principal.tells(startup, payload='{"build_version": "8"}')])
    [other] = await reader.report([principal.tells(startup, "FAILED", payload='{"error": "x"}')])
    assert (first.outcome, first.status, first.late) == (ReportOutcome.RECORDED, "READY", False)
    assert (again.outcome, again.acknowledged_at) == (ReportOutcome.REPEATED, first.acknowledged_at)
    assert (other.outcome, other.status) == (ReportOutcome.OTHER_STATE, "READY")
    stored = await reader.startup(principal.tenant, startup)
    assert stored is not None
    assert (stored.status, stored.report, stored.acknowledged_at) == (
        "READY",
        {"build_version": "7"},
        first.acknowledged_at,
    )


@pytest.mark.invariant("INV-021")
async def test_only_itself(database: Database, reader: Reader) -> None:
    """Another principal of the tenant is refused, another tenant's cannot tell it from an unknown one, and it stays OPEN."""
    principal = somebody()
    neighbour = somebody("neighbour", tenant=principal.tenant)
    stranger = somebody("stranger")
    await publish(database.publisher, principal, neighbour, stranger)
    startup = await boot(reader, principal)
    answers = await reader.report([neighbour.tells(startup), stranger.tells(startup), stranger.tells(uuid4())])
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.NOT_YOURS, ReportOutcome.UNKNOWN, ReportOutcome.UNKNOWN,
    ]  # fmt: skip
    assert answers[1] == answers[2]
    stored = await reader.startup(principal.tenant, startup)
    assert stored is not None
    assert stored.status == "OPEN"


async def test_whose_pod(database: Database, reader: Reader) -> None:
    """What a pod opened, only that pod reports (D-43); what was opened without one, any credential of the principal."""
    principal = somebody()
    await publish(database.publisher, principal)
    bound, free = await boot(reader, principal, pod=PodRow("a")), await boot(reader, principal)
    answers = await reader.report(
        [
            principal.tells(bound),
            principal.tells(bound, pod=PodRow("b")),
            principal.tells(free, pod=PodRow("b")),
            principal.tells(bound, pod=PodRow("a")),
        ]
    )
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.NOT_THIS_POD, ReportOutcome.NOT_THIS_POD, ReportOutcome.RECORDED, ReportOutcome.RECORDED,
    ]  # fmt: skip


async def test_suspension_and_revocation_bite_at_once(database: Database, reader: Reader) -> None:
    """A report with a credential taken back, or by a suspended principal, changes nothing."""
    principal = somebody()
    await publish(database.publisher, principal)
    startup = await boot(reader, principal)
    principal.suspended = True
    await publish(database.publisher, principal)
    other = somebody("other", tenant=principal.tenant)
    answers = await reader.report([principal.tells(startup), principal.tells(startup, credential=other.credential)])
    assert [answer.outcome for answer in answers] == [ReportOutcome.SUSPENDED, ReportOutcome.CREDENTIAL_REVOKED]
    assert [answer.outcome for answer in await reader.report([other.tells(startup)])] == [
        ReportOutcome.UNKNOWN_PRINCIPAL
    ]


@pytest.mark.invariant("INV-022")
async def test_overdue_is_derived(database: Database, reader: Reader) -> None:
    """After the deadline the view says overdue while the stored row has not changed by a byte; a late READY is marked."""
    principal = somebody(sla_seconds=1)
    await publish(database.publisher, principal)
    startup = await boot(reader, principal)
    connection = await asyncpg.connect(database.superuser)
    read = "SELECT s::text || xmin::text FROM metagate.startup AS s WHERE startup_id = $1"
    await connection.execute(
        "UPDATE metagate.startup SET deadline_at = opened_at + interval '1 ms' WHERE startup_id = $1", startup
    )
    before = await connection.fetchval(read, startup)
    await asyncio.sleep(0.01)
    stored = await reader.startup(principal.tenant, startup)
    listed = await reader.startups(principal.tenant, status="overdue")
    assert stored is not None
    assert (stored.status, stored.overdue, [item.startup_id for item in listed.items]) == ("OPEN", True, [startup])
    assert await connection.fetchval(read, startup) == before
    await connection.close()
    [answer] = await reader.report([principal.tells(startup)])
    assert (answer.outcome, answer.late) == (ReportOutcome.RECORDED, True)
    stored = await reader.startup(principal.tenant, startup)
    assert stored is not None
    assert (stored.overdue, stored.late) == (False, True)


async def test_one_startup_twice_in_a_batch(database: Database, reader: Reader) -> None:
    """The first report of a batch is recorded, its neighbours about the same startup are answered by it."""
    principal = somebody()
    await publish(database.publisher, principal)
    startup = await boot(reader, principal)
    answers = await reader.report(
        [principal.tells(startup, "FAILED"), principal.tells(startup, "READY"), principal.tells(startup, "FAILED")]
    )
    assert [answer.outcome for answer in answers] == [
        ReportOutcome.RECORDED, ReportOutcome.OTHER_STATE, ReportOutcome.REPEATED,
    ]  # fmt: skip
    assert len({answer.acknowledged_at for answer in answers}) == 1


@pytest.mark.invariant("INV-020")
async def test_racing_pairs(database: Database) -> None:
    """Fifty racing READY/FAILED pairs: exactly one of each pair is recorded, the other is told which, one outbox row each."""
    principal = somebody()
    await publish(database.publisher, principal)
    reader = await Reader.connect(database.api, size=16, acquire_timeout=20, query_timeout=20)
    try:
        startups = [answer.startup_id for answer in await reader.bootstrap([principal.ask() for _ in range(50)])]
        answers = await asyncio.gather(
            *(
                reader.report([principal.tells(startup, status, mirror=True)])
                for startup in startups
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
    principal = somebody()
    await publish(database.publisher, principal)
    held, free = await boot(reader, principal), await boot(reader, principal)
    connection = await asyncpg.connect(database.superuser)
    async with connection.transaction():
        await connection.execute("SELECT FROM metagate.startup WHERE startup_id = $1 FOR UPDATE", held)
        answers = await asyncio.wait_for(reader.report([principal.tells(held), principal.tells(free)]), 1)
    await connection.close()
    assert [answer.outcome for answer in answers] == [ReportOutcome.CONTENDED, ReportOutcome.RECORDED]
    assert [answer.outcome for answer in await reader.report([principal.tells(held)])] == [ReportOutcome.RECORDED]


async def test_outbox_follows_the_switch(fresh_database: Database) -> None:
    """Outbox rows are written in the same statement, in order, only while mirroring is on (D-39)."""
    principal = somebody()
    await publish(fresh_database.publisher, principal)
    reader = await Reader.connect(fresh_database.api, size=1)
    try:
        quiet = await boot(reader, principal)
        loud = await boot(reader, principal, mirror=True)
        await reader.report(
            [
                principal.tells(quiet),
                principal.tells(loud, "FAILED", mirror=True),
                principal.tells(loud, "FAILED", mirror=True),
            ]
        )
        state = await reader.state()
    finally:
        await reader.close()
    connection = await asyncpg.connect(fresh_database.superuser)
    rows = await connection.fetch(
        "SELECT event, startup_id, body::jsonb ->> 'principal_key' AS who FROM metagate.outbox ORDER BY seq"
    )
    await connection.close()
    assert [tuple(row) for row in rows] == [("OPEN", loud, principal.name), ("FAILED", loud, principal.name)]
    assert (state.mirror_waiting, state.mirror_lag_seconds >= 0) == (2, True)
