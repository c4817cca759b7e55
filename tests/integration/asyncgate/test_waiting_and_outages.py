"""A thousand workers that wait, most of which leave; and the database away: 503, and nothing happened."""

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio
from pydantic import SecretStr
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import CLAIM, TaskGate, TaskTenant, serving_asyncgate
from tests.integration.memorygate.conftest import new_id, rows
from tests.integration.memorygate.test_outages import Locked

from asyncgate.schema import BROKER

PATIENT = "&options=-c%20lock_timeout%3D20000%20-c%20statement_timeout%3D20000"
"""Longer limits than the role's own, as a setting of a gate."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gate(task_database: TaskDatabase) -> AsyncIterator[TaskGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    # One tenant may have a quarter of the places.
    async with serving_asyncgate(tenant, waiters=4_096) as served:
        yield served


def poll(gate: TaskGate, who: str, capability: str) -> bytes:
    content = json.dumps({"capabilities": [capability], "wait_seconds": 20}).encode()
    [(name, key)] = gate.tenant.principals[who].headers.items()
    head = f"POST /lease HTTP/1.1\r\nHost: x\r\n{name}: {key}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def waiters(gate: TaskGate) -> float:
    lines = (await gate.client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("asyncgate_waiters "))


async def until_waiting(gate: TaskGate, number: int) -> None:
    async with asyncio.timeout(60):
        while await waiters(gate) != number:
            await asyncio.sleep(0.05)


async def test_a_thousand_wait_and_most_leave(gate: TaskGate) -> None:
    """One task comes: one lease, to one that is still there."""
    box = f"box-{new_id().lower()}"
    host, port = gate.url.removeprefix("http://").split(":")
    connections = [await asyncio.open_connection(host, int(port)) for _ in range(1_000)]
    for number, (_, writer) in enumerate(connections):
        writer.write(poll(gate, ("worker", "other", "third")[number % 3], box))
    await until_waiting(gate, 1_000)
    leaving, staying = connections[:-3], connections[-3:]
    for _, writer in leaving:
        writer.close()
    await until_waiting(gate, 3)
    task_id = await gate.park(capability=box)
    first, pending = await asyncio.wait(
        [asyncio.create_task(reader.readuntil(b"\r\n\r\n")) for reader, _ in staying],
        return_when=asyncio.FIRST_COMPLETED,
        timeout=15,
    )
    assert len(first) == 1
    assert (await gate.tenant.phases(task_id)).count("lease_issued") == 1
    for task in pending:
        task.cancel()
    for _, writer in staying:
        writer.close()
    await until_waiting(gate, 0)


async def test_the_database_is_away(gate: TaskGate, task_database: TaskDatabase) -> None:
    """Every verb: 503, in time; no receipt and no lease ended. It comes back: the same calls are answered."""
    box = f"box-{new_id().lower()}"
    task_id = await gate.park(capability=box)
    lease = await gate.lease("worker", box)
    under = {"lease_id": lease["lease_id"]}
    task = gate.task(capability=box)
    await gate.tenant.mint(task["task_id"])
    calls = {
        "/tasks": ("principal", task),
        "/tasks/batch": ("principal", {"items": [{"task": task}]}),
        f"/tasks/{task_id}/revoke": ("principal", {}),
        "/lease": ("other", {"capabilities": [box]}),
        "/lease/renew": ("worker", under),
        "/escalate": ("worker", {**under, "escalation_class": "other", "escalation_reason": "help"}),
        "/lease/release": ("worker", under),
        "/complete": ("worker", {**under, **CLAIM}),
    }
    before = await gate.tenant.phases(task_id)
    async with Locked(task_database.superuser, BROKER):
        for path, (who, body) in calls.items():
            answer = await gate.post(who, path, body)
            assert (path, answer.status_code) == (path, 503), answer.text
        assert (await gate.get("observer", "/queue/depth")).status_code == 503
        waiting = asyncio.create_task(gate.post("third", "/lease", {"capabilities": [box], "wait_seconds": 1}))
        assert (await waiting).status_code == 503
    assert await gate.tenant.phases(task_id) == before
    async with asyncio.timeout(20):
        while (await gate.post("worker", "/lease/renew", under)).status_code == 503:
            await asyncio.sleep(0.05)
    assert (await gate.post("worker", "/complete", calls["/complete"][1])).status_code == 200
    assert (await gate.post("principal", "/tasks", task)).status_code == 201


async def lease_statements(database: TaskDatabase, *, waiting: int, number: int) -> None:
    """Until so many statements of the gate lease, and so many of them wait for a lock."""
    query = """SELECT count(*) FILTER (WHERE wait_event = 'advisory'), count(*) FROM pg_stat_activity
               WHERE usename = $1 AND datname = current_database() AND state = 'active' AND query LIKE '%asyncgate.lease_tasks%'"""
    async with asyncio.timeout(10):
        while (await rows(database.superuser, query, BROKER)) != [(waiting, number)]:
            await asyncio.sleep(0.02)


async def test_a_deadline_of_ten_seconds_is_ten_seconds(task_database: TaskDatabase) -> None:
    """A statement has the time that the request has, not a second: where the role may wait for longer, the gate does."""
    tenant = TaskTenant(task_database)
    await tenant.publish()
    settings = {"deadline_ms": 10_000, "database_url": SecretStr(f"{task_database.broker}{PATIENT}")}
    async with serving_asyncgate(tenant, **settings) as gate:
        task_id = await gate.park(capability="locked")
        other = await gate.park(capability="free")
        waiting = asyncio.create_task(gate.post("third", "/lease", {"capabilities": ["waited"], "wait_seconds": 20}))
        await until_waiting(gate, 1)
        connection = await asyncpg.connect(task_database.superuser)
        try:
            async with connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(asyncgate.lock_key($1))", f"{tenant.uid}llocked")
                leasing = asyncio.create_task(gate.post("worker", "/lease", {"capabilities": ["locked"]}))
                await lease_statements(task_database, waiting=1, number=1)
                # What others ask for, and those that wait, is asked for after it: one such statement of a process at a time.
                freely = asyncio.create_task(gate.post("other", "/lease", {"capabilities": ["free"]}))
                done, _ = await asyncio.wait({leasing, freely}, timeout=1.5)
                assert not done
                await lease_statements(task_database, waiting=1, number=1)
        finally:
            await connection.close()
        leases = [(await answer).json()["leases"] for answer in (leasing, freely)]
        assert [[lease["task"]["task_id"] for lease in issued] for issued in leases] == [[task_id], [other]]
        parked = await gate.park(capability="waited")
        assert [lease["task"]["task_id"] for lease in (await waiting).json()["leases"]] == [parked]


async def test_a_lease_that_lasts_longer_than_its_credential(gate: TaskGate, task_database: TaskDatabase) -> None:
    """Who waits and is suspended meanwhile gets nothing any more."""
    tenant = TaskTenant(task_database)
    await tenant.publish()
    other = await TaskGate(tenant, gate.client, gate.url).until_known()
    box = f"box-{new_id().lower()}"
    waiting = asyncio.create_task(other.post("worker", "/lease", {"capabilities": [box], "wait_seconds": 3}))
    await until_waiting(gate, 1)
    tenant.principals["worker"].suspended = True
    await tenant.publish()
    async with asyncio.timeout(10):
        while (await other.post("worker", "/lease", {"capabilities": [box]})).status_code != 403:
            await asyncio.sleep(0.02)
    task_id = await other.park(capability=box)
    assert (await waiting).json() == {"leases": []}
    assert await tenant.phases(task_id) == ["accepted", "accepted", "queued"]
