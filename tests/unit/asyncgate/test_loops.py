"""What AsyncGate does beside the requests goes on after a defect, which is logged with its traceback."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from asyncgate.bookkeeping import Bookkeeping
from asyncgate.database import AsyncGateDatabase
from asyncgate.lease import Lease, LeaseRequest
from asyncgate.long_poll import LongPoll
from legivellum.postgres.errors import Unavailable

NOW = datetime(2027, 1, 1, tzinfo=UTC)
LEASE = Lease("lease", 1, NOW, NOW, 0, NOW, 10, (), "task", 0, "task", "task", "alice", "{}")
FAILURES = pytest.mark.parametrize(
    ("failure", "level"), [(Unavailable(), "warning"), (ValueError("a defect"), "error")], ids=["outage", "defect"]
)


@FAILURES
async def test_the_pass_goes_on(failure: Exception, level: str) -> None:
    """A round that failed is logged; the next one comes."""
    rounds = asyncio.Queue[int]()

    def database() -> AsyncGateDatabase:
        rounds.put_nowait(1)
        raise failure

    bookkeeping = Bookkeeping(database, seconds=0.001, archive_days=30, on_change=lambda: None)
    with capture_logs() as logged:
        async with asyncio.timeout(5), bookkeeping.running():
            for _ in range(3):
                await rounds.get()
    assert {(line["event"], line["log_level"], line["error"]) for line in logged} == {
        ("pass_failed", level, type(failure).__name__)
    }
    assert all(("exc_info" in line) == (level == "error") for line in logged)


@FAILURES
async def test_workers_that_wait_are_asked_for_again(failure: Exception, level: str) -> None:
    """A question that failed is logged; the worker waits on, and the next question has its lease."""
    failures = [failure]

    async def ask(requests: Sequence[LeaseRequest]) -> list[tuple[Lease, ...]]:
        if failures:
            raise failures.pop()
        return [(LEASE,) for _ in requests]

    async def has_left() -> bool:
        return False

    poll = LongPoll(ask, most=8, statement_seconds=1, poll_seconds=0.001)
    leaving = asyncio.create_task(asyncio.sleep(60), name="leave")
    request = LeaseRequest(uuid4(), "worker", ("default",))
    with capture_logs() as logged:
        async with poll.running():
            leases = await poll.wait(request, has_left=has_left, leaving=leaving, seconds=5)
    leaving.cancel()
    assert leases == (LEASE,)
    [line] = logged
    assert (line["event"], line["log_level"]) == ("lease_poll_failed", level)
