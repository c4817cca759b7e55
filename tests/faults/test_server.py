"""F01…F06, F15…F17, F20, F22: the database server killed, ended, stopped, locked and slow under load."""

import asyncio
import contextlib
import os
import signal

import asyncpg
import pytest
from tests.faults import results, signals
from tests.faults.fairness import fairly
from tests.faults.fault_harness import FaultHarness, Trial, fault_harness
from tests.faults.history import percentile

from legivellum.postgres import migrations
from legivellum.postgres.migrations import Migration
from metagate_store.migrating import SCHEMA, migrate

pytestmark = [pytest.mark.timeout(120), pytest.mark.invariant("INV-016", "INV-025", "INV-026")]

LONGER = [3, pytest.param(10, marks=pytest.mark.slow)]


@fairly
async def test_f01_database_crash(shared: FaultHarness) -> None:
    """kill -9 of the server and all its children, back after 3 s: 503 meanwhile, nothing acknowledged is lost."""

    async def fault(_trial: Trial) -> None:
        pid = shared.postgres.pid
        signals.kill(signals.family(pid))
        await asyncio.to_thread(signals.wait_for_end, pid)
        await asyncio.sleep(3)
        await shared.postgres.stop()
        await shared.postgres.start()

    trial = await shared.trial("F01", fault)
    assert {call.status for call in trial.during("bootstrap", after=0.5)} <= {200, 503}
    assert 503 in {call.status for call in trial.during("bootstrap")}


@pytest.mark.slow
async def test_f01_would_notice_a_commit_that_is_not_durable() -> None:
    """The proof of the proof: with `synchronous_commit` off for the gate's role the same crash loses what was acked."""
    async with fault_harness() as harness:
        async with harness.superuser() as connection:
            await connection.execute("ALTER ROLE metagate_api SET synchronous_commit = off")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'metagate_api'"
            )
        try:

            async def fault(_trial: Trial) -> None:
                await asyncio.sleep(1)
                signals.kill(signals.family(harness.postgres.pid))
                await harness.postgres.stop()
                await harness.postgres.start()

            with pytest.raises(AssertionError, match="I1"):
                await harness.trial("F01-not-durable", fault, publishing=False)
        finally:
            results.FOUND.pop("F01-not-durable", None)
            async with harness.superuser() as connection:
                await connection.execute("ALTER ROLE metagate_api SET synchronous_commit = on")


@fairly
async def test_f02_one_backend_killed(shared: FaultHarness) -> None:
    """kill -9 of one backend makes the server restart all of them: a burst of 503, and on."""

    async def fault(_trial: Trial) -> None:
        signals.kill((await shared.backends())[:1])

    await shared.trial("F02", fault)


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.slow)])
@fairly
async def test_f03_connections_terminated(shared: FaultHarness, times: int) -> None:
    """All of the gate's connections are ended every second: at most one error for each of them."""
    ended = 0

    async def fault(_trial: Trial) -> None:
        nonlocal ended
        async with shared.superuser() as connection:
            for _ in range(times):
                ended += await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'metagate_api'"
                )
                await asyncio.sleep(1)

    trial = await shared.trial("F03", fault)
    errors = [call for call in trial.during() if not call.acked]
    trial.add_figures(ended=ended, errors=len(errors))
    assert len(errors) <= ended


@fairly
async def test_f04_planned_restart(shared: FaultHarness) -> None:
    """SIGINT and start: 503 while it is away."""

    async def fault(_trial: Trial) -> None:
        await shared.postgres.stop()
        await shared.postgres.start()

    await shared.trial("F04", fault)


@pytest.mark.parametrize("seconds", LONGER)
@fairly
async def test_f05_database_frozen(shared: FaultHarness, seconds: int) -> None:
    """The server and its backends are stopped dead: everything is answered in time, memory stays flat."""

    async def fault(_trial: Trial) -> None:
        with signals.stopped(signals.family(shared.postgres.pid)):
            await asyncio.sleep(seconds)

    trial = await shared.trial("F05", fault)
    assert {call.status for call in trial.inside("bootstrap", "ready", after=0.6)} == {503}


@fairly
async def test_f06_one_backend_frozen(shared: FaultHarness) -> None:
    """One idle backend is stopped: what it should have carried is late once, and its place in the pool is filled."""

    async def fault(_trial: Trial) -> None:
        pids = (await shared.backends())[:1]
        with signals.stopped(pids):
            await asyncio.sleep(3)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids[0], signal.SIGTERM)

    trial = await shared.trial("F06", fault)
    late = trial.during(after=1.5)
    share = sum(call.acked for call in late) / len(late)
    trial.add_figures(success_beside=round(share, 3))
    assert share >= 0.9


@fairly
async def test_f15_lock_on_the_sessions_table(shared: FaultHarness) -> None:
    """Somebody holds the table for 3 s: bootstraps are 503 in time, and on."""

    async def fault(trial: Trial) -> None:
        async with shared.superuser() as connection:
            await connection.execute("BEGIN; LOCK TABLE metagate.startup IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(3)
            trial.lifting()
            await connection.execute("ROLLBACK")

    trial = await shared.trial("F15", fault)
    inside = trial.inside("bootstrap", after=0.3)
    assert {call.status for call in inside} == {503}


@fairly
async def test_f16_lock_on_one_session(shared: FaultHarness) -> None:
    """Somebody holds one session's row: only its report is refused, everybody else is answered as always."""
    held: list[int] = []
    others: set[str] = set()

    async def fault(trial: Trial) -> None:
        life = trial.load.life()
        await trial.load.step(life)
        async with shared.superuser() as connection:
            await connection.execute("BEGIN")
            await connection.execute(
                "SELECT 1 FROM metagate.startup WHERE startup_id = $1::text::uuid FOR UPDATE", life.startup
            )
            for _ in range(8):
                await trial.load.step(life)
                held.append(trial.load.made[-1].status)
                await asyncio.sleep(0.2)
            await connection.execute("ROLLBACK")
        others.add(life.startup or "")

    trial = await shared.trial("F16", fault)
    rest = [call for call in trial.during() if call.key not in others]
    assert {call.status for call in trial.during("ready", "failed") if call.key in others} == {503}
    share = sum(call.acked for call in rest) / len(rest)
    trial.add_figures(success_beside=round(share, 3))
    assert share >= 0.99


@fairly
async def test_f17_slow_database(shared: FaultHarness) -> None:
    """Each insert takes 300 ms longer: what does not fit is 503; sessions that nobody heard of are found by a retry."""

    async def fault(_trial: Trial) -> None:
        async with shared.superuser() as connection:
            await connection.execute(
                "CREATE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS "
                "'BEGIN PERFORM pg_catalog.pg_sleep(0.3); RETURN NEW; END'; "
                "GRANT EXECUTE ON FUNCTION public.dawdle() TO metagate_owner; "
                "CREATE TRIGGER dawdle BEFORE INSERT ON metagate.startup FOR EACH ROW EXECUTE FUNCTION public.dawdle()"
            )
            await asyncio.sleep(3)
            await connection.execute("DROP TRIGGER dawdle ON metagate.startup; DROP FUNCTION public.dawdle()")

    trial = await shared.trial("F17", fault)
    assert 503 in {call.status for call in trial.during("bootstrap")}


@fairly
async def test_f20_no_connection_to_be_had(shared: FaultHarness) -> None:
    """All slots are taken: the pool goes on with what it has; robbed of that it refuses quickly, and comes back."""
    taken: list[asyncpg.Connection] = []
    robbed = 0.0

    async def fault(trial: Trial) -> None:
        nonlocal robbed
        try:
            with contextlib.suppress(asyncpg.TooManyConnectionsError):
                while True:
                    taken.append(await asyncpg.connect(shared.database.publisher))
            await asyncio.sleep(1.5)
            async with shared.superuser() as connection:  # superusers have slots of their own
                robbed = trial.load.now
                while await connection.fetchval(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'metagate_api'"
                ):
                    # Whoever is quickest gets a slot that became free.
                    requests = [asyncpg.connect(shared.database.publisher) for _ in range(16)]
                    got = await asyncio.gather(*requests, return_exceptions=True)
                    taken.extend(item for item in got if isinstance(item, asyncpg.Connection))
                await asyncio.sleep(1.5)
        finally:
            for item in taken:
                item.terminate()

    trial = await shared.trial("F20", fault)
    before = [call for call in trial.during() if call.end < robbed]
    refused = [call.seconds for call in trial.during() if call.start > robbed + 0.3 and call.status == 503]
    median = percentile(refused, 0.5)
    assert refused
    trial.add_figures(
        success_with_the_pool=sum(call.acked for call in before) / len(before), refused_in=round(median, 3)
    )
    assert all(call.acked for call in before)
    assert median < 0.1


@fairly
async def test_f22_migration_behind_an_open_transaction(shared: FaultHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that must wait for somebody's transaction lets requests pass between its short tries."""
    columns = "ALTER TABLE metagate.startup ADD COLUMN f22 text; ALTER TABLE metagate.startup DROP COLUMN f22"
    later = Migration(9000, "9000_f22", columns)
    wait_until_known = migrations.migrations(SCHEMA)
    monkeypatch.setattr("legivellum.postgres.migrations.migrations", lambda _schema: (*wait_until_known, later))
    waited = []

    async def fault(_trial: Trial) -> None:
        async with shared.superuser() as reading:
            await reading.execute("BEGIN; SELECT count(*) FROM metagate.startup")
            migration = asyncio.create_task(migrate(shared.database.owner))
            await asyncio.sleep(3)
            waited.append(not migration.done())
            await reading.execute("COMMIT")
            await asyncio.wait_for(migration, 10)
            await reading.execute("DELETE FROM metagate.migration WHERE version = 9000")

    trial = await shared.trial("F22", fault)
    assert waited == [True]
    calls = trial.during()
    share = sum(call.acked for call in calls) / len(calls)
    trial.add_figures(success_beside=round(share, 3))
    assert share >= 0.99
