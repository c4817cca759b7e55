"""CogniGate between the five gates: what a model wrote becomes a draft that DeleGate judged, and nothing more."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.integration.cognigate.model_server import ModelServer, completion, replies
from tests.integration.delegate.gate_fixture import GateGroup, PlanTenant, plan_tenant
from tests.integration.delegate.test_with_workers import end_of, planned

AUTHORITY = {
    "invokeCognigate": True,
    "writeBeyondReceipts": True,
    "sinks": ["depotgate/output"],
    "cognition": {"models": ["small"], "calls": 3, "tokens": 9_000, "seconds": 60},
}
GOAL: dict[str, Any] = {
    "capability": "goal.plan",
    "parameters": {"type": "object", "properties": {"goal": {"type": "string"}}},
    "escalation": [],
    "result": "draft",
    "steps": [
        {
            "id": "draft",
            "capability": "plan.draft",
            "job": {
                "instruction": "Write a plan for the goal.",
                "inputs": [{"name": "goal", "value": "${parameters.goal}"}],
                "output": {"mime": "application/json"},
            },
            "authority": AUTHORITY,
        }
    ],
}
STEP = {"id": "read", "capability": "document.summarise", "job": {"instruction": "Summarise."}}
GOOD = {"escalation": [], "steps": [STEP]}
BAD = {"escalation": [], "steps": [{**STEP, "dependsOn": ["nobody"]}]}


@asynccontextmanager
async def thinking(tenant: PlanTenant, model: ModelServer, folder: Path) -> AsyncIterator[None]:
    """CogniGate as the tenant's worker, with a model that its packet declares."""
    gates = tenant.gates
    key, packet, secret = folder / "worker.key", folder / "packet.json", folder / "llm.key"
    key.write_text(tenant.principals["worker"].key)
    secret.write_text("sk-of-the-provider")
    services = {
        name: {"type": name, "endpoint": gates.url(name)}
        for name in ("asyncgate", "memorygate", "depotgate", "interrogate", "delegate")
    }
    services["llm"] = {
        "type": "chat-completions", "endpoint": model.url, "auth": {"scheme": "bearer", "secretRef": "llm-key"},
        "metadata": {"models": {"small": "scripted-1"}, "structured": "json_object"},
    }  # fmt: skip
    required = [{"name": "llm-key", "ref_kind": "File", "ref_name": str(secret), "required": True}]
    content = {"startup": {"startup_id": "x"}, "services": services, "policy": {}, "required_env": required}
    packet.write_text(json.dumps(content))
    environ = {
        "PATH": os.environ["PATH"],  # noqa: TID251 - of a child
        "METAGATE_API_KEY_FILE": str(key),
        "METAGATE_PACKET_FILE": str(packet),
        "COGNIGATE_PORT": "0",
    }
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from cognigate.main import main; main()", "serve"],
            env=environ,
            stdout=log,
            stderr=log,
        )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 40) == 0, (folder / "log").read_text()
    finally:
        process.kill()
        process.wait()


async def counts(gates: GateGroup) -> dict[str, int]:
    """Rows of what a draft must not make."""
    connection = await asyncpg.connect(gates.database.superuser)
    try:
        tables = ("memorygate.receipt", "memorygate.obligation", "asyncgate.task", "depotgate.artifact")
        return {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables}
    finally:
        await connection.close()


@pytest.mark.invariant("INV-092")
async def test_a_draft_is_judged_mended_and_creates_nothing(gates: GateGroup, tmp_path: Path) -> None:
    """The findings of DeleGate go back to the model once. The plan that asked for the draft ends; the draft is bytes."""
    tenant = await plan_tenant(gates, templates={"goal": GOAL})
    with ModelServer().serving() as model:
        model.script = [replies(completion(json.dumps(BAD))), replies(completion(json.dumps(GOOD)))]
        async with thinking(tenant, model, tmp_path):
            plan = await planned(tenant, {"template": "goal", "parameters": {"goal": "Know the weather."}})
            draft = await end_of(tenant, f"{plan['plan_id']}.draft")
            whole = await end_of(tenant, plan["plan_id"])
    assert (draft["status"], whole["status"]) == ("success", "success")
    assert (draft["artifact_mime"], draft["metadata"]["usage"]["calls"]) == ("application/json", 2)
    first, second = model.asked
    assert (first["model"], first["response_format"]) == ("scripted-1", {"type": "json_object"})
    assert model.headers[0]["Authorization"] == "Bearer sk-of-the-provider"
    assert "UnknownStep" in second["messages"][-1]["content"]
    body = await tenant.ask("observer", "GET", "depotgate", f"/artifacts/{draft['artifact_pointer']}")
    assert body.json() == GOOD
    tasks = {receipt["task_id"] for receipt in await tenant.receipts()}
    assert not [task for task in tasks if task.endswith(".read")]
    assert not any("sk-of-the-provider" in json.dumps(receipt) for receipt in await tenant.receipts())


@pytest.mark.invariant("INV-092")
async def test_a_draft_that_stays_wrong_is_a_failure(gates: GateGroup, tmp_path: Path) -> None:
    tenant = await plan_tenant(gates, templates={"goal": GOAL})
    with ModelServer().serving() as model:
        model.otherwise = replies(completion(json.dumps(BAD)))
        async with thinking(tenant, model, tmp_path):
            plan = await planned(tenant, {"template": "goal", "parameters": {"goal": "Know the weather."}})
            draft = await end_of(tenant, f"{plan['plan_id']}.draft")
            whole = await end_of(tenant, plan["plan_id"])
    assert (draft["status"], draft["metadata"]["reason"]) == ("failure", "OUTPUT_INVALID")
    assert whole["status"] == "failure"
    assert len(model.asked) == 2


@pytest.mark.invariant("INV-092", "INV-087")
async def test_its_credential_validates_and_plans_nothing(gates: GateGroup) -> None:
    """A worker may have a draft judged; /plans is for principals and delegates."""
    tenant = await plan_tenant(gates, templates={"goal": GOAL})
    before = await counts(gates)
    judged = await tenant.ask("worker", "POST", "delegate", "/plans/validate", {"intent": {"draft": GOOD}})
    assert (judged.status_code, judged.json()["valid"]) == (200, True)
    planned_ = await tenant.ask("worker", "POST", "delegate", "/plans", {"intent": {"draft": GOOD}})
    assert planned_.status_code == 403
    assert await counts(gates) == before
