"""What each verb stores: state and receipts in one commit, and nothing where it is refused."""

from tests.integration.asyncgate.conftest import Tenant, task_of


async def test_a_task_goes_through_its_life(tenant: Tenant):
    task = task_of(tenant.uid)
    await tenant.park(task)
    [lease] = await tenant.lease()
    assert lease.task == task.document
    ended = await tenant.complete(lease.lease_id)
    assert ended.name == "ENDED", ended
    assert await tenant.phases() == ["accepted", "queued", "lease_issued", "complete"]
