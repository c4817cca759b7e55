"""`legivellum comply` on what the real gates leave: nothing where all is well, and each violation by its code."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.delegate.driving import admitted, closed, lease_next, run_task
from tests.integration.delegate.gate_fixture import PlanTenant

pytestmark = pytest.mark.asyncio(loop_scope="session")
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
DOCUMENTS = {"documents": ["s3://in/one", "s3://in/two"]}


async def legivellum(
    tenant: PlanTenant, folder: Path, *arguments: str, person: str = "principal"
) -> subprocess.CompletedProcess[str]:
    key = folder / f"{person}.key"
    key.write_text(tenant.principals[person].key)
    gates = {
        f"METAGATE_{gate.upper()}_URL": tenant.gates.url(gate)
        for gate in ("memorygate", "asyncgate", "depotgate", "interrogate")
    }
    path = os.environ["PATH"]  # noqa: TID251 - of a child
    environment = {"PATH": path, "METAGATE_API_KEY_FILE": str(key), **gates}
    return await asyncio.to_thread(
        subprocess.run, [*PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


async def test_an_admitted_plan_complies(tenant: PlanTenant, tmp_path: Path) -> None:
    """One tree, and the whole tenant."""
    plan = await admitted(tenant, "document.review", DOCUMENTS)
    for capability in ("document.summarise", "document.summarise", "document.merge"):
        await run_task(tenant, capability)
    close = await lease_next(tenant, "plan.close")
    await closed(tenant, plan["plan_id"], "admitting")
    await run_task(tenant, lease=close)
    for arguments in (("--root", plan["plan_id"]), ()):
        done = await legivellum(tenant, tmp_path, "comply", "-o", "json", *arguments)
        assert (done.returncode, json.loads(done.stdout)) == (
            0,
            {"receipts": 30, "roots": 1, "not_asked": ["metagate"], "findings": []},
        ), done.stderr
