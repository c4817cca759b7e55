"""What AsyncGate holds can be derived from receipts alone (INV-120), and what was minted for it and never parked is listed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, task_of
from tests.integration.memorygate.conftest import rows

from asyncgate.rebuilding import orphans, rebuild

SAME = (
    "task_id, obligation_id, principal_ai, capability, minter, root_task_id, depth, authority, escalation_to, document, not_before, "
    "ttl_seconds, max_ttl_seconds, max_renewals, max_lifetime_seconds, max_leases, accepted_by, accepted_at, waits, evidence, cause, "
    "number, last_holder, lease_id, holder, issued_by"
)


async def state(tenant: Tenant) -> list[tuple[Any, ...]]:
    tasks = await rows(tenant.dsn, f"SELECT {SAME} FROM asyncgate.task WHERE tenant = $1 ORDER BY task_id", tenant.uid)
    needs = await rows(
        tenant.dsn,
        "SELECT obligation_id, task_id, elsewhere FROM asyncgate.need WHERE tenant = $1 ORDER BY 1, 2",
        tenant.uid,
    )
    line = await rows(
        tenant.dsn,
        "SELECT task_id FROM asyncgate.task WHERE tenant = $1 AND lease_id IS NULL AND waits = 0 ORDER BY available_at, seq", tenant.uid,
    )  # fmt: skip
    return [*tasks, *needs, *line]


@pytest.mark.invariant("INV-120")
async def test_a_rebuild_from_the_receipts_gives_the_same_tasks(tenant: Tenant, task_database: TaskDatabase):
    """Waiting, held back by time and by needs here and elsewhere, leased, released, expired, taken over, escalated and ended ones."""
    await tenant.mint_elsewhere("elsewhere", "closed")
    await tenant.close_elsewhere("closed")
    plain = [task_of(tenant.uid, authority='{"spawn":{"max":1}}' if number % 2 else None) for number in range(12)]
    await tenant.park(*plain)
    held = [
        task_of(tenant.uid, not_before=datetime.now(UTC) + timedelta(hours=1)),
        task_of(tenant.uid, needs=(plain[0].task_id, "elsewhere", "closed")),
        task_of(tenant.uid, needs=(plain[1].task_id,)), task_of(tenant.uid, needs=(plain[2].task_id,)),
        task_of(tenant.uid, parent_task_id=plain[3].task_id),
    ]  # fmt: skip
    await tenant.park(*held)
    leases = await tenant.lease("first", most=8)
    await tenant.complete(leases[1].lease_id, "first")
    await tenant.escalate(leases[2].lease_id, "alice", "first")
    await tenant.release(leases[3].lease_id, "first")
    for lease in leases[4:6]:
        await tenant.expire(lease.lease_id)
    await tenant.renew(leases[6].lease_id, "first")
    await tenant.keep_books()
    await tenant.database.revoke(
        [tenant.revocation(plain[7].task_id, whole_task=False), tenant.revocation(plain[11].task_id)]
    )
    await tenant.lease("second", most=2)
    before = await state(tenant)
    report = await rebuild(task_database.superuser)
    assert (report.tasks > 10, report.leased > 2, report.needs >= 3) == (True, True, True)
    assert await state(tenant) == before
    # It goes on from there: a lease that was live is, and a task that is sent again is known.
    assert (await tenant.complete(leases[0].lease_id, "first")).name == "ENDED"
    [again] = await tenant.enqueue(plain[8])
    assert again.name == "REPLAYED"


async def test_what_was_minted_and_never_parked_is_listed(tenant: Tenant, task_database: TaskDatabase):
    parked, orphan = task_of(tenant.uid), task_of(tenant.uid)
    await tenant.park(parked)
    await tenant.mint(orphan)
    listed = [item.task_id for item in await orphans(task_database.ledger.auditor) if item.tenant == str(tenant.uid)]
    assert listed == [orphan.task_id]
