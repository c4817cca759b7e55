"""What befalls one of two database servers: F01 to F12 and F15, as InterroGate's and AsyncGate's rows play them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from tests.faults import signals, table
from tests.faults.database_sides import DatabaseSide, GateTrial

LONG = table.whole()
SIDES = ("ledger", "metagate")
Fault = Callable[[GateTrial, DatabaseSide], Awaitable[None]]


async def wait_out(trial: GateTrial, short: float, long: float) -> None:
    """For as long as the row is played here; then it is about to be lifted."""
    await asyncio.sleep(long if LONG else short)
    trial.lifting()


async def crash(trial: GateTrial, side: DatabaseSide) -> None:
    pid = side.postgres.pid
    signals.kill(signals.family(pid))
    await asyncio.to_thread(signals.wait_for_end, pid)
    await wait_out(trial, 1.5, 3)
    await side.postgres.stop()
    await side.postgres.start()


async def backend_killed(_trial: GateTrial, side: DatabaseSide) -> None:
    signals.kill((await side.backends())[:1])
    async with side.superuser():
        pass  # all backends were restarted


async def terminated(trial: GateTrial, side: DatabaseSide) -> None:
    async with side.superuser() as connection:
        for _ in range(10 if LONG else 2):
            ended = await connection.fetchval(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", side.role
            )
            assert ended > 0
            await wait_out(trial, 0.4, 1)


async def restart(_trial: GateTrial, side: DatabaseSide) -> None:
    await side.postgres.stop()
    await side.postgres.start()


async def frozen(trial: GateTrial, side: DatabaseSide) -> None:
    with signals.stopped(signals.family(side.postgres.pid)):
        await wait_out(trial, 1.2, 10)


async def backend_frozen(trial: GateTrial, side: DatabaseSide) -> None:
    pids = (await side.backends())[:1]
    with signals.stopped(pids):
        await wait_out(trial, 1, 3)
    signals.kill(pids, signal.SIGTERM)


async def blackhole(trial: GateTrial, side: DatabaseSide) -> None:
    side.proxy.blackhole = True
    await wait_out(trial, 1.2, 10)
    side.proxy.blackhole = False


async def resets(trial: GateTrial, side: DatabaseSide) -> None:
    for _ in range(10 if LONG else 4):
        side.proxy.abort()
        await wait_out(trial, 0.3, 0.3)


async def refused(trial: GateTrial, side: DatabaseSide) -> None:
    await side.proxy.refuse()
    await wait_out(trial, 1, 5)
    await side.proxy.start()


async def answers_lost(trial: GateTrial, side: DatabaseSide) -> None:
    before = side.proxy.cuts
    side.proxy.cut = 0.2
    await wait_out(trial, 1.5, 4)
    side.proxy.cut = 0.0
    trial.extra["cut"] = side.proxy.cuts - before
    assert side.proxy.cuts > before


async def drip(trial: GateTrial, side: DatabaseSide) -> None:
    side.proxy.drip = 0.05
    await wait_out(trial, 1.2, 3)
    side.proxy.drip = 0.0
    side.proxy.abort()


async def table_locked(trial: GateTrial, side: DatabaseSide) -> None:
    async with side.superuser() as connection:
        await connection.execute(f"BEGIN; LOCK TABLE {side.table} IN ACCESS EXCLUSIVE MODE")
        await wait_out(trial, 1.2, 3)
        await connection.execute("ROLLBACK")


CLOSED: dict[str, tuple[Fault, bool]] = {
    "F01": (crash, True),
    "F02": (backend_killed, False),
    "F03": (terminated, False),
    "F04": (restart, False),
    "F05": (frozen, True),
    "F06": (backend_frozen, False),
    "F07": (blackhole, True),
    "F08": (resets, False),
    "F09": (refused, True),
    "F11": (answers_lost, False),
    "F12": (drip, True),
    "F15": (table_locked, True),
}
"""The faults, and whether nothing can be stored while the ledger's database has them."""
