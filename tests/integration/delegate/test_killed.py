"""kill -9 of DeleGate at each step of a plan × what goes on with it (the request again, `dispatch`, a start) × by one
process or by two at once: one plan receipt, each task once, none twice; and nothing where nothing was accepted.

Each test writes its cells into `build/delegate-kills/`, a line per cell.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import completed, envelope, tasks_of
from tests.integration.delegate.forked_gates import DelegateForks, delegate_forks
from tests.integration.delegate.gate_fixture import REVIEW, GateGroup, PlanTenant, plan_tenant, plans_policy
from tests.integration.memorygate.conftest import new_id

from legivellum.base.canonical_json import canonical

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.invariant("INV-076", "INV-081", "INV-082", "INV-083", "INV-122"),
]

PARAMETERS = {"documents": ["s3://in/one", "s3://in/two"]}
STEPS = ("read-0", "read-1", "merge", "close")
REPORT = Path(__file__).parents[3] / "build" / "delegate-kills"
# Steps 1 · 3 · 4 · 5 · 6 · 7, begun and done · 8 · 9 · 10.
ADMITTED_POINTS = [
    "before who", "after check", "after accepted", "after deposit", "after plan receipt", "after admission",
    "before minting", "after minting", "after enqueue", "before answer",
]  # fmt: skip
UNADMITTED_POINTS = ["after accepted", "after plan receipt", "after minting"]
NOTHING_LEFT = {"before who", "after check"}
GOING_ON = ("repeat", "dispatch", "start")


@dataclass(frozen=True, slots=True)
class KilledGates:
    gates: GateGroup
    forks: DelegateForks
    tenant: PlanTenant
    replicas: dict[str, list[str]]
    """Two processes that live, by whether admission is required."""
    credentials: Path
    """Of this tenant alone: what a start goes on with is its plans, and not those that other tests left open."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def killed(gates: GateGroup, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[KilledGates]:
    async with delegate_forks(gates) as forks:
        # InterroGate admits and calls nobody: the tests send the request on themselves, to the process that will die.
        nobody = plans_policy("http://delegate.invalid/intents")
        nobody["surfaces"][0]["targets"][0]["forward"] = False
        tenant = await plan_tenant(gates, templates={"review": REVIEW}, policies={"front": nobody})
        async with AsyncExitStack() as stack:
            replicas = {
                door: [(await stack.enter_async_context(forks.serving(admission=door))).url for _ in range(2)]
                for door in ("required", "off")
            }
            credentials = tmp_path_factory.mktemp("credentials")
            (credentials / tenant.namespace).write_text(tenant.principals["delegate"].key, encoding="ascii")
            yield KilledGates(gates, forks, tenant, replicas, credentials)


@dataclass(frozen=True, slots=True)
class Request:
    """One plan that is asked for, as often as is wanted, of any process."""

    tenant: PlanTenant
    plan_id: str
    admission: str | None

    async def post(self, url: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            if self.admission is not None:
                headers = {"content-type": "application/json", "legivellum-admission": self.admission}
                return await client.post(
                    f"/intents/{self.tenant.namespace}", content=canonical(PARAMETERS), headers=headers
                )
            body = {"plan_id": self.plan_id, "intent": {"template": "review", "parameters": PARAMETERS}}
            return await client.post("/plans", json=body, headers=self.tenant.principals["principal"].headers)

    async def dispatch(self, url: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            headers = self.tenant.principals["stranger"].headers
            return await client.post(f"/plans/{self.plan_id}/dispatch", headers=headers)


async def request_of(tenant: PlanTenant, *, admitted: bool) -> Request:
    plan_id = new_id()
    if not admitted:
        return Request(tenant, plan_id, None)
    body = canonical(envelope(tenant, "document.review", PARAMETERS, plan_id))
    answer = await tenant.ask("principal", "POST", "interrogate", "/v1/evaluate", body)
    assert answer.status_code == 200, answer.text
    return Request(tenant, plan_id, answer.json()["receipt_id"])


async def go_on(killed: KilledGates, request: Request, how: str, processes: int) -> list[int]:
    """What the survivors answer; a start answers nothing and is waited for."""
    door = "required" if request.admission else "off"
    if how == "start":
        async with AsyncExitStack() as stack:
            settings = {"admission": door, "credentials": str(killed.credentials)}
            started = [killed.forks.serving(repairs_after=0, **settings) for _ in range(processes)]
            forked = await asyncio.gather(*map(stack.enter_async_context, started))
            if await request.tenant.receipts(obligation_id=request.plan_id, emitter="delegate"):
                await finished(request)
            else:
                await asyncio.gather(*(inbox_read(process.url) for process in forked))
        return []
    ask = request.post if how == "repeat" else request.dispatch
    return [answer.status_code for answer in await asyncio.gather(*map(ask, killed.replicas[door][:processes]))]


async def finished(request: Request) -> None:
    async with asyncio.timeout(20):
        while len(await tasks_of(request.tenant, request.plan_id)) < len(STEPS):
            await asyncio.sleep(0.02)


async def inbox_read(url: str) -> None:
    """Wait until a started process has read the inbox of its one tenant."""
    count = 'delegate_gate_calls_total{gate="memorygate",outcome="200"} '
    async with asyncio.timeout(20), httpx.AsyncClient(base_url=url) as client:
        while not any(line.startswith(count) for line in (await client.get("/metrics")).text.splitlines()):
            await asyncio.sleep(0.02)


async def left(request: Request) -> Counter[str]:
    """What the ledger has of the plan, by what it is."""
    plan_id = request.plan_id
    names = {
        ("delegate", "accepted", plan_id): "accepted",
        ("delegate", "accepted", f"{plan_id}:planning"): "planning",
        ("svc:depotgate", "stored", plan_id): "stored",
        ("delegate", "complete", f"{plan_id}:planning"): "plan receipt",
    }
    counted: Counter[str] = Counter()
    for receipt in await request.tenant.receipts():
        if receipt["task_id"].partition(".")[0] != plan_id:
            continue
        name = names.get((receipt["emitter"], receipt["phase"], receipt["obligation_id"]))
        if name is None and receipt["task_id"] != plan_id:
            kind = "acknowledged" if receipt["phase"] == "accepted" else receipt["phase"]
            sender = receipt["emitter"].removeprefix("svc:")
            name = {"delegate": "minted", "interrogate": "admitted", "asyncgate": kind}[sender]
        if name is not None:
            counted[name] += 1
    return counted


WHOLE = Counter(
    {"accepted": 1, "planning": 1, "stored": 1, "plan receipt": 1, "minted": 4, "acknowledged": 4, "queued": 4}
)


def report(point: str, request: Request, how: str, processes: int, died_with: Counter[str], after: Counter[str]) -> str:
    door = "admitted" if request.admission else "off"
    columns = [point, door, how, str(processes), str(sum(died_with.values())), str(after["plan receipt"])]
    return " | ".join([*columns, str(after["minted"]), str(after["acknowledged"])])


async def cell(killed: KilledGates, point: str, how: str, processes: int, *, admitted: bool) -> str:
    tenant = killed.tenant
    request = await request_of(tenant, admitted=admitted)
    async with killed.forks.serving(point, admission="required" if admitted else "off") as dying:
        with pytest.raises(httpx.HTTPError):
            await request.post(dying.url)
        await dying.ended()
    died_with = await left(request)
    statuses = await go_on(killed, request, how, processes)
    after = await left(request)
    unbegun = point in NOTHING_LEFT and how != "repeat"
    if unbegun:
        assert died_with.total() == 0
        assert after.total() == 0, (point, how, after)
        assert statuses == ([404] * processes if how == "dispatch" else [])
    else:
        assert statuses == ([] if how == "start" else [202] * processes)
        expected = WHOLE + Counter({"admitted": 4} if admitted else {})
        assert after == expected, (point, how, processes, after)
        assert await tasks_of(tenant, request.plan_id) == sorted(f"{request.plan_id}.{step}" for step in STEPS)
        url = killed.gates.url("delegate")
        async with httpx.AsyncClient(base_url=url) as client:
            headers = tenant.principals["principal"].headers
            ended = await client.post(f"/plans/{request.plan_id}/close", json={"abandon": True}, headers=headers)
        assert ended.status_code == 200, ended.text
    return report(point, request, how, processes, died_with, after)


@pytest.mark.parametrize("point", ADMITTED_POINTS)
async def test_killed_while_an_admitted_plan_is_made(killed: KilledGates, point: str) -> None:
    cells = [await cell(killed, point, how, processes, admitted=True) for how in GOING_ON for processes in (1, 2)]
    written(f"admitted {point}", cells)


@pytest.mark.parametrize("point", UNADMITTED_POINTS)
async def test_killed_while_a_plan_is_made_without_admissions(killed: KilledGates, point: str) -> None:
    cells = [await cell(killed, point, how, processes, admitted=False) for how in GOING_ON for processes in (1, 2)]
    written(f"off {point}", cells)


def written(name: str, cells: list[str]) -> None:
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / f"{name}.txt").write_text("\n".join(cells) + "\n", encoding="utf-8")


AGE = """UPDATE memorygate.receipt SET stored_at = stored_at + $3 WHERE tenant = $1
         AND body::json ->> 'kind' = 'admission' AND body::json ->> 'task_id' LIKE $2 || '.%'"""


@asynccontextmanager
async def aged_admissions(request: Request, gates: GateGroup, by: timedelta) -> AsyncIterator[None]:
    """The admissions of the plan's steps are older by so much while the block runs."""
    connection = await asyncpg.connect(gates.database.superuser)
    try:
        assert await connection.execute(AGE, request.tenant.uid, request.plan_id, -by) == f"UPDATE {len(STEPS)}"
        yield
    finally:
        await connection.execute(AGE, request.tenant.uid, request.plan_id, by)
        await connection.close()


async def test_repaired_after_its_admissions_have_expired(killed: KilledGates) -> None:
    """AsyncGate takes none that is older than ten minutes (AG-09): the plan is escalated to its principal, who ends it; none of its
    tasks was handed over, and nothing is left open.
    """
    request = await request_of(killed.tenant, admitted=True)
    async with killed.forks.serving("after minting", admission="required") as dying:
        with pytest.raises(httpx.HTTPError):
            await request.post(dying.url)
        await dying.ended()
    async with aged_admissions(request, killed.gates, timedelta(minutes=11)):
        answer = await request.dispatch(killed.replicas["required"][0])
        assert (answer.status_code, answer.json()["phase"]) == (202, "escalated"), answer.text
    escalation = answer.json()["escalation"]
    assert (escalation["class"], escalation["to"]) == ("policy", "principal")
    assert "ADMISSION_REFUSED" in escalation["reason"]
    assert await tasks_of(killed.tenant, request.plan_id) == []
    ended = await completed(killed.tenant, "principal", request.plan_id, request.plan_id, status="canceled")
    assert ended.status_code == 201, ended.text
    for name in ("svc:asyncgate", "principal", "delegate"):
        inbox = await killed.tenant.ask("observer", "GET", "memorygate", f"/inbox?principal={name}&limit=500")
        left_open = [item["obligation_id"] for item in inbox.json()["items"]]
        assert [name for name in left_open if name.startswith(request.plan_id)] == []
