"""Needs: a task waits until obligations are closed, and nobody looks how (§4 of the gate's contract)."""

import asyncio
import random

import pytest
from tests.integration.asyncgate.conftest import Tenant, task_of
from tests.integration.memorygate.conftest import new_id

from asyncgate.lease import LeaseRequest
from asyncgate.task import Parking, ParkingBatch


async def test_a_task_waits_for_what_it_needs_and_its_lease_names_the_evidence(tenant: Tenant):
    first, second = task_of(tenant.uid), task_of(tenant.uid)
    waiting = task_of(tenant.uid, needs=(first.task_id, second.task_id))
    await tenant.park(waiting, first, second)
    view = await tenant.database.task(tenant.uid, waiting.task_id)
    assert view is not None
    assert (view.state, set(view.waits_for), view.available_at) == ("held_back", {first.task_id, second.task_id}, None)
    evidence = []
    for lease in await tenant.lease(most=5):
        assert lease.task_id != waiting.task_id
        ended = await tenant.complete(lease.lease_id, status="failure")
        assert ended.value is not None
        evidence.append(ended.value.receipt_id)
    [lease] = await tenant.lease()
    assert (lease.task_id, set(lease.evidence)) == (waiting.task_id, set(evidence))
    issued = [receipt for receipt in await tenant.receipts(waiting.task_id) if receipt["phase"] == "lease_issued"]
    assert issued[0]["body"]["evidence"] == list(lease.evidence)


async def test_what_was_closed_before_is_evidence_at_once(tenant: Tenant):
    await tenant.mint_elsewhere("earlier")
    await tenant.close_elsewhere("earlier")
    task = task_of(tenant.uid, needs=("earlier",))
    [parked] = await tenant.park(task)
    assert parked.waits_for == ()
    [lease] = await tenant.lease()
    assert len(lease.evidence) == 1


async def test_an_escalation_releases_nothing_and_the_person_who_closes_it_does(tenant: Tenant):
    """Once: neither twice nor never, and by the pass, for nobody tells AsyncGate."""
    first = task_of(tenant.uid, escalation_to=("bob",))
    waiting = task_of(tenant.uid, needs=(first.task_id,))
    await tenant.park(first, waiting)
    [lease] = await tenant.lease()
    assert (await tenant.escalate(lease.lease_id, "bob")).name == "ENDED"
    assert await tenant.lease() == ()
    await tenant.keep_books()
    assert await tenant.lease() == ()
    await tenant.close_elsewhere(first.task_id)
    await tenant.keep_books()
    [lease] = await tenant.lease()
    assert (lease.task_id, len(lease.evidence)) == (waiting.task_id, 1)
    assert await tenant.keep_books() is not None
    assert await tenant.lease() == ()


async def test_a_need_that_is_revoked_is_closed(tenant: Tenant):
    first = task_of(tenant.uid)
    waiting = task_of(tenant.uid, needs=(first.task_id,))
    await tenant.park(first, waiting)
    await tenant.database.revoke([tenant.revocation(first.task_id)])
    [lease] = await tenant.lease()
    assert lease.task_id == waiting.task_id


async def test_a_task_that_waits_can_be_revoked_also_in_a_circle(tenant: Tenant):
    one, two = new_id(), new_id()
    circle = task_of(tenant.uid, one, needs=(two,)), task_of(tenant.uid, two, needs=(one,))
    await tenant.park(*circle)
    assert await tenant.lease() == ()
    [revoked] = await tenant.database.revoke([tenant.revocation(one)])
    assert revoked.name == "REVOKED"
    [lease] = await tenant.lease()
    assert lease.task_id == two


async def test_at_most_1024_wait_for_one(tenant: Tenant):
    await tenant.mint_elsewhere("crowd")
    tasks = [task_of(tenant.uid, needs=("crowd",)) for _ in range(1030)]
    await tenant.mint(*tasks)
    names: list[str] = []
    for start in range(0, 1030, 206):
        names += [outcome.name for outcome in await tenant.enqueue(*tasks[start : start + 206])]
    assert names == ["PARKED"] * 1024 + ["TOO_MANY_WAIT"] * 6
    await tenant.close_elsewhere("crowd")
    await tenant.keep_books()
    leases = [lease for _ in range(33) for lease in await tenant.lease(most=32)]
    assert len(leases) == 1024


@pytest.mark.slow
async def test_a_chain_and_a_fan_parked_in_any_order_end_and_none_begins_early(tenant: Tenant):
    """200 in a chain and 64 on its first: each is leased after all that it needs has ended."""
    randomness = random.Random(20270017)
    chain = [
        task_of(
            tenant.uid,
            f"chain-{number:03}-{tenant.uid}",
            needs=() if number == 0 else (f"chain-{number - 1:03}-{tenant.uid}",),
        )
        for number in range(200)
    ]
    fan = [task_of(tenant.uid, needs=(chain[0].task_id,)) for _ in range(64)]
    tasks = [*chain, *fan]
    await tenant.mint(*tasks)
    randomness.shuffle(tasks)
    for start in range(0, len(tasks), 44):
        assert {outcome.name for outcome in await tenant.enqueue(*tasks[start : start + 44])} == {"PARKED"}
    needs = {task.task_id: task.needs for task in tasks}
    ended: set[str] = set()
    while leases := await tenant.lease(most=32):
        for lease in leases:
            assert set(needs[lease.task_id]) <= ended
        outcomes = await tenant.database.complete([tenant.claim(lease.lease_id) for lease in leases])
        assert {outcome.name for outcome in outcomes} == {"ENDED"}
        ended |= {lease.task_id for lease in leases}
    assert ended == set(needs)


async def test_a_race_of_parking_against_completing_leaves_none_asleep(tenant: Tenant):
    """100 times: the need is closed before the look, or the parked task is woken; without the pass."""
    for _ in range(100):
        first = task_of(tenant.uid)
        waiting = task_of(tenant.uid, needs=(first.task_id,))
        await tenant.park(first)
        await tenant.mint(waiting)
        [lease] = await tenant.lease()
        parking = tenant.database.enqueue([ParkingBatch((Parking(waiting, "planner"),))])
        [[parked]], ended = await asyncio.gather(parking, tenant.complete(lease.lease_id))
        assert (parked.name, ended.name) == ("PARKED", "ENDED")
        [[lease]] = await tenant.database.lease([LeaseRequest(tenant.uid, "worker", ("default",))])
        assert lease.task_id == waiting.task_id
        assert (await tenant.complete(lease.lease_id)).name == "ENDED"
