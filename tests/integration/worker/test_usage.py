"""`legivellum usage` on what workers handed over: from the handler's Output to the sum, through real gates."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.integration.worker.plan_fixture import GRANTED, PlanGates, RunningPlan

from legivellum_worker import Failed, Output, Work, Worker, WorkerSettings

COMMAND = "import sys; sys.argv = ['legivellum', *{arguments}]; from metagate_cli.main import legivellum; legivellum()"
USAGE = {
    "model": "small",
    "calls": 2,
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "seconds": 0.5,
    "tools": {"a/b": 1},
}


def asked(gates: PlanGates, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    key = folder / "observer.key"
    key.write_text(gates.tenant.principals["observer"].key)
    return subprocess.run(
        [sys.executable, "-c", COMMAND.format(arguments=["usage", *arguments, "--key-file", str(key)])],
        env={"METAGATE_MEMORYGATE_URL": gates.memorygate.url, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def document(gates: PlanGates, folder: Path, *arguments: str) -> dict[str, Any]:
    done = asked(gates, folder, *arguments, "-o", "json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture
def worked(gates: PlanGates, tmp_path: Path) -> RunningPlan:
    """A text in the receipt, an artifact, a failure, and one that says nothing of its cost."""
    worker = Worker(WorkerSettings(environ=gates.environment(tmp_path)), wait_seconds=1, stop_seconds=1)

    @worker.on("index")
    def index(work: Work) -> Output:
        step = work.task_id.rpartition(".")[2]
        if step == "fails":
            raise Failed("LIMIT_TOKENS", usage={**USAGE, "calls": 5})
        return Output("done", usage=None if step == "free" else USAGE)

    thread = threading.Thread(target=worker.run, args=(4,), daemon=True)
    thread.start()
    plan = gates.plan(
        {"step_id": "text"}, {"step_id": "stored", "authority": GRANTED}, {"step_id": "fails"}, {"step_id": "free"}
    )
    for step_id in ("text", "stored", "fails", "free"):
        plan.wait_for(step_id)
    worker.stop()
    thread.join(30)
    return plan


@pytest.mark.slow
def test_what_handlers_say_is_summed(worked: RunningPlan, gates: PlanGates, tmp_path: Path) -> None:
    """Of one tree and of the tenant; a failure costs as much as a success."""
    one = document(gates, tmp_path, "--root", worked.task_id("text"))
    assert one["items"] == [
        {
            "principal_ai": "principal", "model": "small", "ends": 1, "calls": 2, "prompt_tokens": 100,
            "cached_tokens": 0, "completion_tokens": 7, "seconds": 0.5, "tools": {"a/b": 1},
        }
    ]  # fmt: skip
    failed = document(gates, tmp_path, "--root", worked.task_id("fails"))
    assert (failed["total"]["calls"], failed["total"]["ends"]) == (5, 1)
    everything = document(gates, tmp_path, "--since", "1h", "--principal", "principal")
    assert everything["total"]["calls"] >= 9
    assert everything["total"]["ends"] < everything["receipts"]
    assert document(gates, tmp_path, "--principal", "nobody")["total"]["ends"] == 0
    assert (
        document(gates, tmp_path, "--root", worked.task_id("text"), "--since", "2999-01-01T00:00:00Z")["receipts"] == 0
    )


@pytest.mark.slow
def test_the_table_and_its_refusals(worked: RunningPlan, gates: PlanGates, tmp_path: Path) -> None:
    shown = asked(gates, tmp_path, "--root", worked.task_id("text"))
    assert shown.stdout.splitlines() == [
        "PRINCIPAL  MODEL  ENDS  CALLS  PROMPT  CACHED  COMPLETION  SECONDS",
        "principal  small  1     2      100     0       7           0.5",
    ]
    free = asked(gates, tmp_path, "--root", worked.task_id("free"))
    assert "receipts says what it cost" in free.stdout
    for arguments, words in (((), "--root, --principal or --since"), (("--since", "x"), "a time like")):
        refused = asked(gates, tmp_path, *arguments)
        assert refused.returncode == 2
        assert words in refused.stderr
