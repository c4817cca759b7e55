"""An empty ledger is filled from records: from what the ledger answered, and from archives of months."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest_asyncio
from tests.databases import Server
from tests.integration.memorygate.conftest import LedgerDatabase, accepted, complete, make_ledger, rows
from tests.integration.memorygate.test_integrity import at, fill, made, projections
from typer.testing import CliRunner, Result

from memorygate.archiving import export
from memorygate.ledger import MemoryGateDatabase, Stored
from memorygate.main import app
from memorygate.rendering import render_receipt
from memorygate.verifying import verify

RECEIPTS = """
SELECT tenant, receipt_id, stored_at, root_task_id, position, kind, phase, caused_by, body, chain, signature
FROM memorygate.receipt ORDER BY tenant, root_task_id, position
"""


@pytest_asyncio.fixture(loop_scope="session")
async def empty_ledger(postgres: Server) -> AsyncIterator[LedgerDatabase]:
    made_ledger = await make_ledger(postgres)
    yield made_ledger
    await postgres.drop(made_ledger.database)


async def imported(database: LedgerDatabase, *files: Path) -> Result:
    arguments = ["import", "--database-url", database.owner, *map(str, files)]
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def answers(database: LedgerDatabase, file: Path) -> Path:
    """The receipts of the ledger as it answers them, one a line, in no order."""
    query = (
        "SELECT receipt_id, stored_at, root_task_id, position, digest, chain, signature, body FROM memorygate.receipt"
    )
    receipts = await rows(database.superuser, f"{query} ORDER BY receipt_id")
    file.write_bytes(b"\n".join(render_receipt(Stored(*receipt)) for receipt in receipts))
    return file


async def test_from_what_the_ledger_answered(
    fresh_ledger: LedgerDatabase, empty_ledger: LedgerDatabase, tmp_path: Path
) -> None:
    """Every row is what it was: ids, times, chains, and what is derived of them. The same again changes nothing."""
    await fill(fresh_ledger)
    file = await answers(fresh_ledger, tmp_path / "receipts.jsonl")
    for _ in range(2):
        done = await imported(empty_ledger, file)
        assert (done.exit_code, done.output) == (0, "the ledger: 14 receipts in 9 chains hold\n")
        assert await rows(empty_ledger.superuser, RECEIPTS) == await rows(fresh_ledger.superuser, RECEIPTS)
        assert await projections(empty_ledger) == await projections(fresh_ledger)
        assert (await verify(empty_ledger.auditor)).bad is None
    ledger = await MemoryGateDatabase.connect(empty_ledger.writer, size=2, query_timeout=10)
    try:
        [answer] = await ledger.append([made(complete(task_id="child", principal_ai="alice"))])
    finally:
        await ledger.close()
    # It is bob's, who was given it: custody is as it was.
    assert answer.outcome == "NOT_CUSTODIAN"


async def test_from_archives(fresh_ledger: LedgerDatabase, empty_ledger: LedgerDatabase, tmp_path: Path) -> None:
    ledger = await MemoryGateDatabase.connect(fresh_ledger.writer, size=2, query_timeout=10)
    try:
        ids = [at(datetime(2020, month, 5, tzinfo=UTC)) for month in (1, 1, 2)]
        tasks = ("a", "b", "c")
        await ledger.append([
            made(accepted(task_id=task, receipt_id=name, parent_task_id=None if task == "a" else "a"))
            for task, name in zip(tasks, ids, strict=True)
        ])  # fmt: skip
    finally:
        await ledger.close()
    files = [archive.path for archive in await export(fresh_ledger.auditor, tmp_path, before=date(2020, 3, 1))]
    assert len(files) == 2
    half = await imported(empty_ledger, files[1])
    assert half.exit_code == 1, half.output
    assert await rows(empty_ledger.superuser, RECEIPTS) == []
    done = await imported(empty_ledger, *files)
    assert done.exit_code == 0, done.output
    assert await rows(empty_ledger.superuser, RECEIPTS) == await rows(fresh_ledger.superuser, RECEIPTS)


async def test_nothing_is_imported_that_does_not_hold(
    fresh_ledger: LedgerDatabase, empty_ledger: LedgerDatabase, tmp_path: Path
) -> None:
    """An altered receipt, one that is missing, no receipt at all; and into a ledger that has others of the tenant."""
    await fill(fresh_ledger)
    file = await answers(fresh_ledger, tmp_path / "receipts.jsonl")
    lines = file.read_text().splitlines()
    receipts = [json.loads(line) for line in lines]
    [child] = [number for number, item in enumerate(receipts) if item["position"] == 2 and item["phase"] == "accepted"]
    altered = [json.dumps({**receipts[child], "task_summary": "else"}), *lines[:child], *lines[child + 1 :]]
    for wrong in (altered, [*lines[:child], *lines[child + 1 :]], ["{}"], ["no receipt"]):
        file.write_text("\n".join(wrong))
        done = await imported(empty_ledger, file)
        assert done.exit_code == 1
        assert await rows(empty_ledger.superuser, RECEIPTS) == []
    file.write_text("\n".join(lines))
    await fill(empty_ledger)
    before = await rows(empty_ledger.superuser, RECEIPTS)
    assert (await imported(empty_ledger, file)).exit_code == 1
    assert await rows(empty_ledger.superuser, RECEIPTS) == before
