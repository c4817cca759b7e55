"""Each of the other gates away at each step of a plan: 503 that names it, and the same request goes on when it is back.

A gate is taken away while DeleGate waits at the step; nothing of DeleGate knows of it.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.delegate.driving import envelope, tasks_of
from tests.integration.delegate.forked_gates import DelegateForks, delegate_forks
from tests.integration.delegate.gate_fixture import (
    REVIEW,
    GateGroup,
    PlanTenant,
    plan_tenant,
    plans_policy,
    serving_gates,
)
from tests.integration.memorygate.conftest import new_id

from legivellum.base.canonical_json import canonical

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.invariant("INV-076", "INV-081", "INV-082")]

DELEGATE_RECEIPTS = {
    "before who": 0, "before check": 0, "before accepted": 0, "before deposit": 2, "before plan receipt": 2,
    "before minting": 3, "before enqueue": 7, "before answer": 7,
}  # fmt: skip
"""How many receipts of DeleGate there are when the gate that the step asks is away."""
ASKED = {
    "before who": "memorygate", "before check": "asyncgate", "before accepted": "memorygate", "before deposit": "depotgate",
    "before plan receipt": "memorygate", "before minting": "memorygate", "before enqueue": "asyncgate",
    "before answer": "memorygate",
}  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def forks(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DelegateForks]:
    """Gates of this module's own: it stops them."""
    directory = tmp_path_factory.mktemp("away")
    names = ("memorygate", "asyncgate", "depotgate", "interrogate", "delegate")
    async with serving_gates(postgres, directory, *names) as gates, delegate_forks(gates) as forks:
        yield forks


async def taken(tenant: PlanTenant, url: str, plan_id: str) -> httpx.Response:
    body = {"plan_id": plan_id, "intent": {"template": "review", "parameters": {"documents": ["s3://a", "s3://b"]}}}
    async with httpx.AsyncClient(base_url=url, timeout=40) as client:
        return await client.post("/plans", json=body, headers=tenant.principals["principal"].headers)


async def answered_without(
    gate: str, gates: GateGroup, asking: Coroutine[None, None, httpx.Response], pause: Path
) -> httpx.Response:
    """The answer of a request that waits at its step until the gate is away: 503, which names it."""
    task = asyncio.create_task(asking)
    async with asyncio.timeout(20):
        while not pause.with_suffix(".reached").exists():
            await asyncio.sleep(0.01)
    async with gates.without(gate):
        pause.unlink()
        answer = await task
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.text
        assert gate in answer.json()["detail"]
    assert "retry-after" in answer.headers
    return answer


@pytest.mark.parametrize("point", list(ASKED))
async def test_away_at_a_step(forks: DelegateForks, tmp_path: Path, point: str) -> None:
    gates, gate, plan_id = forks.gates, ASKED[point], new_id()
    tenant = await plan_tenant(gates)
    pause = tmp_path / "pause"
    pause.touch()
    async with forks.serving(point, admission="off", pause=pause) as delegate:
        await answered_without(gate, gates, taken(tenant, delegate.url, plan_id), pause)
        assert len(await tenant.receipts(emitter="delegate")) == DELEGATE_RECEIPTS[point]
        await tenant.until_known()
        answer = await taken(tenant, delegate.url, plan_id)
    assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    assert len(await tenant.receipts(emitter="delegate")) == 7
    assert await tasks_of(tenant, plan_id) == sorted(step["task_id"] for step in answer.json()["steps"])
    assert len(await tenant.receipts(emitter="delegate", phase="complete")) == 1


async def test_a_gate_that_answers_nothing_counts_as_away(forks: DelegateForks) -> None:
    """Its connection is open; the request is answered within its time."""
    tenant, plan_id = await plan_tenant(forks.gates), new_id()
    async with forks.serving(admission="off", gate_ms=300) as delegate:
        forks.gates.suspend("depotgate")
        try:
            answer = await taken(tenant, delegate.url, plan_id)
        finally:
            forks.gates.resume("depotgate")
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert "depotgate" in answer.json()["detail"]
        answer = await taken(tenant, delegate.url, plan_id)
    assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    assert len(await tasks_of(tenant, plan_id)) == 4


async def test_interrogate_away_when_steps_are_admitted(forks: DelegateForks, tmp_path: Path) -> None:
    """No task without its admission; those that were admitted are not asked about in vain."""
    gates, plan_id, parameters = forks.gates, new_id(), {"documents": ["s3://a", "s3://b"]}
    policy = plans_policy("http://delegate.invalid/intents")
    policy["surfaces"][0]["targets"][0]["forward"] = False
    tenant = await plan_tenant(gates, templates={"review": REVIEW}, policies={"front": policy})
    body = canonical(envelope(tenant, "document.review", parameters, plan_id))
    decision = (await tenant.ask("principal", "POST", "interrogate", "/v1/evaluate", body)).json()
    headers = {"content-type": "application/json", "legivellum-admission": decision["receipt_id"]}

    async def post(url: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=40) as client:
            return await client.post(f"/intents/{tenant.namespace}", content=canonical(parameters), headers=headers)

    pause = tmp_path / "pause"
    pause.touch()
    async with forks.serving("before second admission", pause=pause) as delegate:
        await answered_without("interrogate", gates, post(delegate.url), pause)
        assert await tasks_of(tenant, plan_id) == []
        assert len(await tenant.receipts(emitter="delegate")) == 3
        await tenant.until_known()
        answer = await post(delegate.url)
    assert (answer.status_code, answer.json()["phase"]) == (202, "running"), answer.text
    assert len(await tasks_of(tenant, plan_id)) == 4
    admissions = await tenant.receipts(kind="admission", phase="accepted")
    assert len(admissions) == 5
