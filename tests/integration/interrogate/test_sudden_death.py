"""Processes and sessions that die at any moment: a decision has one receipt or none, and no answer is without one (§7.4)."""

import asyncio
from collections import Counter
from pathlib import Path

import asyncpg
import pytest
from tests.databases import Server
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, make_admissions
from tests.integration.interrogate.racers import racers
from tests.integration.interrogate.test_replay import begin_roots
from tests.integration.memorygate.conftest import rows

from interrogate.replaying import replay
from interrogate.verifying import verify
from memorygate.verifying import verify as verify_ledger


async def _is_whole(database: AdmissionDatabase) -> int:
    """The ledger, the counters and every decision follow from each other; how many decisions there are."""
    assert (await verify_ledger(database.ledger.auditor)).bad is None
    assert (await verify(database.ledger.auditor)).bad is None
    report = await replay(database.ledger.auditor)
    assert report.mismatches == []
    return report.decisions


async def _receipt_ids(database: AdmissionDatabase) -> Counter[str]:
    return Counter(str(row[0]) for row in await rows(database.superuser, "SELECT receipt_id FROM memorygate.receipt"))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.invariant("INV-108")
async def test_a_killed_process_leaves_whole_decisions_or_none(postgres: Server, tmp_path: Path):
    """kill -9 of four processes in the middle of their batches, three times over: what was answered is in the ledger, once."""
    database = await make_admissions(postgres)
    tree = AdmissionTree()
    roots = await begin_roots(database, tree)
    for turn in range(1, 4):
        folder = tmp_path / str(turn)
        folder.mkdir()
        async with racers(database.writer) as racing:
            race = asyncio.create_task(
                racing.race(
                    "workload",
                    tree,
                    roots=roots,
                    newest=1,
                    batches=10_000,
                    revision=[1] * 4,
                    seed=[turn * 10 + number for number in range(4)],
                    answered=str(folder),
                )
            )
            # Each at another moment of its own work: after its first answers.
            for number, process in enumerate(racing.processes):
                while not any(path.stat().st_size for path in folder.glob(f"{turn * 10 + number}-*")):
                    await asyncio.sleep(0.01)
                process.kill()
            with pytest.raises((AssertionError, ConnectionError)):
                await race
        answered = [line for path in folder.iterdir() for line in path.read_text().splitlines()]
        stored = await _receipt_ids(database)
        # The last line of a killed process may be half of one.
        assert {stored[receipt_id] for receipt_id in answered if len(receipt_id) == 26} == {1}
    assert await _is_whole(database) > 4
    await postgres.drop(database.database)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.invariant("INV-108")
async def test_a_session_that_ends_under_a_batch_loses_nothing_and_doubles_nothing(postgres: Server, tmp_path: Path):
    """Sessions are ended all the time, and their requests are sent again under their receipt ids until they are answered."""
    database = await make_admissions(postgres)
    tree = AdmissionTree()
    roots = await begin_roots(database, tree)
    connection = await asyncpg.connect(database.superuser)
    async with racers(database.writer) as racing:
        race = asyncio.create_task(
            racing.race(
                "workload",
                tree,
                roots=roots,
                newest=1,
                batches=12,
                revision=[1] * 4,
                seed=[1, 2, 3, 4],
                answered=str(tmp_path),
            )
        )
        ended = 0
        while not race.done():
            # Only while it works: one that was ended in its commit, or before it, or after it.
            ended += await connection.fetchval(
                """SELECT count(pg_terminate_backend(pid)) FROM (
                       SELECT pid FROM pg_stat_activity WHERE usename = 'interrogate_writer' AND state = 'active' LIMIT 1) AS s"""
            )
            await asyncio.sleep(0.05)
        outcomes = await race
    await connection.close()
    answered = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    stored = await _receipt_ids(database)
    assert ended > 10
    assert outcomes["unavailable"] > 0
    assert set(stored.values()) == {1}
    assert set(answered) <= set(stored)
    assert await _is_whole(database) >= len(answered)
    await postgres.drop(database.database)
