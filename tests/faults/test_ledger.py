"""L1 to L3: the ledger and the relay go away, slowly or with kill -9, while components boot and MetaGate mirrors them.

What is asked of MetaGate is what every fault asks (one history, one checker). Beside that, each row compares what was
witnessed with what the ledger has in the end: one receipt per startup and phase, none missing, none twice, every
chain whole. The figures of a run are in build/faults/ledger.json.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from tests.faults.fairness import fairly
from tests.faults.fault_harness import HISTORIES, Bounds, FaultHarness, Trial, fault_harness
from tests.faults.history import percentile
from tests.integration.memorygate.conftest import LedgerDatabase, rows
from tests.integration.memorygate.ledger_fixture import (
    LedgerPrincipal,
    LedgerProcess,
    free_port,
    ledger_process,
    ready,
    relay_process,
)
from tests.integration.store.worlds import Somebody, publish

from memorygate.schema import AUDITOR, WRITER, migrate_ledger
from memorygate.verifying import verify
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import Change, TenantRow

pytestmark = [pytest.mark.timeout(400), pytest.mark.invariant("INV-028", "INV-039", "INV-058", "INV-121")]

PASSWORD = "of-the-faults"
Say = Callable[[str, dict[str, object]], None]
Crowd = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Mirroring:
    """A harness whose gate mirrors, the ledger in the same PostgreSQL, and the two processes between them."""

    harness: FaultHarness
    database: LedgerDatabase
    url: str
    ledger: LedgerProcess
    relay: LedgerProcess

    async def up(self) -> None:
        """Both processes run, whatever an earlier trial left behind."""
        for process in (self.ledger, self.relay):
            if process.running is None or process.running.returncode is not None:
                await process.start()
        await ready(self.url)

    async def waiting(self) -> int:
        [(count,)] = await rows(self.database.superuser, "SELECT count(*) FROM metagate.outbox")
        return int(count)

    async def caught_up(self, seconds: float = 120) -> float:
        """How long it took from now."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while await self.waiting():
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def whole(self) -> int:
        """How many receipts there are. Raises AssertionError unless they are exactly what was witnessed, each once."""
        witnessed = await rows(self.database.superuser, "SELECT startup_id::text, status FROM metagate.startup")
        expected = {(startup, "accepted", "NA"): 1 for startup, _ in witnessed}
        ends = {"READY": "success", "FAILED": "failure"}
        expected |= {(startup, "complete", ends[status]): 1 for startup, status in witnessed if status in ends}
        result = await rows(
            self.database.superuser,
            "SELECT task_id, phase, body::jsonb ->> 'status', count(*) FROM memorygate.receipt WHERE kind = 'startup' GROUP BY 1, 2, 3",
        )
        stored = {(task, phase, status or "NA"): count for task, phase, status, count in result}
        assert {key: count for key, count in stored.items() if count != 1} == {}
        assert sorted(expected.keys() - stored.keys()) == []
        assert sorted(stored.keys() - expected.keys()) == []
        assert await rows(self.database.superuser, "SELECT code, detail FROM metagate.outbox_refused") == []
        assert (await verify(self.database.auditor)).bad is None
        return len(stored)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mirroring(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mirroring]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    folder = tmp_path_factory.mktemp("ledger")
    async with fault_harness(METAGATE_LEDGER_URL=url) as harness:
        await migrate_ledger(harness.database.owner, passwords={WRITER: PASSWORD, AUDITOR: PASSWORD})
        place = harness.database.owner.partition("@")[2]
        database = LedgerDatabase(
            harness.database,
            f"postgresql://{WRITER}:{PASSWORD}@{place}",
            f"postgresql://{AUDITOR}:{PASSWORD}@{place}",
        )
        witness = LedgerPrincipal(uuid4(), "metagate", "service", rights=("witness",))
        await declare(harness, witness)
        key = folder / "key"
        key.write_text(witness.key)
        made = Mirroring(
            harness,
            database,
            url,
            ledger_process(database, port, folder / "ledger.log"),
            relay_process(database, url, key, folder / "relay.log"),
        )
        try:
            await made.up()
            yield made
        finally:
            await made.relay.kill()
            await made.ledger.kill()


async def declare(harness: FaultHarness, witness: LedgerPrincipal) -> None:
    publisher = await Publisher.open(harness.database.publisher)
    try:
        await publisher.load()
        created = datetime.now(UTC) - timedelta(days=1)
        tenants = [TenantRow(witness.tenant, "metagate-system", created)]
        await publisher.publish(Change(upserts=witness.rows(), tenants=tenants))
    finally:
        await publisher.close()


@pytest.fixture(scope="module")
def say(request: pytest.FixtureRequest) -> Say:
    """Puts a row's figures on the terminal and into a file."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")
    reports: dict[str, dict[str, object]] = {}

    def add_figures(row: str, figures: dict[str, object]) -> None:
        reports[row] = figures
        path = HISTORIES / "ledger.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(reports, indent=1) + "\n", encoding="utf-8")
        if reporter is not None:
            reporter.write_line(f"\n{row}  " + ", ".join(f"{name} {value}" for name, value in figures.items()))

    return add_figures


def milliseconds(trial: Trial, began: float, ended: float) -> tuple[float, float]:
    """Median and 99th percentile of the bootstraps that were asked for in a part of the trial."""
    took = [c.seconds for c in trial.history.calls if c.operation == "bootstrap" and began <= c.start < ended]
    return round(percentile(took, 0.5) * 1_000, 1), round(percentile(took, 0.99) * 1_000, 1)


def boots(trial: Trial) -> dict[str, object]:
    """Of the calls while the ledger was away or behind: how many, how many were refused, and how long bootstraps took."""
    calls = trial.during("bootstrap", "ready", "failed")
    assert len(calls) > 20
    return {
        "calls meanwhile": len(calls),
        "refused": sum(not call.acked for call in calls),
        "bootstrap p50/p99 before, ms": milliseconds(trial, 0.0, trial.fault_began),
        "meanwhile, ms": milliseconds(trial, trial.fault_began, trial.fault_ended),
    }


@fairly
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.slow)])
async def test_l1_ledger_down(mirroring: Mirroring, say: Say, seconds: int) -> None:
    """The ledger is killed and stays away: every boot and report is answered; once it is back everything arrives, once."""
    await mirroring.up()
    waited = 0

    async def fault(_trial: Trial) -> None:
        nonlocal waited
        await mirroring.ledger.kill()
        await asyncio.sleep(seconds)
        waited = await mirroring.waiting()
        await mirroring.ledger.start()

    trial = await mirroring.harness.trial("L1", fault, bounds=Bounds())
    await ready(mirroring.url)
    took = await mirroring.caught_up()
    assert waited > 10 * seconds
    figures = boots(trial)
    assert figures["refused"] == 0
    say(
        "L1",
        {"down, s": seconds, "receipts that waited": waited, "caught up after, s": round(took, 1),
         "receipts": await mirroring.whole(), "missing": 0, "twice": 0, **figures},
    )  # fmt: skip


@fairly
@pytest.mark.slow
async def test_l2_killed_at_random(mirroring: Mirroring, say: Say) -> None:
    """kill -9 of relay, ledger or both, fifty times at random moments, while components boot: one receipt per startup and phase."""
    await mirroring.up()
    chance = random.Random(50)
    victims = {"relay": 0, "ledger": 0, "both": 0}

    async def fault(_trial: Trial) -> None:
        for _ in range(50):
            await asyncio.sleep(chance.uniform(0.0, 1.2))
            chosen = chance.choices(list(victims), weights=(5, 4, 1))[0]
            victims[chosen] += 1
            killed = {"relay": [mirroring.relay], "ledger": [mirroring.ledger]}.get(
                chosen, [mirroring.relay, mirroring.ledger]
            )
            for process in killed:
                await process.kill()
            for process in killed:
                await process.start()

    trial = await mirroring.harness.trial("L2", fault, bounds=Bounds())
    await ready(mirroring.url)
    took = await mirroring.caught_up()
    figures = boots(trial)
    say(
        "L2",
        {"kills": sum(victims.values()), **victims, "receipts": await mirroring.whole(), "missing": 0, "twice": 0,
         "caught up after, s": round(took, 1), **figures},
    )  # fmt: skip


@pytest_asyncio.fixture(loop_scope="session")
async def crowd(mirroring: Mirroring) -> AsyncIterator[Crowd]:
    """Boots and reports many at once, the way the gate does, without the sockets."""
    principal = Somebody(uuid4(), "crowd")
    await publish(mirroring.harness.database.publisher, principal)
    reader = await Reader.connect(mirroring.harness.database.api, size=2, acquire_timeout=10, query_timeout=10)

    async def boot(count: int) -> None:
        for at in range(0, count, 200):
            asks = [principal.ask(mirror=True) for _ in range(min(200, count - at))]
            assert {item.outcome.value for item in await reader.bootstrap(asks)} == {"OPENED"}
            reports = [principal.tells(ask.startup_id, mirror=True) for ask in asks]
            assert {item.outcome.value for item in await reader.report(reports)} == {"RECORDED"}

    yield boot
    await reader.close()


@fairly
@pytest.mark.parametrize("receipts", [4_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
async def test_l3_a_long_outbox(mirroring: Mirroring, crowd: Crowd, say: Say, receipts: int) -> None:
    """Many receipts waited while the ledger was away: all of them arrive, once, while components go on booting."""
    await mirroring.up()
    await mirroring.ledger.kill()
    await crowd(receipts // 2)
    assert await mirroring.waiting() >= receipts
    took = 0.0

    async def fault(_trial: Trial) -> None:
        nonlocal took
        await mirroring.ledger.start()
        await ready(mirroring.url)
        began = time.monotonic()
        async with asyncio.timeout(240):
            while await mirroring.waiting() > 200:  # what the load adds meanwhile is never quite nothing
                await asyncio.sleep(0.05)
        took = time.monotonic() - began
        await asyncio.sleep(max(0.0, 1.0 - took))

    trial = await mirroring.harness.trial("L3", fault, bounds=Bounds())
    await mirroring.caught_up()
    figures = boots(trial)
    say(
        "L3",
        {"receipts that waited": receipts, "drained in, s": round(took, 1), "a second": round(receipts / max(took, 0.01)),
         "receipts": await mirroring.whole(), "missing": 0, "twice": 0, **figures},
    )  # fmt: skip
