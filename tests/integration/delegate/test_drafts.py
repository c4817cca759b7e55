"""Random drafts at the real gates: what is sound runs to its end, what is not leaves no row anywhere."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest
from tests.integration.delegate.contents import table_checksums
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.delegate.test_with_workers import end_of, working
from tests.integration.memorygate.conftest import new_id
from tests.unit.crds.plans.drafts import CAPABILITIES, INNER, is_sound, random_draft

from legivellum_worker import Work

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

DRAFTS = int(os.environ.get("PLAN_DRAFTS", "60"))  # noqa: TID251 - `make test-plans` asks for many
PATIENCE = 60 + DRAFTS
SEED = 20261128
INNER_CAPABILITIES = tuple({step["capability"] for step in INNER.spec["steps"]})


def drafts(sound: bool, count: int) -> list[dict[str, Any]]:
    chance = random.Random(SEED)
    chosen: list[dict[str, Any]] = []
    while len(chosen) < count:
        draft = random_draft(chance)
        if is_sound(draft) == sound:
            chosen.append(draft)
    return chosen


async def draft_tenant(gates: GateGroup) -> PlanTenant:
    return await plan_tenant(gates, templates={"inner": {**INNER.spec, "capability": "inner"}})


@pytest.mark.invariant("INV-076", "INV-078", "INV-092")
async def test_what_is_not_sound_leaves_no_row(gates: GateGroup) -> None:
    """Refused with findings, by both endpoints; and a sound one that is validated leaves none either."""
    tenant = await draft_tenant(gates)
    before = await table_checksums(tenant)
    assert {table.split('"')[1] for table in before} >= {"memorygate", "asyncgate", "depotgate", "interrogate"}
    for sound in (False, True):
        for draft in drafts(sound, DRAFTS // 2):
            body = {"intent": {"draft": draft}}
            judged = await tenant.ask("worker", "POST", "delegate", "/plans/validate", body)
            assert (judged.status_code, judged.json()["valid"]) == (200, sound), (draft, judged.text)
            if not sound:
                answer = await tenant.ask("principal", "POST", "delegate", "/plans", body)
                assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_PLAN"), (draft, answer.text)
                assert answer.json()["findings"] == judged.json()["findings"] != []
    assert await table_checksums(tenant) == before


async def taken(tenant: PlanTenant, draft: dict[str, Any]) -> dict[str, Any]:
    """A gate that is busy with the others' work may answer 503; the same request again is the same plan."""
    body = {"plan_id": new_id(), "intent": {"draft": draft}}
    answer = await tenant.until(
        lambda answer: answer.status_code != 503, "principal", "POST", "delegate", "/plans", body
    )
    assert answer.status_code == 202, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def index(work: Work) -> str:
    return f"{work.task_id}: {sorted(work.inputs())}"


@pytest.mark.invariant("INV-081", "INV-082", "INV-088")
async def test_what_is_sound_runs_to_its_end(gates: GateGroup, tmp_path: Path) -> None:
    """Workers do the steps and close the plans: nothing stays open, and each obligation is ended once."""
    tenant = await draft_tenant(gates)
    handlers = dict.fromkeys((*CAPABILITIES, *INNER_CAPABILITIES), index)
    async with working(tenant, tmp_path, handlers):
        plans = [await taken(tenant, draft) for draft in drafts(True, DRAFTS // 2)]
        ends = await asyncio.gather(*(end_of(tenant, plan["plan_id"], seconds=PATIENCE) for plan in plans))
        await asyncio.gather(*(end_of(tenant, f"{plan['plan_id']}.close", seconds=PATIENCE) for plan in plans))
    assert {end["status"] for end in ends} == {"success"}
    obligations = [
        name
        for plan in plans
        for name in (plan["plan_id"], f"{plan['plan_id']}:planning", *(step["task_id"] for step in plan["steps"]))
    ]
    receipts = await tenant.receipts(kind="obligation")
    opened = [
        each["obligation_id"] for each in receipts if each["phase"] == "accepted" and each["emitter"] == "delegate"
    ]
    completed = [each["obligation_id"] for each in receipts if each["phase"] == "complete"]
    assert sorted(opened) == sorted(completed) == sorted(obligations)
    assert (await tenant.ask("principal", "GET", "asyncgate", "/tasks")).json()["items"] == []
    assert (await tenant.ask("principal", "GET", "delegate", "/plans")).json()["items"] == []
