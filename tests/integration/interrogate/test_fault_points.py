"""kill -9 of the gate at each step of a request (§7.4): one receipt or none, no answer without one, one key at the
target, one escalation. Another process of the gate takes the retry, as behind a Service.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.forked_gates import ForkedGate, GateForks, gate_forks
from tests.integration.interrogate.gate_fixture import GateClient, PublishedWorld, Requesting, serving_interrogate
from tests.integration.interrogate.test_forwards import with_targets
from tests.unit.interrogate.hostile_target import TargetServer, hostile_target

from interrogate.replaying import replay
from interrogate.verifying import verify
from memorygate.verifying import verify as verify_ledger

pytestmark = pytest.mark.invariant("INV-108")

SETTINGS: dict[str, Any] = {"target_hosts": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class KilledAndSurviving:
    """The process of the gate that is not killed, its target, and where others are forked."""

    forks: GateForks
    gate: GateClient
    alice: Requesting
    target: TargetServer

    async def receipts(self, root: str) -> dict[str, list[dict[str, Any]]]:
        """Of one root task, by phase."""
        phases: dict[str, list[dict[str, Any]]] = {"accepted": [], "rejected": [], "escalate": []}
        for receipt in await self.gate.receipts(task_id=root):
            phases[receipt["phase"]].append(receipt)
        return phases

    def calls(self, path: str) -> list[str]:
        """The keys that the target was called with."""
        return [headers["idempotency-key"] for _, called, headers, _ in self.target.requests if called == path]

    async def called(self, path: str, times: int) -> None:
        """Wait until the target was called so often."""
        async with asyncio.timeout(20):
            while len(self.calls(path)) < times:
                await asyncio.sleep(0.002)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def survivor(admission_database: AdmissionDatabase) -> AsyncIterator[KilledAndSurviving]:
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    async with gate_forks() as forks, hostile_target() as target, serving_interrogate(world, **SETTINGS) as gate:
        times: dict[str, dict[str, int]] = {"ok": {}, "error": {}, "hang": {"timeoutMs": 1_000}}
        policies = {
            path: with_targets({"name": "worker", "url": target.url(f"/{path}"), **time})
            for path, time in times.items()
        }
        await world.publish(principal, policies=policies)
        alice = await gate.awaited(gate.requesting(principal, profile="hang"))
        yield KilledAndSurviving(forks, gate, alice, target)


async def retried(survivor: KilledAndSurviving, path: str, body: dict[str, Any], *, stored: bool | None) -> None:
    """The same request with the same key at the other process, twice. `stored`: whether it was decided before the kill."""
    root = body["causality"]["root_task_id"]
    before = await survivor.receipts(root)
    assert len(before["accepted"]) == int(stored) if stored is not None else len(before["accepted"]) <= 1
    answer = await survivor.alice.evaluate(body, idempotency_key=root)
    assert answer.status_code == (200 if path == "ok" else 502), answer.text
    assert answer.headers.get("idempotency-replayed") == ("true" if before["accepted"] else None)
    decision = answer.json()
    calls = survivor.calls(f"/{path}")
    again = await survivor.alice.evaluate(body, idempotency_key=root)
    assert again.json() == decision
    assert survivor.calls(f"/{path}") == calls, "what is settled is not called again"
    after = await survivor.receipts(root)
    assert [receipt["receipt_id"] for receipt in after["accepted"]] == [decision["receipt_id"]]
    assert [receipt["receipt_id"] for receipt in after["escalate"]] == (
        [] if path == "ok" else [decision["escalation_receipt_id"]]
    )
    assert 1 <= calls.count(decision["receipt_id"]) <= 2


POINTS = [
    ("before observe", "ok", False),
    ("after observe", "ok", False),
    ("before record", "ok", False),
    ("after record", "ok", True),
    ("after locked observe", "ok", False),
    ("before locked record", "ok", False),
    ("after locked record", "ok", False),
    ("before forward", "ok", True),
    ("after forward", "ok", True),
    ("after forward", "error", True),
    ("before settle", "error", True),
    ("after settle", "ok", True),
    ("after settle", "error", True),
]


@pytest.mark.parametrize(("point", "path", "stored"), POINTS, ids=[f"{point}, {path}" for point, path, _ in POINTS])
async def test_killed_at_a_step(survivor: KilledAndSurviving, point: str, path: str, stored: bool) -> None:
    async with survivor.forks.serving(survivor.gate.world, point, **SETTINGS) as killed:
        alice = replace(survivor.alice, client=killed.gate.client, profile=path)
        body = alice.envelope()
        with pytest.raises(httpx.HTTPError):
            await alice.evaluate(body, idempotency_key=body["causality"]["root_task_id"])
        await killed.ended()
    calls = survivor.calls(f"/{path}")
    await retried(survivor, path, body, stored=stored)
    if point == "after settle":
        assert survivor.calls(f"/{path}") == calls, "it was called by the killed one, and not again"


async def test_killed_while_the_target_works(survivor: KilledAndSurviving) -> None:
    """The target has the request and has not answered: the retry asks again under the same key."""
    async with survivor.forks.serving(survivor.gate.world, **SETTINGS) as killed:
        alice = replace(survivor.alice, client=killed.gate.client, profile="hang")
        body = alice.envelope()
        calls = len(survivor.calls("/hang"))
        request = started_request(alice, body)
        await survivor.called("/hang", calls + 1)
        killed.kill()
        with pytest.raises(httpx.HTTPError):
            await request
    await retried(survivor, "hang", body, stored=True)


async def test_killed_while_a_decision_is_stored(survivor: KilledAndSurviving) -> None:
    """The statement is at the database and has not been answered: it is stored, or it is not."""
    async with (
        survivor.forks.serving(survivor.gate.world, **SETTINGS) as killed,
        lock_of(survivor.gate.world, "root") as lock,
    ):
        alice = replace(survivor.alice, client=killed.gate.client, profile="ok")
        body = alice.envelope()
        await lock.take()
        await killed_at_the_lock(killed, lock, started_request(alice, body))
    await retried(survivor, "ok", body, stored=None)


async def test_killed_while_a_failure_is_stored(survivor: KilledAndSurviving) -> None:
    """The target did not answer, and the statement that says so has not been answered either."""
    async with (
        survivor.forks.serving(survivor.gate.world, **SETTINGS) as killed,
        lock_of(survivor.gate.world, "forward") as lock,
    ):
        alice = replace(survivor.alice, client=killed.gate.client, profile="hang")
        body = alice.envelope()
        calls = len(survivor.calls("/hang"))
        request = started_request(alice, body)
        await survivor.called("/hang", calls + 1)
        await lock.take()
        await killed_at_the_lock(killed, lock, request)
    await retried(survivor, "hang", body, stored=True)


def started_request(alice: Requesting, body: dict[str, Any]) -> "asyncio.Task[httpx.Response]":
    return asyncio.create_task(alice.evaluate(body, idempotency_key=body["causality"]["root_task_id"]))


@dataclass(frozen=True, slots=True)
class TableLock:
    """Lets nobody write into one of InterroGate's tables."""

    table: str
    holder: asyncpg.Connection

    async def take(self) -> None:
        await self.holder.execute(f"BEGIN; LOCK TABLE interrogate.{self.table} IN SHARE MODE")

    async def release(self) -> None:
        await self.holder.execute("ROLLBACK")

    async def until(self, condition: str) -> None:
        """Wait until the gates' sessions are as the condition says."""
        query = f"SELECT {condition} FROM pg_stat_activity WHERE usename = 'interrogate_writer' AND datname = current_database()"
        async with asyncio.timeout(20):
            while not await self.holder.fetchval(query):
                await asyncio.sleep(0.005)


@asynccontextmanager
async def lock_of(world: PublishedWorld, table: str) -> AsyncIterator[TableLock]:
    holder = await asyncpg.connect(world.database.superuser)
    try:
        yield TableLock(table, holder)
    finally:
        await holder.close()


async def killed_at_the_lock(killed: ForkedGate, lock: TableLock, request: "asyncio.Task[httpx.Response]") -> None:
    await lock.until("bool_or(wait_event_type = 'Lock')")
    killed.kill()
    await lock.release()
    with pytest.raises(httpx.HTTPError):
        await request
    # What the killed process had sent comes to its end.
    await lock.until("bool_and(state = 'idle')")


async def test_all_of_it_follows_from_the_receipts(survivor: KilledAndSurviving) -> None:
    """After all those kills: the ledger is whole, the counters are the receipts', every decision is made again."""
    auditor = survivor.gate.world.database.ledger.auditor
    assert (await verify_ledger(auditor)).bad is None
    assert (await verify(auditor)).bad is None
    report = await replay(auditor)
    assert report.mismatches == []
