"""Nobody asks for anything: gates call nobody, and write nothing but the end of a lease whose time is over (INV-123).

With tasks that wait, are held back and leased, a plan that is held, and a plan that nobody closes. WHOLE_IDLE_SECONDS says
how long; `make test-idle` takes ten minutes.
"""

import asyncio
import os
from collections.abc import Mapping

import asyncpg
import pytest
from tests.integration.delegate.driving import asked, lease_next
from tests.integration.delegate.gate_fixture import PlanTenant
from tests.integration.whole.watched_gates import WatchedGates

IDLE_SECONDS = float(os.environ.get("WHOLE_IDLE_SECONDS", "6"))  # noqa: TID251 - of the Makefile

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.invariant("INV-123", "INV-084"),
    pytest.mark.timeout(120 + 2 * IDLE_SECONDS),
]

EXPIRY = "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_id = $1"
OTHERS_EXPIRY = "UPDATE asyncgate.task SET lease_until = clock_timestamp() - interval '1 second' WHERE lease_id <> $1"
WRITTEN_BY_AN_EXPIRY = {"asyncgate.task", "memorygate.task", "memorygate.tally"}
"""Beside the partition in which its receipt is stored."""


def step(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "capability": f"idle.{name}", "job": {"instruction": "Work."}, **more}


async def checksums(dsn: str) -> Mapping[str, str]:
    """Of all rows of each table of every schema."""
    connection = await asyncpg.connect(dsn)
    try:
        names = await connection.fetch(
            "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY 1"
        )
        query = "SELECT md5(coalesce(string_agg(t::text, ',' ORDER BY t::text), '')) FROM {} AS t"
        return {row["name"]: await connection.fetchval(query.format(row["name"])) for row in names}
    finally:
        await connection.close()


async def waiting(tenant: PlanTenant) -> str:
    """Work that nobody goes on with; the id of a lease that lives longer than the test."""
    steps = [step("waits"), step("needs", dependsOn=["waits"]), step("leased")]
    await asked(tenant, {"intent": {"draft": {"escalation": [], "steps": steps}}})
    body = {"capabilities": ["idle.leased"], "ttl_seconds": 900}
    answer = await tenant.ask("worker", "POST", "asyncgate", "/lease", body)
    [lease] = answer.json()["leases"]
    return str(lease["lease_id"])


async def end_leases_but(lease_id: str, dsn: str) -> None:
    """Those that tests before this one have left: one of them could expire while nothing may be written."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(OTHERS_EXPIRY, lease_id)
        async with asyncio.timeout(20):
            while await connection.fetchval("SELECT count(*) FROM asyncgate.task WHERE lease_id IS NOT NULL") != 1:
                await asyncio.sleep(0.05)
    finally:
        await connection.close()


async def test_idle_gates_call_nobody_and_write_nothing(watched: WatchedGates) -> None:
    """No connection but to the database, no row changed; then a lease ends, and its end alone is written down."""
    tenant = await watched.tenant()
    lease_id = await waiting(tenant)
    await end_leases_but(lease_id, watched.superuser)
    before, opened = await checksums(watched.superuser), watched.connections()
    await asyncio.sleep(IDLE_SECONDS)
    assert await checksums(watched.superuser) == before
    assert watched.connections() == opened
    connection = await asyncpg.connect(watched.superuser)
    try:
        assert await connection.execute(EXPIRY, lease_id) == "UPDATE 1"
    finally:
        await connection.close()
    async with asyncio.timeout(20):
        while not (ended := await tenant.receipts(phase="expired")):
            await asyncio.sleep(0.05)
    assert len(ended) == 1
    after = await checksums(watched.superuser)
    changed = {name for name in after if after[name] != before[name]}
    assert {name for name in changed if not name.startswith("memorygate.receipt")} == WRITTEN_BY_AN_EXPIRY
    assert watched.connections() == opened
    again = await lease_next(tenant, "idle.leased")
    assert again["number"] == 2
