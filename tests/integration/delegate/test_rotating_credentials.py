"""The credential of a tenant's delegate is rotated while plans are made: nobody notices."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.delegate.test_reading import INTENT, made
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal

from legivellum.identity.api_keys import digest_of
from metagate_store.publisher import Publisher
from metagate_store.rows import Change

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROTATIONS = 2
CALLERS = 3


@dataclass
class Load:
    """Callers that make a plan and read it, again and again."""

    tenant: PlanTenant
    answers: Counter[str] = field(default_factory=Counter)
    running: bool = True

    async def call(self) -> None:
        while self.running:
            answer = await self.tenant.ask("principal", "POST", "delegate", "/plans", {"intent": INTENT})
            self.answers[f"POST {answer.status_code} {answer.json().get('detail', '')}"] += 1
            if answer.status_code == 202:
                answer = await self.tenant.ask("observer", "GET", "delegate", f"/plans/{answer.json()['plan_id']}")
                self.answers[f"GET {answer.status_code} {answer.json().get('detail', '')}"] += 1

    async def go_round(self) -> None:
        """Until every request that was under way has been answered, and more."""
        enough = self.answers.total() + 3 * CALLERS
        async with asyncio.timeout(60):
            while self.answers.total() < enough:
                await asyncio.sleep(0.01)


async def withdraw(tenant: PlanTenant, key: str) -> None:
    publisher = await Publisher.open(tenant.gates.database.database.publisher)
    try:
        await publisher.load()
        await publisher.publish(Change(tenants=(), upserts={}, deletes={"api_key": [[digest_of(key)]]}))
    finally:
        await publisher.close()


async def test_nobody_notices_that_a_key_is_rotated(gates: GateGroup) -> None:
    """A new key is declared and known, the file is swapped, the old key is withdrawn: each answer is as without it."""
    tenant = await plan_tenant(gates)
    load = Load(tenant)
    async with asyncio.TaskGroup() as group:
        for _ in range(CALLERS):
            group.create_task(load.call())
        for _ in range(ROTATIONS):
            old = tenant.principals["delegate"]
            tenant.principals["delegate"] = LedgerPrincipal(tenant.uid, "delegate", "delegate", uid=old.uid)
            await tenant.publish()
            await tenant.until_known()
            tenant.serve()
            await load.go_round()
            await withdraw(tenant, old.key)
            await load.go_round()
        load.running = False
    assert set(load.answers) == {"POST 202 ", "GET 200 "}
    assert load.answers["POST 202 "] > ROTATIONS * CALLERS


async def test_a_withdrawn_key_ends_it_at_once(gates: GateGroup) -> None:
    """Within one look at what MetaGate publishes: nobody is served with a key that stands for nobody."""
    tenant = await plan_tenant(gates)
    plan = await made(tenant)
    await withdraw(tenant, tenant.principals["delegate"].key)
    answer = await tenant.until(
        lambda answer: answer.status_code == 403, "principal", "GET", "delegate", f"/plans/{plan['plan_id']}"
    )
    assert answer.json()["code"] == "TENANT_NOT_SERVED"
    assert tenant.principals["delegate"].key not in gates.log("delegate")
