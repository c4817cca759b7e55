"""A lease that is over, another's or none moves nothing, by no verb; whoever has the task now is not touched (§6.2)."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from tests.integration.asyncgate.conftest import TaskDatabase, Tenant, task_of
from tests.integration.asyncgate.gate_fixture import CLAIM, TaskGate, TaskTenant, serving_asyncgate
from tests.integration.memorygate.conftest import new_id, rows

from asyncgate.rebuilding import orphans

VERBS: dict[str, Callable[[Tenant, str, str], Awaitable[Any]]] = {
    "renew": lambda tenant, lease_id, holder: tenant.renew(lease_id, holder),
    "release": lambda tenant, lease_id, holder: tenant.release(lease_id, holder),
    "complete": lambda tenant, lease_id, holder: tenant.complete(lease_id, holder),
    "escalate": lambda tenant, lease_id, holder: tenant.escalate(lease_id, holder=holder),
}
LEASE_COLUMNS = "lease_id, holder, number, issued_by, lease_until, renewals_left"


async def lease_columns(tenant: Tenant) -> list[tuple[Any, ...]]:
    return await rows(tenant.dsn, f"SELECT {LEASE_COLUMNS} FROM asyncgate.task WHERE tenant = $1", tenant.uid)


@pytest.mark.invariant("INV-068", "INV-074", "INV-125")
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "why", ["another holder", "another tenant", "no lease", "leased again", "revoked", "released", "ended"]
)
async def test_who_has_no_live_lease_moves_nothing(tenant: Tenant, verb: str, why: str):
    task = task_of(tenant.uid)
    await tenant.park(task)
    [lease] = await tenant.lease("first")
    lease_id, holder, asking = lease.lease_id, "first", tenant
    if why == "another holder":
        holder = "second"
    elif why == "another tenant":
        asking = Tenant(tenant.database, tenant.dsn)
    elif why == "no lease":
        lease_id = new_id()
    elif why == "leased again":
        await tenant.expire(lease_id)
        assert len(await tenant.lease("second")) == 1
    elif why == "revoked":
        await tenant.database.revoke([tenant.revocation(task.task_id, whole_task=False)])
        assert len(await tenant.lease("second")) == 1
    elif why == "released":
        await tenant.release(lease_id, "first")
        assert len(await tenant.lease("first")) == 1
    else:
        await tenant.database.revoke([tenant.revocation(task.task_id)])
    before, receipts = await lease_columns(tenant), await tenant.receipts()
    assert (await VERBS[verb](asking, lease_id, holder)).name == "LEASE_LOST"
    assert await lease_columns(tenant) == before
    assert await tenant.receipts() == receipts


@pytest.mark.invariant("INV-067", "INV-068")
@pytest.mark.parametrize("verb", VERBS)
async def test_the_holder_who_comes_late_writes_down_the_expiry(tenant: Tenant, verb: str):
    """Past its time a lease is lost even if nobody took the task; the call leaves one `expired`, a second one none."""
    await tenant.park(task_of(tenant.uid))
    [lease] = await tenant.lease()
    await tenant.expire(lease.lease_id)
    assert [(await VERBS[verb](tenant, lease.lease_id, "worker")).name for _ in range(2)] == ["LEASE_LOST"] * 2
    assert await tenant.phases() == ["accepted", "queued", "lease_issued", "expired"]
    [again] = await tenant.lease("second")
    assert again.number == 2


async def test_what_is_written_down_beside_the_pass_is_counted(tenant: Tenant, task_database: TaskDatabase):
    """Once: by the holder who comes late, and where a last lease is given back."""
    served = TaskTenant(task_database, tenant.uid)
    await served.publish()
    box = f"box-{new_id().lower()}"
    async with serving_asyncgate(served, pass_seconds=60) as gate:
        for max_leases in (2, 1, 1):
            await gate.park(capability=box, max_leases=max_leases)
        late, last, released = await gate.leases("worker", box, most=3)
        before = await counted(gate)
        for lease in (late, last):
            await tenant.expire(lease["lease_id"])
            for _ in range(2):
                answer = await gate.post("worker", "/complete", {"lease_id": lease["lease_id"], **CLAIM})
                assert answer.json()["code"] == "LEASE_LOST"
        assert (await gate.post("worker", "/lease/release", {"lease_id": released["lease_id"]})).status_code == 200
        after = await counted(gate)
    assert {name: after[name] - before[name] for name in after} == {"expired": 2, "escalated": 2, "lost": 4}


async def test_an_expiry_is_counted_by_whichever_call_writes_it_down(tenant: Tenant, task_database: TaskDatabase):
    """A renewal that comes too late, a lease that takes over, a revocation of the lease; of the last lease the escalation too."""
    served = TaskTenant(task_database, tenant.uid)
    await served.publish()
    box = f"box-{new_id().lower()}"
    async with serving_asyncgate(served, pass_seconds=60) as gate:
        names = [await gate.park(capability=box, max_leases=max_leases) for max_leases in (9, 9, 9, 1, 1)]
        renewed, revoked, taken, last, live = await gate.leases("worker", box, most=5)
        before = await counted(gate)
        for lease in (renewed, revoked, last):
            await tenant.expire(lease["lease_id"])
        for _ in range(2):
            answer = await gate.post("worker", "/lease/renew", {"lease_id": renewed["lease_id"]})
            assert answer.json()["code"] == "LEASE_LOST"
        assert (await counted(gate))["expired"] - before["expired"] == 1
        for name in (names[1], names[3], names[4]):
            for _ in range(2):
                answer = await gate.post("principal", f"/tasks/{name}/revoke", {"what": "lease"})
                if answer.status_code == 409:
                    assert answer.json()["code"] == "TASK_ENDED"
        assert await gate.tenant.phases(names[1]) == ["accepted", "accepted", "queued", "lease_issued", "expired"]
        assert (await gate.tenant.phases(names[3]))[-2:] == ["expired", "escalate"]
        assert (await gate.tenant.phases(names[4]))[-2:] == ["revoked", "escalate"]
        after = await counted(gate)
        assert {name: after[name] - before[name] for name in ("expired", "escalated")} == {"expired": 3, "escalated": 2}
        assert len(await gate.leases("other", box, most=2)) == 2
        await tenant.expire(taken["lease_id"])
        assert [lease["number"] for lease in await gate.leases("other", box, most=5)] == [2]
        assert (await gate.tenant.phases(taken["task"]["task_id"]))[-3:] == ["expired", "lease_issued", "reassigned"]
        assert (await counted(gate))["expired"] - before["expired"] == 4
        del live


async def counted(gate: TaskGate) -> dict[str, float]:
    series = {
        'asyncgate_leases_total{event="expired"}': "expired",
        'asyncgate_ended_total{how="escalated"}': "escalated",
        'asyncgate_lost_total{verb="complete"}': "lost",
    }
    lines = [line.rpartition(" ") for line in (await gate.client.get("/metrics")).text.splitlines()]
    shown = {series[name]: float(value) for name, _, value in lines if name in series}
    return dict.fromkeys(series.values(), 0.0) | shown


async def test_a_claim_that_comes_twice_expires_nothing(tenant: Tenant):
    """Neither another claim in the same statement nor one after the end: both have lost a lease that did not expire."""
    await tenant.park(task_of(tenant.uid))
    [lease] = await tenant.lease()
    claims = [tenant.claim(lease.lease_id), tenant.claim(lease.lease_id, status="failure")]
    outcomes = await tenant.database.complete(claims) + await tenant.database.complete(claims[1:])
    assert [(outcome.name, outcome.detail) for outcome in outcomes] == [
        ("ENDED", ""),
        ("LEASE_LOST", ""),
        ("LEASE_LOST", ""),
    ]


@pytest.mark.invariant("INV-073", "INV-123")
async def test_the_pass_writes_down_each_expiry_once_and_nothing_when_nothing_is_due(tenant: Tenant):
    await tenant.park(*(task_of(tenant.uid) for _ in range(3)))
    first, second, third = await tenant.lease(most=3)
    await tenant.expire(first.lease_id)
    await tenant.expire(second.lease_id)
    counts = await tenant.keep_books()
    assert counts is not None
    assert (counts.expired, counts.escalated) == (2, 0)
    receipts, tables = await tenant.receipts(), await lease_columns(tenant)
    again = await tenant.keep_books()
    assert again is not None
    assert (again.expired, again.needs_met, again.purged) == (0, 0, 0)
    assert (await tenant.receipts(), await lease_columns(tenant)) == (receipts, tables)
    assert (await tenant.renew(third.lease_id)).name == "RENEWED"


@pytest.mark.invariant("INV-073")
async def test_revoking_a_task_ends_it_for_its_holder_and_for_its_principal(tenant: Tenant):
    task = task_of(tenant.uid)
    await tenant.park(task)
    [lease] = await tenant.lease()
    first, again = [(await tenant.database.revoke([tenant.revocation(task.task_id, reason="no")]))[0] for _ in range(2)]
    assert (first.name, first.value and first.value.lease_ended, again.name) == ("REVOKED", True, "REPLAYED")
    *_, issued, revoked, canceled = await tenant.receipts()
    assert [item["phase"] for item in (issued, revoked, canceled)] == ["lease_issued", "revoked", "complete"]
    assert revoked["body"] == {"by": "alice", "reason": "no", "what": "task"}
    assert (canceled["status"], canceled["caused_by_receipt_id"]) == ("canceled", revoked["receipt_id"])
    assert (await tenant.complete(lease.lease_id)).name == "LEASE_LOST"
    [ended] = await tenant.database.revoke([tenant.revocation(task.task_id, whole_task=False)])
    assert ended.name == "TASK_ENDED"


async def test_revoking_no_lease_ends_none(tenant: Tenant):
    task, returned = task_of(tenant.uid), task_of(tenant.uid)
    await tenant.park(task, returned)
    [outcome] = await tenant.database.revoke([tenant.revocation(task.task_id, whole_task=False)])
    assert (outcome.name, outcome.value and outcome.value.lease_ended) == ("REVOKED", False)
    await tenant.database.revoke([tenant.revocation(task.task_id)])
    [lease] = await tenant.lease()
    await tenant.complete(lease.lease_id)
    outcomes = await tenant.database.revoke([tenant.revocation(returned.task_id), tenant.revocation("nobody")])
    assert [outcome.name for outcome in outcomes] == ["TASK_ENDED", "TASK_NOT_FOUND"]


async def test_what_was_minted_and_never_parked_can_be_revoked(tenant: Tenant):
    """AsyncGate is its custodian, so it can end it; then it can be parked no more, and what needs it goes on."""
    task = task_of(tenant.uid)
    await tenant.mint(task)
    owner = await tenant.database.owner_of(tenant.uid, task.task_id)
    assert owner is not None
    assert (owner.principal_ai, owner.minter, owner.parked) == ("alice", "planner", False)
    waiting = task_of(tenant.uid, needs=(task.task_id,))
    await tenant.park(waiting)
    [outcome] = await tenant.database.revoke([tenant.revocation(task.task_id)])
    assert outcome.name == "REVOKED"
    assert await tenant.phases(task.task_id) == ["revoked", "complete"]
    [late] = await tenant.enqueue(task)
    assert late.name in {"OBLIGATION_ALREADY_TERMINATED", "TASK_CONFLICT"}
    [lease] = await tenant.lease()
    assert lease.task_id == waiting.task_id
    [again] = await tenant.database.revoke([tenant.revocation(task.task_id)])
    assert again.name == "REPLAYED"


async def test_what_was_minted_under_another_name_than_its_task_is_revoked_by_its_own(tenant: Tenant):
    """Of a task that was never parked the obligation is named; one that a task is parked for is ended by its task alone."""
    task = task_of(tenant.uid, obligation_id=new_id())
    await tenant.mint(task)
    listed = [item for item in await orphans(tenant.dsn) if item.tenant == str(tenant.uid)]
    assert [(item.task_id, item.obligation_id) for item in listed] == [(task.task_id, task.obligation_id)]
    [by_task] = await tenant.database.revoke([tenant.revocation(task.task_id)])
    assert by_task.name == "TASK_NOT_FOUND"
    assert await tenant.database.owner_of(tenant.uid, task.task_id) is None
    for name in ("REVOKED", "REPLAYED"):
        owner = await tenant.database.owner_of(tenant.uid, task.obligation_id)
        assert owner is not None
        assert (owner.task_id, owner.principal_ai, owner.minter, owner.parked) == (
            task.task_id,
            "alice",
            "planner",
            False,
        )
        [outcome] = await tenant.database.revoke([tenant.revocation(task.obligation_id)])
        assert outcome.name == name
    assert await tenant.phases(task.task_id) == ["revoked", "complete"]
    parked = task_of(tenant.uid, obligation_id=new_id())
    second = task_of(tenant.uid, parked.task_id, obligation_id=new_id())
    await tenant.park(parked)
    await tenant.mint(second)
    assert await tenant.database.owner_of(tenant.uid, parked.obligation_id) is None
    outcomes = await tenant.database.revoke(
        [
            tenant.revocation(parked.obligation_id),
            tenant.revocation(second.obligation_id),
            tenant.revocation(second.obligation_id),
        ]
    )
    assert [outcome.name for outcome in outcomes] == ["TASK_NOT_FOUND", "REVOKED", "REPLAYED"]
    # The task of the first obligation is still there, and is ended by its own name.
    [ended] = await tenant.database.revoke([tenant.revocation(parked.task_id)])
    assert ended.name == "REVOKED"
    [again] = await tenant.database.revoke([tenant.revocation(parked.obligation_id)])
    assert again.name == "TASK_NOT_FOUND"


async def test_of_two_passes_one_works(tenant: Tenant):
    """The other finds the lock taken and answers nothing."""
    await tenant.park(*(task_of(tenant.uid) for _ in range(8)))
    for lease in await tenant.lease(most=8):
        await tenant.expire(lease.lease_id)
    connection = await asyncpg.connect(tenant.dsn)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(asyncgate.lock_key('the pass'))")
            assert await tenant.keep_books() is None
    finally:
        await connection.close()
    counts = await tenant.keep_books()
    assert counts is not None
    assert counts.expired == 8
