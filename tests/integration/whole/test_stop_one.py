"""One part stopped, and what goes on without it: each row of docs/stop-one.md, on the whole system (INV-128).

A row is prepared while everything runs; its part is stopped; every activity is tried, and a story whose steps wait for a
word goes on with them or does not; the part is started again, what waited goes on with the same request, and everything
that was begun has ended once.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from tests.integration.delegate.driving import evaluated
from tests.integration.memorygate.ledger_fixture import LedgerPrincipal
from tests.integration.whole.activities import (
    ACTIVITIES,
    PreparedActivities,
    called,
    document,
    goes_on,
    until_it_goes_on,
)
from tests.integration.whole.forked_parts import PartForks, forked_parts
from tests.integration.whole.system import (
    GATES,
    LEDGER_DATABASE,
    METAGATE_DATABASE,
    STORY_TASKS,
    WORKERS,
    DeclaredTenant,
    WholeSystem,
    whole_system,
)

pytestmark = [pytest.mark.invariant("INV-128"), pytest.mark.timeout(180)]

DRIVEN_SECONDS = float(os.environ.get("STOP_ONE_SECONDS", "1"))  # noqa: TID251 - of the Makefile
PAGE = Path(__file__).parents[3] / "docs" / "stop-one.md"
EVERYTHING = {*ACTIVITIES, "steps", "changes"}
STOPPED = {
    "MetaGate's API and operator": ("metagate", "operator"),
    "MetaGate's database": (METAGATE_DATABASE,),
    "the ledger's process": ("memorygate",),
    "the ledger's database": (LEDGER_DATABASE,),
    "InterroGate": ("interrogate",),
    "AsyncGate": ("asyncgate",),
    "DepotGate": ("depotgate",),
    "DeleGate": ("admitting",),
    "the workers": WORKERS,
}
"""Rows of the page, and the processes that are stopped in each."""


def documented() -> dict[str, set[str]]:
    """What waits, by what is stopped, as the page says it."""
    rows = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] in {*STOPPED, AFTER}:
            goes, waits = (
                {name.strip() for name in cell.split(",") if name.strip() != "nothing"} for cell in cells[1:]
            )
            assert goes | waits == EVERYTHING, (cells[0], EVERYTHING ^ (goes | waits))
            assert not goes & waits, cells[0]
            rows[cells[0]] = waits
    return rows


AFTER = "MetaGate's database, for longer than a gate believes what it read"
WAITS = documented()
SHORT = {
    "interrogate": "STALE_SECONDS", "admitting": "STALE_SECONDS",
    "asyncgate": "IDENTITY_STALE_SECONDS", "depotgate": "IDENTITY_STALE_SECONDS",
}  # fmt: skip
"""How long each gate believes what it read of MetaGate; the ledger, which only records, believes it for a day."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WholeSystem]:
    directory = tmp_path_factory.mktemp("stop-one")
    with forked_parts(directory / "arms") as forks:
        async with running_system(directory, forks) as made:
            yield made


@asynccontextmanager
async def running_system(directory: Path, forks: PartForks) -> AsyncIterator[WholeSystem]:
    # Long polls of workers are in flight all the time: a stopping AsyncGate would wait for them as long as it may.
    async with whole_system(directory, forks.spawn, ASYNCGATE_DRAIN_SECONDS="1") as made:
        story, probe = [await made.tenant(f"team-{name}", forwards=name == "story") for name in ("story", "probe")]
        for tenant in (story, probe):
            await until_known(tenant)
            await until_problemata_is_known(tenant)
        await made.start_workers(story)
        yield made


async def until_known(tenant: DeclaredTenant, who: str = "delegate") -> None:
    for gate in GATES:
        await tenant.until(lambda answer: answer.status_code == 200, who, "GET", gate, "/v1/interview")


async def until_problemata_is_known(tenant: DeclaredTenant) -> None:
    """InterroGate reads Problematas by another poll than principals."""
    async with asyncio.timeout(20):
        while '"desk"' not in (await called(tenant, "problemata.capabilities", {})).text:
            await asyncio.sleep(0.05)


async def begun(system: WholeSystem) -> str:
    """A story whose first steps wait for the word, each under a lease; its id."""
    tenant = system.tenants["team-story"]
    system.hold.touch()
    request = json.loads(await document(tenant, b"Cats sleep. Cats hunt.", b"Dogs bark."))
    answer = await evaluated(tenant, "document.review", request)
    assert answer.status_code == 200, answer.text
    plan_id = str(answer.json()["forwards"][0]["answer"]["plan_id"])
    async with asyncio.timeout(30):
        for step in ("read-0", "read-1"):
            while not await tenant.receipts(task_id=f"{plan_id}.{step}", phase="lease_issued"):
                await asyncio.sleep(0.02)
    return plan_id


async def ended(tenant: DeclaredTenant, *obligations: str) -> set[str]:
    """Those of them that have ended. None may have ended twice."""
    ends = [
        receipt["obligation_id"]
        for receipt in await tenant.receipts(phase="complete")
        if receipt["obligation_id"] in obligations and receipt["kind"] == "obligation"
    ]
    assert len(ends) == len(set(ends)), sorted(ends)
    return set(ends)


async def until_ended(tenant: DeclaredTenant, *obligations: str) -> None:
    async with asyncio.timeout(60):
        while left := {*obligations} - await ended(tenant, *obligations):
            assert left
            await asyncio.sleep(0.05)


async def change_is_served(newcomer: str, tenant: DeclaredTenant) -> bool:
    """Whether MetaGate knows a principal that was declared while the part was stopped: it has nothing to boot with."""
    try:
        answer = await tenant.ask(newcomer, "POST", "metagate", "/v1/bootstrap", {"component_key": "indexer"})
    except httpx.TransportError:
        return False
    assert answer.status_code in {401, 403, 503}, answer.text
    return answer.status_code == 403


async def drive(system: WholeSystem, prepared: PreparedActivities, waiting: set[str], story: str) -> None:
    """Everything is tried while the part is stopped: what the row says goes on, and nothing else does."""
    tenant, steps = system.tenants["team-story"], (f"{story}.read-0", f"{story}.read-1")
    until = time.monotonic() + DRIVEN_SECONDS
    system.hold.unlink()
    outcomes = await asyncio.gather(*(goes_on(name, prepared) for name in ACTIVITIES))
    hindered = {name for name, outcome in zip(ACTIVITIES, outcomes, strict=True) if not outcome}
    assert hindered == waiting & ACTIVITIES.keys()
    if "steps" not in waiting:
        await until_ended(tenant, *steps)
    while time.monotonic() < until:
        await asyncio.gather(*(goes_on(name, prepared) for name in ("lease", "inboxes", "MCP")))
        await asyncio.sleep(0.1)


async def play(system: WholeSystem, row: str, *parts: str, stale: bool = False) -> None:
    """Stop the parts, try everything, start them again, and see everything end. `stale`: what gates know is too old."""
    waiting = WAITS[row]
    story, probe = system.tenants["team-story"], system.tenants["team-probe"]
    prepared, plan_id = await PreparedActivities.made(probe), await begun(system)
    for part in parts:
        await system.stop(part)
    newcomer = LedgerPrincipal(probe.uid, f"newcomer-{len(probe.principals)}")
    probe.principals[newcomer.name] = newcomer
    probe.declare_principal(newcomer)
    for gate in SHORT if stale else ():
        await probe.until(lambda answer: answer.status_code == 503, "delegate", "GET", gate, "/v1/interview")
    await drive(system, prepared, waiting, plan_id)
    if "changes" not in waiting:
        async with asyncio.timeout(20):
            while not await change_is_served(newcomer.name, probe):
                await asyncio.sleep(0.05)
    assert await change_is_served(newcomer.name, probe) == ("changes" not in waiting)
    if LEDGER_DATABASE not in parts:
        steps = await ended(story, f"{plan_id}.read-0", f"{plan_id}.read-1")
        assert bool(steps) == ("steps" not in waiting)
    await system.start(*parts)
    for name in ACTIVITIES:
        await until_it_goes_on(name, prepared)
    await until_known(probe, newcomer.name)
    await prepared.finish()
    await until_ended(probe, *prepared.obligations)
    await until_ended(story, plan_id, f"{plan_id}:planning", *(f"{plan_id}.{step}" for step in STORY_TASKS))


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("row", STOPPED)
async def test_what_goes_on(system: WholeSystem, row: str) -> None:
    await play(system, row, *STOPPED[row])


@pytest.mark.asyncio(loop_scope="session")
async def test_gates_that_may_have_missed_a_withdrawal_fail_closed(system: WholeSystem) -> None:
    """With a second for the minute that they are served with."""
    for gate, setting in SHORT.items():
        await system.stop(gate)
        system.gates.launch(gate, **{setting: "1"})
    await system.gates.until_ready(*SHORT)
    await play(system, AFTER, METAGATE_DATABASE, stale=True)


def test_every_row_is_there() -> None:
    """The page has each row of the table, and says of every activity whether it goes on."""
    assert {*WAITS} == {*STOPPED, AFTER}
