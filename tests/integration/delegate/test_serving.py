"""DeleGate as a process: several workers, small, ready again by itself when what it follows was away."""

import asyncio

import httpx
import psutil
import pytest
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.delegate.test_reading import INTENT, made, read
from tests.integration.memorygate.conftest import new_id

pytestmark = pytest.mark.asyncio(loop_scope="session")

MOST_BYTES = 120 * 1024 * 1024


async def asked_when_it_listens(tenant: PlanTenant) -> httpx.Response | None:
    try:
        return await tenant.ask(None, "GET", "delegate", "/readyz")
    except httpx.ConnectError:
        return None


async def test_two_workers_serve_alike(gates: GateGroup) -> None:
    """A plan that one of them made is read by the other: neither keeps anything. Each stays below 120 MB."""
    tenant = await plan_tenant(gates)
    await gates.stop("delegate")
    await gates.start("delegate", WORKERS="2")
    try:
        # Each worker follows by itself: as many answers in a row as no single one would give alone.
        for _ in range(10):
            await tenant.until(lambda answer: answer.status_code == 200, "principal", "GET", "delegate", "/plans")
        plans = await asyncio.gather(*(made(tenant) for _ in range(6)))
        for plan in plans:
            readings = await asyncio.gather(*(read(tenant, plan["plan_id"]) for _ in range(4)))
            assert readings == [plan] * 4
        workers = [
            child
            for child in psutil.Process(gates.processes["delegate"].pid).children(recursive=True)
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        sizes = [worker.memory_info().rss for worker in workers]
        print("RSS of two workers:", [f"{size // 1024 // 1024} MiB" for size in sizes])
        assert max(sizes) < MOST_BYTES
        metrics = (await tenant.ask(None, "GET", "delegate", "/metrics")).text
        [made_plans] = [
            line for line in metrics.splitlines() if line.startswith('delegate_plans_total{outcome="running"}')
        ]
        assert float(made_plans.split()[-1]) == 6
    finally:
        await gates.stop("delegate")
        await gates.start("delegate")


async def test_it_waits_for_what_it_follows(gates: GateGroup) -> None:
    """Without MetaGate's database it lives and is not ready; what it cannot know it does not answer."""
    tenant = await plan_tenant(gates)
    await gates.stop("delegate")
    nowhere = "postgresql://metagate_identity@127.0.0.1:1/metagate"
    gates.launch("delegate", IDENTITY_DATABASE_URL=nowhere)
    try:
        async with asyncio.timeout(40):
            while (answer := await asked_when_it_listens(tenant)) is None:
                await asyncio.sleep(0.05)
        assert (answer.status_code, answer.json()["code"]) == (503, "NOT_READY")
        assert (await tenant.ask(None, "GET", "delegate", "/livez")).status_code == 200
        answer = await tenant.ask("principal", "POST", "delegate", "/plans", {"intent": INTENT})
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        # An admitted request is answered by the gate's own credential, of which it knows nothing yet either: a refusal
        # would be taken for a verdict, and the admitted plan given up.
        answer = await tenant.ask(
            None, "POST", "delegate", f"/intents/{tenant.namespace}", {}, legivellum_admission=new_id()
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
    finally:
        await gates.stop("delegate")
        await gates.start("delegate")
