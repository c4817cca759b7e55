"""The faults of the table that can meet each other: what a random schedule is composed of.

Each takes hold of something (the server, the way to it, a lock, …); a turn never holds two that take hold of the same.
A fault that finds its target gone (somebody else's fault was quicker) is over: that is a composition, too. `heal` ends
whatever a turn may have left behind.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from random import Random

import asyncpg
from tests.faults import signals
from tests.faults.fault_harness import FaultHarness, Trial
from tests.faults.load import at_once
from tests.faults.wire import KeptConnections

GONE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What an injection meets when another one has taken its target away."""

Play = Callable[[FaultHarness, Trial, Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """`row`: of the table. `holds`: what it takes hold of. `breaks`: connections to the gate may break."""

    row: str
    holds: str
    play: Play
    breaks: bool = False


async def crash(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    pid = harness.postgres.pid
    signals.kill(signals.family(pid))
    await asyncio.to_thread(signals.wait_for_end, pid)
    await asyncio.sleep(random.uniform(0, 2))
    await harness.postgres.stop()
    await harness.postgres.start()


async def backend_killed(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    signals.kill((await harness.backends())[: random.randint(1, 2)])
    await asyncio.sleep(1)


async def terminated(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    async with harness.superuser() as connection:
        for _ in range(random.randint(1, 4)):
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'metagate_api'"
            )
            await asyncio.sleep(random.uniform(0.1, 0.8))


async def restart(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    await harness.postgres.stop()
    await asyncio.sleep(random.uniform(0, 1))
    await harness.postgres.start()


async def frozen(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    with signals.stopped(signals.family(harness.postgres.pid)):
        await asyncio.sleep(random.uniform(0.5, 4))


async def backend_frozen(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    pids = (await harness.backends())[:1]
    with signals.stopped(pids):
        await asyncio.sleep(random.uniform(0.5, 3))
    signals.kill(pids, signal.SIGTERM)


async def blackhole(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    harness.proxy.blackhole = True
    await asyncio.sleep(random.uniform(0.5, 4))
    harness.proxy.blackhole = False


async def resets(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    for _ in range(random.randint(3, 10)):
        harness.proxy.abort()
        await asyncio.sleep(random.uniform(0.1, 0.4))


async def refused(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    await harness.proxy.refuse()
    await asyncio.sleep(random.uniform(0.5, 3))
    await harness.proxy.start()


async def latency(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    for _ in range(random.randint(1, 3)):
        harness.proxy.latency = random.choice((5, 25, 50, 100, 250)) / 1_000
        await asyncio.sleep(random.uniform(0.5, 1.5))


async def unheard(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    harness.proxy.cut = random.uniform(0.05, 0.4)
    await asyncio.sleep(random.uniform(1, 4))


async def drip(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    harness.proxy.drip = 0.05
    await asyncio.sleep(random.uniform(0.5, 3))
    harness.proxy.drip = 0.0
    harness.proxy.abort()


async def read_only(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    async with harness.superuser() as connection:
        await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await connection.execute("SELECT pg_reload_conf()")
        await asyncio.sleep(random.uniform(0.5, 3))


async def table_locked(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    table = random.choice(("startup", "idempotency", "binding", "packet"))
    async with harness.superuser() as connection:
        await connection.execute(f"BEGIN; LOCK TABLE metagate.{table} IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(random.uniform(0.5, 3))
        await connection.execute("ROLLBACK")


async def rows_locked(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    async with harness.superuser() as connection:
        await connection.execute(
            "BEGIN; SELECT FROM metagate.startup WHERE status = 'OPEN' FOR UPDATE; SELECT FROM metagate.idempotency FOR UPDATE"
        )
        await asyncio.sleep(random.uniform(0.5, 2))
        await connection.execute("ROLLBACK")


async def slow_inserts(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    async with harness.superuser() as connection:
        await connection.execute(
            "CREATE OR REPLACE FUNCTION public.dawdle() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN PERFORM pg_catalog.pg_sleep(0.3); RETURN NEW; END'; "
            "GRANT EXECUTE ON FUNCTION public.dawdle() TO metagate_owner; "
            "CREATE TRIGGER dawdle BEFORE INSERT ON metagate.startup FOR EACH ROW EXECUTE FUNCTION public.dawdle()"
        )
        await asyncio.sleep(random.uniform(0.5, 3))


async def slots_taken(harness: FaultHarness, _trial: Trial, random: Random) -> None:
    taken: list[asyncpg.Connection] = []
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(harness.database.publisher, timeout=5))
        async with harness.superuser() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'metagate_api'"
            )
        await asyncio.sleep(random.uniform(0.5, 2))
    finally:
        for item in taken:
            item.terminate()


async def herd(_on: FaultHarness, trial: Trial, random: Random) -> None:
    """Everybody of a few nodes starts at once, each by a fresh connection."""
    side = replace(trial.load, line=KeptConnections(*trial.load.line.addresses), keep=False)
    lives = [trial.load.life() for _ in range(random.randint(100, 400))]

    async def boots(at: int) -> None:
        await asyncio.sleep(at / len(lives))
        for attempt in range(20):
            if await side.step(lives[at]):
                return
            await asyncio.sleep(trial.load.pause(attempt))

    await asyncio.gather(*map(boots, range(len(lives))))


async def retry_storm(_on: FaultHarness, trial: Trial, random: Random) -> None:
    trial.load.pause = at_once
    await asyncio.sleep(random.uniform(0.5, 1.5))


async def worker_killed(harness: FaultHarness, _trial: Trial, _random: Random) -> None:
    """The younger one: the older one's memory is what shows after ten minutes whether anything leaks."""
    harness.gate.look()
    if len(workers := sorted(harness.gate.workers, key=lambda one: one.create_time())) > 1:
        signals.kill([workers[-1].pid])
    await asyncio.sleep(1)


REPERTOIRE: dict[str, Fault] = {
    "crash": Fault("F01", "the server", crash),
    "backend killed": Fault("F02", "the server", backend_killed),
    "terminated": Fault("F03", "connections", terminated),
    "restart": Fault("F04", "the server", restart),
    "frozen": Fault("F05", "the server", frozen),
    "backend frozen": Fault("F06", "the server", backend_frozen),
    "blackhole": Fault("F07", "the way", blackhole),
    "resets": Fault("F08", "connections", resets),
    "refused": Fault("F09", "the way", refused),
    "latency": Fault("F10", "the distance", latency),
    "unheard": Fault("F11", "the replies", unheard),
    "drip": Fault("F12", "the way", drip),
    "read only": Fault("F13", "the settings", read_only),
    "table locked": Fault("F15", "a lock", table_locked),
    "rows locked": Fault("F16", "a lock", rows_locked),
    "slow inserts": Fault("F17", "the table", slow_inserts),
    "slots taken": Fault("F20", "the slots", slots_taken),
    "herd": Fault("F23", "the crowd", herd),
    "retry storm": Fault("F24", "the clients", retry_storm),
    "worker killed": Fault("F35", "a worker", worker_killed, breaks=True),
}


async def heal(harness: FaultHarness, trial: Trial, pause: Callable[[int], float]) -> None:
    """As it was: the way is open, the server runs with its own settings, clients are patient."""
    proxy = harness.proxy
    proxy.latency, proxy.cut, proxy.drip, proxy.blackhole = 0.0, 0.0, 0.0, False
    await proxy.listening()
    trial.load.pause = pause
    for attempt in range(3):
        try:
            async with asyncio.timeout(10), harness.superuser() as connection:
                await connection.execute("SET default_transaction_read_only = off")
                await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
                await connection.execute("SELECT pg_reload_conf()")
                await connection.execute("DROP FUNCTION IF EXISTS public.dawdle() CASCADE")
                return
        except GONE:
            if attempt == 2:
                raise
            if not harness.postgres.running:
                await harness.postgres.stop()
                await harness.postgres.start()
            await asyncio.sleep(0.5)
