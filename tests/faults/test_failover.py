"""F13, F14: the primary becomes read-only, and is lost; a standby takes its place."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace

import pytest
from tests.faults.fairness import fairly
from tests.faults.fault_harness import SETTINGS, Bounds, FaultHarness, Trial, fault_harness
from tests.faults.gate import through
from tests.faults.proxy import Proxy
from tests.integration.api.processes import free_port
from tests.standby import kill_server, promote, streaming_standby

from metagate_postgres import EmbeddedPostgres

pytestmark = [pytest.mark.timeout(150), pytest.mark.invariant("INV-016", "INV-025")]


@fairly
async def test_f13_read_only(shared: FaultHarness) -> None:
    """What becomes a replica refuses to write for 3 s: 503, and no packet without its receipt."""

    async def fault(trial: Trial) -> None:
        async with shared.superuser() as connection:
            await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await connection.execute("SELECT pg_reload_conf()")
            await asyncio.sleep(3)
            trial.lifting()
            await connection.execute("SET default_transaction_read_only = off")
            await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await connection.execute("SELECT pg_reload_conf()")

    trial = await shared.trial("F13", fault)
    inside = trial.inside("bootstrap", after=0.3)
    assert {call.status for call in inside} == {503}


@fairly
async def test_f13_synchronous_standby_promoted() -> None:
    """The primary is killed under load, its synchronous standby promoted: nothing acknowledged is lost."""
    async with fault_harness() as harness, standby(harness, synchronous=True) as (other, _between):
        trial = await harness.trial("F13", lambda _trial: fail_over(harness, other))
        assert trial.figures.lost == 0


@fairly
async def test_f14_asynchronous_standby_promoted() -> None:
    """A standby that lags is promoted: the tail it never got is lost, and counted; everything else holds."""
    async with fault_harness() as harness, standby(harness, synchronous=False) as (other, between):

        async def fault(_trial: Trial) -> None:
            between.blackhole = True
            await asyncio.sleep(1)
            await fail_over(harness, other)

        trial = await harness.trial("F14", fault, bounds=Bounds(lost=True), publishing=False)
        trial.add_figures(lost=0, lost_tail=trial.figures.lost)
        began = trial.fault_began
        gone = {session.startup_id for session in trial.history.stored}
        for call in trial.history.calls:
            if call.operation == "bootstrap" and call.acked and call.end < began - 0.2:
                assert call.answer["startup_id"] in gone, "lost, although the standby had it"


@asynccontextmanager
async def standby(harness: FaultHarness, *, synchronous: bool) -> AsyncIterator[tuple[EmbeddedPostgres, Proxy]]:
    """A streaming standby of the harness's server, and the proxy through which it streams."""
    primary = harness.postgres.embedded
    async with streaming_standby(primary, port=free_port(), synchronous=synchronous, settings=SETTINGS) as streaming:
        yield streaming


async def fail_over(harness: FaultHarness, other: EmbeddedPostgres) -> None:
    """kill -9 of the primary, promote, and lead everybody to the new one."""
    await kill_server(harness.postgres.embedded)
    await promote(other)
    moved = {
        field.name: through(getattr(harness.database, field.name), other.port)
        for field in fields(harness.database)
        if field.name != "name"
    }
    harness.database = replace(harness.database, **moved)
    harness.proxy.target = ("127.0.0.1", other.port)
    harness.proxy.abort()
