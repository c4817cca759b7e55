"""`legivellum comply` on what the real gates leave: nothing where all is well, and each deliberate violation by its code.

What an ordinary principal can do is done over HTTP. What gates refuse is planted as the owner of the database could: in the
name of a gate, through the function by which it emits, or by changing a row.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import append, receipt_body
from tests.integration.delegate.driving import CLAIM, admitted, closed, lease_next, run_task
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.memorygate.conftest import new_id
from typer.testing import CliRunner

from metagate_cli.compliance_probes import PROBES
from metagate_cli.main import _across_gates

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
DOCUMENTS = {"documents": ["s3://in/one", "s3://in/two"]}
WORK = "some.work"
GATES = ("memorygate", "asyncgate", "depotgate", "interrogate")


@dataclass(slots=True)
class ComplyDesk:
    """A tenant that somebody looks at, and a place for keys."""

    tenant: PlanTenant
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        key = self.folder / "principal.key"
        key.write_text(self.tenant.principals["principal"].key)
        gates = {f"METAGATE_{gate.upper()}_URL": self.tenant.gates.url(gate) for gate in GATES}
        return {"METAGATE_API_KEY_FILE": str(key), "METAGATE_URL": self.tenant.gates.url("metagate"), **gates}

    async def legivellum(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        path = os.environ["PATH"]  # noqa: TID251 - of a child
        known = {"PATH": path, **self.environment, **environment}
        return await asyncio.to_thread(
            subprocess.run, [*PROGRAM, *arguments], env=known, capture_output=True, text=True, timeout=60, check=False
        )

    async def finding_codes(self, *arguments: str, code: int = 1) -> set[str]:
        """The codes that are found, by the command inside this process."""
        sent = ["comply", "-o", "json", *arguments]
        done = await asyncio.to_thread(CliRunner().invoke, _across_gates(), sent, env=self.environment)
        assert done.exit_code == code, (done.output, done.exception)
        return {finding["code"] for finding in json.loads(done.stdout)["findings"]}

    async def post(self, gate: str, path: str, body: Any, who: str = "principal") -> dict[str, Any]:
        answer = await self.tenant.ask(who, "POST", gate, path, body)
        assert answer.status_code in {200, 201}, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def parked(self, **members: Any) -> str:
        """A task that the principal opened and handed to AsyncGate."""
        task = new_id()
        opening = {
            "receipt_id": new_id(), "phase": "accepted", "task_id": task, "obligation_id": task, "principal_ai": "principal",
            "recipient_ai": "svc:asyncgate", "parent_task_id": members.get("parent_task_id"),
        }  # fmt: skip
        await self.post("memorygate", "/receipts", {name: value for name, value in opening.items() if value})
        document = {
            "task_id": task,
            "principal_ai": "principal",
            "payload_pointer": "s3://x",
            "capability": WORK,
            **members,
        }
        await self.post("asyncgate", "/tasks", document)
        return task

    async def emit(self, gate: str, task: str, what: str, **fields: Any) -> None:
        """A receipt in the name of a gate, through the function by which it emits."""
        kind, _, phase = what.partition("/")
        common = {"task_id": task, "obligation_id": task, "principal_ai": "principal", "kind": kind, "phase": phase}
        body = receipt_body(self.tenant.uid, f"svc:{gate}", **{**common, **fields})
        connection = await asyncpg.connect(self.tenant.gates.database.superuser)
        try:
            row = await connection.fetchrow(f"SELECT outcome FROM memorygate.emit_{gate}(ARRAY[$1], NULL)", body)
        finally:
            await connection.close()
        assert row["outcome"] == "STORED"

    async def append(self, emitter: str, **fields: Any) -> None:
        """A receipt over the head of the gate, which would refuse it."""
        body = receipt_body(self.tenant.uid, emitter, **fields)
        assert await append(self.tenant.gates.database.superuser, [body], "emit") == ["STORED"]

    async def change(self, statement: str, *arguments: Any) -> None:
        connection = await asyncpg.connect(self.tenant.gates.database.superuser)
        try:
            await connection.execute(statement, *arguments)
        finally:
            await connection.close()


@pytest_asyncio.fixture(loop_scope="session")
async def desk(metagate: GateGroup, tmp_path: Path) -> ComplyDesk:
    made = ComplyDesk(await plan_tenant(metagate), tmp_path)
    await made.tenant.until(lambda answer: answer.status_code == 200, "principal", "GET", "metagate", "/v1/topology")
    return made


async def test_an_admitted_plan_complies(desk: ComplyDesk) -> None:
    """One tree, and the whole tenant; with MetaGate and without."""
    tenant = desk.tenant
    plan = await admitted(tenant, "document.review", DOCUMENTS)
    for capability in ("document.summarise", "document.summarise", "document.merge"):
        await run_task(tenant, capability)
    close = await lease_next(tenant, "plan.close")
    await closed(tenant, plan["plan_id"], "admitting")
    await run_task(tenant, lease=close)
    for arguments in (("--root", plan["plan_id"]), (), ("--since", "1h")):
        done = await desk.legivellum("comply", "-o", "json", *arguments)
        report = {"receipts": 30, "roots": 1, "not_asked": [], "probes": 0, "findings": []}
        assert (done.returncode, json.loads(done.stdout)) == (0, report), done.stderr
    done = await desk.legivellum("comply", METAGATE_URL="")
    assert (done.returncode, done.stdout) == (0, "0 findings in 30 receipts of 1 tree\n")
    assert "metagate" in done.stderr


async def test_a_name_that_is_no_segment_of_a_path(desk: ComplyDesk) -> None:
    """Whoever names a task `a/b?` does not keep others from looking at the tenant."""
    name = "../a/b?c=%2F#ü d"
    receipt = {"receipt_id": new_id(), "phase": "accepted", "task_id": name, "principal_ai": "principal"}
    await desk.post("memorygate", "/receipts", receipt)
    end = {**receipt, "receipt_id": new_id(), "phase": "complete", "status": "success", "outcome_kind": "none"}
    await desk.post("memorygate", "/receipts", {**end, "completed_at": "2027-01-01T00:00:00Z"})
    assert await desk.finding_codes(code=0) == set()
    assert await desk.finding_codes("--root", name, code=0) == set()
    for command in (("explain", name), ("usage", "--root", name)):
        done = await desk.legivellum(*command)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("who", ["principal", "worker", "other", "delegate", "admin"])
async def test_what_must_be_refused_is_refused(desk: ComplyDesk, who: str) -> None:
    """Every probe of who may do none of it, at real gates; it leaves no receipt. Nothing is tried unless that was asked for."""
    task = await desk.parked()
    lease = await lease_next(desk.tenant, WORK)
    receipts = await desk.tenant.receipts()
    key = desk.folder / "who.key"
    key.write_text(desk.tenant.principals[who].key)
    asked = await desk.legivellum("comply", "--probe", METAGATE_API_KEY_FILE=str(key))
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "--yes" in asked.stderr
    done = await desk.legivellum("comply", "--probe", "--yes", "-o", "json", METAGATE_API_KEY_FILE=str(key))
    assert done.returncode == 0, (done.stdout, done.stderr)
    report = json.loads(done.stdout)
    assert (report["findings"], report["probes"]) == ([], len(PROBES) + len(GATES) - 3 * (who == "delegate"))
    assert await desk.tenant.receipts() == receipts
    # Also where it is the worker's own, which it could have ended.
    assert (await run_task(desk.tenant, lease=lease))["task"]["task_id"] == task


# ── what an ordinary principal can do ────────────────────────────────────────────────────────────────────────────────


async def spends(desk: ComplyDesk) -> str:
    task = await desk.parked()
    usage = {"model": "large", "calls": 3, "prompt_tokens": 7, "tools": {"mail/send": 1}}
    await run_task(desk.tenant, WORK, metadata={"usage": usage})
    return task


async def grows(desk: ComplyDesk) -> str:
    """A task that carries more than the one below which it hangs."""
    task = await desk.parked(authority={"maxDepth": 1})
    return await desk.parked(parent_task_id=task, authority={"writeBeyondReceipts": True})


async def names_an_unknown_cause(desk: ComplyDesk) -> str:
    task = new_id()
    receipt = {
        "receipt_id": new_id(), "phase": "accepted", "task_id": task, "principal_ai": "principal",
        "caused_by_receipt_id": new_id(),
    }  # fmt: skip
    await desk.post("memorygate", "/receipts", receipt)
    return task


async def leaves_a_plan_open(desk: ComplyDesk) -> str:
    """A worker completes the step `close` and never asks DeleGate."""
    plan = await admitted(desk.tenant, "document.review", DOCUMENTS)
    for capability in ("document.summarise", "document.summarise", "document.merge", "plan.close"):
        await run_task(desk.tenant, capability)
    return str(plan["plan_id"])


# ── what gates refuse ────────────────────────────────────────────────────────────────────────────────────────────────


async def shows_another_custodian(desk: ComplyDesk) -> str:
    task = await desk.parked()
    await desk.change("UPDATE memorygate.obligation SET custodian = 'stranger' WHERE obligation_id = $1", task)
    return task


async def shows_a_lease_of_nobody(desk: ComplyDesk) -> str:
    task = await desk.parked()
    await desk.tenant.ask("worker", "POST", "asyncgate", "/lease", {"capabilities": [WORK]})
    await desk.change("UPDATE asyncgate.task SET number = 7 WHERE task_id = $1", task)
    return task


async def shows_an_artifact_of_nobody(desk: ComplyDesk) -> str:
    task = await desk.parked()
    statement = """INSERT INTO depotgate.artifact (tenant, artifact_id, sha256, size_bytes, media_type, role, task_id, depositor, stored_at, receipt_id)
                   VALUES ($1, $2, sha256('x'), 1, 'text/plain', 'input', $3, 'principal', now(), $4)"""
    await desk.change(statement, desk.tenant.uid, new_id(), task, new_id())
    return task


async def leases_what_nobody_accepted(desk: ComplyDesk) -> str:
    task = new_id()
    await desk.emit("asyncgate", task, "lifecycle/lease_issued", recipient_ai="worker", attempt=1)
    return task


async def works_without_an_admission(desk: ComplyDesk) -> str:
    """A task of an admitted plan that its delegate opened without asking InterroGate."""
    plan = await admitted(desk.tenant, "document.review", DOCUMENTS)
    task = f"{plan['plan_id']}.more"
    opening = {
        "phase": "accepted",
        "task_id": task,
        "obligation_id": task,
        "principal_ai": "principal",
        "recipient_ai": "svc:asyncgate",
    }
    body = {
        "receipt_id": new_id(),
        "parent_task_id": plan["plan_id"],
        "caused_by_receipt_id": plan_receipt(await desk.tenant.receipts()),
        **opening,
    }
    await desk.post("memorygate", "/receipts", body, "delegate")
    document = {
        "task_id": task,
        "principal_ai": "principal",
        "payload_pointer": "s3://x",
        "capability": WORK,
        "parent_task_id": plan["plan_id"],
    }
    await desk.post("asyncgate", "/tasks", document, "delegate")
    return str(plan["plan_id"])


def plan_receipt(receipts: list[dict[str, Any]]) -> str:
    return next(
        str(item["receipt_id"])
        for item in receipts
        if item["obligation_id"].endswith(":planning") and item["phase"] == "complete"
    )


async def opens_as_a_worker(desk: ComplyDesk) -> str:
    task = new_id()
    await desk.append("worker", phase="accepted", task_id=task, obligation_id=task, principal_ai="worker")
    return task


async def ends_twice(desk: ComplyDesk) -> str:
    task = await desk.parked()
    await run_task(desk.tenant, WORK)
    await desk.change(
        "UPDATE memorygate.obligation SET state = 'open', closed_by = NULL, closed_at = NULL WHERE obligation_id = $1",
        task,
    )
    end = {"status": "failure", "outcome_kind": "none", "completed_at": "2027-01-01T00:00:00Z"}
    await desk.emit("asyncgate", task, "obligation/complete", body={"lease_number": 1}, **end)
    return task


async def deposits_without_a_sink(desk: ComplyDesk) -> str:
    task = await desk.parked(authority={"writeBeyondReceipts": True, "sinks": ["depotgate/supporting"]})
    await desk.tenant.ask("worker", "POST", "asyncgate", "/lease", {"capabilities": [WORK]})
    artifact = {
        "artifact_pointer": f"{new_id()}", "artifact_location": "file:///x", "artifact_mime": "text/plain",
        "artifact_checksum": f"sha256:{'0' * 64}", "artifact_size_bytes": 1,
    }  # fmt: skip
    await desk.emit("depotgate", task, "artifact/stored", body={"role": "output", "lease_number": 1}, **artifact)
    return task


async def ends_after_its_lease(desk: ComplyDesk) -> str:
    """The worker gave the task back, and then it was completed under that lease all the same."""
    task = await desk.parked()
    lease = await lease_next(desk.tenant, WORK)
    await desk.post("asyncgate", "/lease/release", {"lease_id": lease["lease_id"]}, "worker")
    body = {"lease_number": 1, "claimed_by": "worker"}
    await desk.emit("asyncgate", task, "obligation/complete", body=body, completed_at="2027-01-01T00:00:00Z", **CLAIM)
    return task


async def stores_as_a_principal(desk: ComplyDesk) -> str:
    """A receipt of a kind that only a gate emits, by somebody who is none."""
    task = new_id()
    await desk.append("principal", kind="admission", phase="accepted", task_id=task, principal_ai="principal")
    return task


async def admission_of(desk: ComplyDesk, depth: int) -> str:
    """A decision as if its policy permitted this depth."""
    plan = await admitted(desk.tenant, "document.review", DOCUMENTS)
    policy = (await desk.tenant.receipts(kind="admission"))[0]["body"]
    body = {**policy, "derived": {**policy["derived"], "depth": depth}}
    task = new_id()
    await desk.emit("interrogate", task, "admission/accepted", body=body, parent_task_id=plan["plan_id"])
    return task


async def hangs_too_deep(desk: ComplyDesk) -> str:
    return await admission_of(desk, 9)


async def says_it_hangs_less_deep(desk: ComplyDesk) -> str:
    return await admission_of(desk, 0)


async def is_changed_in_the_ledger(desk: ComplyDesk) -> str:
    task = await desk.parked()
    statement = "UPDATE memorygate.receipt SET body = replace(body, 's3://x', 's3://y') WHERE task_id = $1 AND body LIKE '%s3://x%'"
    await desk.change(statement, task)
    return task


PLANTED: dict[Callable[[ComplyDesk], Awaitable[str]], set[str]] = {
    spends: {"MODEL_NOT_GRANTED", "USAGE_EXCEEDED", "TOOL_NOT_GRANTED"},
    grows: {"AUTHORITY_GREW"},
    names_an_unknown_cause: {"CAUSE_UNKNOWN"},
    leaves_a_plan_open: {"PLAN_NOT_CLOSED"},
    shows_another_custodian: {"VIEW_WITHOUT_RECEIPT"},
    shows_a_lease_of_nobody: {"VIEW_WITHOUT_RECEIPT"},
    shows_an_artifact_of_nobody: {"VIEW_WITHOUT_RECEIPT"},
    leases_what_nobody_accepted: {"TASK_NOT_ACCEPTED"},
    works_without_an_admission: {"TASK_NOT_ACCEPTED"},
    opens_as_a_worker: {"OPENED_BY_OTHERS"},
    ends_twice: {"ENDED_TWICE", "VIEW_WITHOUT_RECEIPT"},
    deposits_without_a_sink: {"SINK_NOT_GRANTED"},
    ends_after_its_lease: {"LEASE_OVER"},
    stores_as_a_principal: {"EDGE_NOT_PERMITTED"},
    hangs_too_deep: {"DEPTH_EXCEEDED"},
    says_it_hangs_less_deep: {"DEPTH_EXCEEDED"},
    is_changed_in_the_ledger: {"CHAIN_BROKEN"},
}
"""What is done, and what is found: nothing else."""


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
async def test_a_deliberate_violation_is_found(desk: ComplyDesk, plant: Callable[[ComplyDesk], Awaitable[str]]) -> None:
    task = await plant(desk)
    assert await desk.finding_codes("--root", task) == PLANTED[plant]
