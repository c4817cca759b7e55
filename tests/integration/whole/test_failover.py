"""The primary of the gates' database is killed while stories run, and its standby is promoted.

With a synchronous standby nothing that was acknowledged is lost; with an asynchronous one the tail that it never
received is, and no more than that. In both every story ends once, and the chains of the ledger hold.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import envelope
from tests.integration.delegate.gate_fixture import PlanTenant, plan_tenant
from tests.integration.delegate.test_with_workers import TEMPLATE, deposited, end_of, joined, working
from tests.integration.memorygate.conftest import new_id
from tests.integration.whole.two_nodes import TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

HANDLERS = {"document.summarise": joined, "document.merge": joined}
STEPS = ("read-0", "read-1", "merge", "close")
RECEIPTS = "SELECT receipt_id FROM memorygate.receipt"
ARTIFACTS = "SELECT format('depot:%s:%s', artifact_id, encode(sha256, 'hex')) FROM depotgate.artifact"


@dataclass
class Clients:
    """Clients that repeat a request until it is acknowledged, and what was acknowledged to them."""

    tenant: PlanTenant
    receipts: list[str] = field(default_factory=list)
    pointers: list[str] = field(default_factory=list)
    plans: list[str] = field(default_factory=list)
    refusals: Counter[int] = field(default_factory=Counter)
    """Statuses of what was not acknowledged; 0: no answer."""

    async def acknowledged(self, request: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
        async with asyncio.timeout(60):
            while True:
                try:
                    answer = await request()
                except httpx.TransportError:
                    self.refusals[0] += 1
                else:
                    if answer.is_success:
                        return answer
                    self.refusals[answer.status_code] += 1
                await asyncio.sleep(0.05)

    async def receipt(self) -> None:
        """One obligation of the principal with itself."""
        body = receipt_body()
        await self.acknowledged(lambda: self.tenant.ask("principal", "POST", "memorygate", "/receipts", body))
        self.receipts.append(body["receipt_id"])

    async def deposit(self) -> None:
        content = new_id().encode()
        path = "/artifacts?role=input"
        answer = await self.acknowledged(
            lambda: self.tenant.ask("principal", "POST", "depotgate", path, content, content_type="text/plain")
        )
        self.pointers.append(answer.json()["pointer"])

    async def story(self, documents: list[str], plan_id: str = "") -> str:
        """A plan of three steps that InterroGate admitted and DeleGate took."""
        plan_id = plan_id or new_id()
        body = envelope(self.tenant, "document.review", {"documents": documents}, plan_id)

        async def admitted() -> httpx.Response:
            answer = await self.tenant.ask("principal", "POST", "interrogate", "/v1/evaluate", body)
            forwards = answer.json().get("forwards", [])
            taken = [forward for forward in forwards if forward["status"] == 202]
            return answer if taken else httpx.Response(503 if answer.is_success else answer.status_code)

        await self.acknowledged(admitted)
        self.plans.append(plan_id)
        return plan_id


def receipt_body() -> dict[str, Any]:
    return {
        "receipt_id": new_id(), "task_id": new_id(), "phase": "accepted", "principal_ai": "principal",
        "recipient_ai": "principal", "task_summary": "during a failover",
    }  # fmt: skip


async def repeated(action: Callable[[], Awaitable[object]], stop: asyncio.Event) -> None:
    while not stop.is_set():
        await action()


async def ended_once(tenant: PlanTenant, plan_id: str) -> None:
    """The story has all of its ends, each once: planning, the plan, its steps and its close."""
    await end_of(tenant, f"{plan_id}.close", seconds=60)
    tasks = {plan_id, *(f"{plan_id}.{step}" for step in STEPS)}
    receipts = [receipt for receipt in await tenant.receipts() if receipt["task_id"] in tasks]
    ends = Counter(
        receipt["obligation_id"]
        for receipt in receipts
        if (receipt["kind"], receipt["phase"]) == ("obligation", "complete")
    )
    assert ends == Counter([f"{plan_id}:planning", plan_id, *(f"{plan_id}.{step}" for step in STEPS)])
    [end] = [receipt for receipt in receipts if receipt["obligation_id"] == plan_id and receipt["phase"] == "complete"]
    assert end["status"] == "success", end


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def synchronous_nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwoNodes]:
    """The last test of this fixture kills the primary."""
    async with two_nodes(tmp_path_factory.mktemp("two-nodes"), synchronous=True) as nodes:
        yield nodes


async def test_a_repeated_receipt_waits_for_the_standby_too(synchronous_nodes: TwoNodes) -> None:
    """While the synchronous standby is cut off nothing is acknowledged, and neither is a request that is repeated: its
    receipt is on one node only.

    The driver must not cancel a statement of which it gives up: PostgreSQL would end its wait for the standby and show
    the receipt to everybody, also to the request that is repeated.
    """
    nodes = synchronous_nodes
    tenant = await plan_tenant(nodes.gates)
    body = receipt_body()
    nodes.between.blackhole = True
    for _ in range(3):
        answer = await tenant.ask("principal", "POST", "memorygate", "/receipts", body)
        assert answer.status_code == 503, answer.text
    nodes.between.blackhole = False
    await tenant.until(answered, "principal", "POST", "memorygate", "/receipts", body)
    assert body["receipt_id"] in await nodes.on_standby(RECEIPTS)


@pytest.mark.invariant("INV-128")
async def test_a_synchronous_standby_is_promoted_while_stories_run(synchronous_nodes: TwoNodes, tmp_path: Path) -> None:
    """Nothing acknowledged is lost: receipts, deposits, plans and ends; the gates follow without being told."""
    nodes = synchronous_nodes
    tenant = await plan_tenant(nodes.gates, templates={"review": TEMPLATE})
    clients = Clients(tenant)
    documents = [await deposited(tenant, text) for text in (b"one", b"two")]
    stop = asyncio.Event()
    async with working(tenant, tmp_path, HANDLERS, "admitting"), asyncio.TaskGroup() as running:
        for action in (clients.receipt, clients.receipt, clients.deposit, lambda: clients.story(documents)):
            running.create_task(repeated(action, stop))
        await acknowledged_more(clients, plans=3)
        await nodes.fail_over()
        await acknowledged_more(clients, plans=3)
        stop.set()
    async with working(tenant, tmp_path, HANDLERS, "admitting"):
        await asyncio.gather(*(ended_once(tenant, plan_id) for plan_id in clients.plans))
    assert set(clients.refusals) <= {0, 503}, clients.refusals
    assert set(clients.receipts) <= await nodes.column(RECEIPTS)
    assert set(clients.pointers) <= await nodes.column(ARTIFACTS)
    assert await nodes.defect() is None


async def acknowledged_more(clients: Clients, *, plans: int) -> None:
    """Until so many more plans were taken, and a receipt and a deposit beside them."""
    before = len(clients.plans), len(clients.receipts), len(clients.pointers)
    async with asyncio.timeout(60):
        while not (
            len(clients.plans) >= before[0] + plans
            and len(clients.receipts) > before[1]
            and len(clients.pointers) > before[2]
        ):
            await asyncio.sleep(0.02)


async def test_an_asynchronous_standby_is_promoted(tmp_path: Path) -> None:
    """The tail that the standby never received is lost, and no more; asked for again, its stories end once. What
    gates know of principals is read anew, although the new primary gives the same revision to other contents.
    """
    async with two_nodes(tmp_path, synchronous=False) as nodes:
        tenant = await plan_tenant(nodes.gates, templates={"review": TEMPLATE})
        clients = Clients(tenant)
        documents = [await deposited(tenant, text) for text in (b"one", b"two")]
        async with working(tenant, tmp_path, HANDLERS, "admitting"):
            await ended_once(tenant, await clients.story(documents))
        await clients.receipt()
        await nodes.until_received()
        kept = await nodes.column(RECEIPTS)
        nodes.between.blackhole = True
        lost_plan = await clients.story(documents)
        for _ in range(20):
            await clients.receipt()
        acknowledged = await nodes.column(RECEIPTS)
        await suspend(tenant, "approver")
        for gate in nodes.gates.processes:
            await tenant.until(refused, "approver", "GET", gate, "/v1/interview")
            nodes.gates.suspend(gate)
        await nodes.fail_over()
        # As the operator does: what the new primary has is read, and what differs is published, here something else.
        tenant.principals["approver"] = replace(tenant.principals["approver"], suspended=False)
        await suspend(tenant, "stranger")
        for gate in nodes.gates.processes:
            nodes.gates.resume(gate)
        for gate in nodes.gates.processes:
            await tenant.until(refused, "stranger", "GET", gate, "/v1/interview")
            await tenant.until(answered, "approver", "GET", gate, "/v1/interview")
        remaining = await nodes.column(RECEIPTS)
        assert remaining & acknowledged == kept
        assert len(acknowledged - kept) > 20, "what was lost is the plan and twenty receipts"
        assert await nodes.defect() is None
        async with working(tenant, tmp_path, HANDLERS, "admitting"):
            await clients.story(documents, lost_plan)
            await ended_once(tenant, lost_plan)
        assert await nodes.defect() is None


def refused(answer: httpx.Response) -> bool:
    return answer.status_code in (401, 403)


def answered(answer: httpx.Response) -> bool:
    return answer.status_code == 200


async def suspend(tenant: PlanTenant, name: str) -> None:
    tenant.principals[name] = replace(tenant.principals[name], suspended=True)
    await tenant.publish()
