"""Steps of a plan: what a handler is given, where its output goes, and who takes over what fails. Each test runs on a
function, an `async def` and a program.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.integration.worker.plan_fixture import GRANTED, PlanGates
from tests.integration.worker.worker_kinds import BYTES, FAIL, INSTRUCTION, JOIN, KINDS, WorkerKind

pytestmark = pytest.mark.slow


@pytest.fixture(params=KINDS)
def worker(request: pytest.FixtureRequest, gates: PlanGates, tmp_path: Path) -> WorkerKind:
    return KINDS[request.param](gates, tmp_path)


def step(step_id: str = "read", **members: Any) -> dict[str, Any]:
    return {"step_id": step_id, "authority": GRANTED, **members}


def test_inputs_become_an_output_in_the_granted_sink(worker: WorkerKind, gates: PlanGates) -> None:
    """A pointer, a value, and the results of the steps before: one as an artifact, one as a text in its receipt."""
    pointer = gates.deposit("principal", b"one ", "input")
    value = {"name": "b", "value": {"k": "two"}}
    with worker.running(JOIN):
        plan = gates.plan(
            step("read", job={"inputs": [{"name": "a", "pointer": pointer}, value, {"name": "c", "value": " three"}]}),
            step("note", job={"inputs": [{"name": "n", "value": " noted"}]}, authority={}),
            step("merge", depends_on=["read", "note"], job={
                "inputs": [{"name": "parts", "step": "read"}, {"name": "remark", "step": "note"}],
            }),
        )  # fmt: skip
        merged = plan.wait_for("merge")
    read = plan.wait_for("read")
    assert (read["status"], read["artifact_mime"], read["outcome_kind"]) == (
        "success",
        "text/markdown",
        "artifact_pointer",
    )
    assert gates.artifact(read["artifact_pointer"]) == (b'one {"k": "two"} three', "text/markdown")
    assert plan.wait_for("note")["outcome_text"] == " noted"
    assert gates.artifact(merged["artifact_pointer"])[0] == b'one {"k": "two"} three noted'


def test_the_instruction_stands_in_the_job(worker: WorkerKind, gates: PlanGates) -> None:
    """A text without a sink travels in the receipt."""
    with worker.running(INSTRUCTION):
        plan = gates.plan(step(job={"instruction": "Summarise in five sentences."}, authority={}))
        assert plan.wait_for("read")["outcome_text"] == "Summarise in five sentences."
    assert gates.artifacts_of(plan.task_id("read")) == []


@pytest.mark.invariant("INV-124")
@pytest.mark.parametrize(
    "authority",
    [
        {"writeBeyondReceipts": True},
        {"sinks": ["depotgate/output"]},
        {"writeBeyondReceipts": True, "sinks": ["depotgate/supporting"]},
    ],
    ids=["no sink", "not beyond receipts", "another sink"],
)
def test_what_authority_does_not_grant_is_not_written(worker: WorkerKind, gates: PlanGates, authority: Any) -> None:
    with worker.running(BYTES):
        plan = gates.plan(step(authority=authority))
        receipt = plan.wait_for("read")
    assert receipt["metadata"]["reason"] == "AUTHORITY_INSUFFICIENT"
    assert gates.artifacts_of(plan.task_id("read")) == []
    assert not [call for call in gates.depotgate.calls if call.startswith("POST")]


def test_bytes_go_into_the_sink(worker: WorkerKind, gates: PlanGates) -> None:
    with worker.running(BYTES):
        plan = gates.plan(step())
        receipt = plan.wait_for("read")
    assert gates.artifact(receipt["artifact_pointer"]) == (b"\xff\x00", "image/png")


def test_an_output_above_the_jobs_bound_is_not_stored(worker: WorkerKind, gates: PlanGates) -> None:
    with worker.running(BYTES):
        plan = gates.plan(step(job={"output": {"maxBytes": 1}}), step("more", job={"output": {"maxBytes": 2}}))
        assert plan.wait_for("read")["metadata"]["reason"] == "OUTPUT_TOO_LARGE"
        assert plan.wait_for("more")["status"] == "success"
    assert gates.artifacts_of(plan.task_id("read")) == []


def test_a_failure_goes_to_whom_the_rule_names(worker: WorkerKind, gates: PlanGates) -> None:
    """A rule of another cause does not apply."""
    rules = [{"on": ["limit"], "to": "admin"}, {"on": ["failure"], "class": "trust", "to": "other"}]
    with worker.running(FAIL):
        plan = gates.plan(step(escalation=rules), step("plain", escalation=rules[:1]))
        receipt = plan.wait_for("read")
        assert plan.wait_for("plain")["metadata"]["reason"] == "EXIT_3"
    assert (receipt["phase"], receipt["escalation_class"], receipt["escalation_reason"]) == (
        "escalate",
        "trust",
        "EXIT_3",
    )
    assert receipt["recipient_ai"] == "other"


def test_an_unmet_need_goes_to_whom_the_rule_names(worker: WorkerKind, gates: PlanGates) -> None:
    """The handler does not run for it."""
    rules = [{"on": ["dependency"], "class": "scope", "to": "admin"}]
    with worker.running(FAIL):
        plan = gates.plan(step("read"), step("merge", depends_on=["read"], escalation=rules))
        receipt = plan.wait_for("merge")
    assert (receipt["phase"], receipt["escalation_reason"]) == ("escalate", "DEPENDENCY_NOT_MET")
    assert receipt["recipient_ai"] == "admin"


ABSENT = "depot:01ARZ3NDEKTSV4RRFFQ69G5FAV:" + "0" * 64
REFUSED = {
    "too large": {"name": "a", "pointer": "", "maxBytes": 8},
    "of nobody": {"name": "a", "pointer": ABSENT},
    "of another store": {"name": "a", "pointer": "s3://bucket/key"},
    "a large value": {"name": "a", "value": "x" * 9, "maxBytes": 8},
    "a step that it does not need": {"name": "a", "step": "elsewhere"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_that_is_refused_ends_the_task(worker: WorkerKind, gates: PlanGates, name: str) -> None:
    """And nothing of it is read: DepotGate is asked for the size, which its answer names before the bytes."""
    declared = dict(REFUSED[name])
    if declared.get("pointer") == "":
        declared["pointer"] = gates.deposit("principal", b"123456789", "input")
    with worker.running(JOIN):
        plan = gates.plan(step(job={"inputs": [declared]}))
        assert plan.wait_for("read")["metadata"]["reason"] == "INPUT_REFUSED"


def test_input_names_lead_nowhere_else(worker: WorkerKind, gates: PlanGates) -> None:
    """A name with slashes is a path below `inputs`, and one that climbs is refused where names become files."""
    climbing = {"name": "a/../../../escaped", "value": "x"}
    with worker.running(JOIN):
        plan = gates.plan(step(job={"inputs": [climbing]}))
        receipt = plan.wait_for("read")
    is_program = type(worker).__name__ == "ProgramKind"
    assert (receipt.get("metadata") or {}).get("reason") == ("INPUT_REFUSED" if is_program else None)
    assert not list(worker.folder.rglob("escaped"))


def test_a_pointer_to_no_plan_ends_the_task(worker: WorkerKind, gates: PlanGates) -> None:
    """Also one to a plan in which the step is another task: a task cannot borrow another one's job."""
    with worker.running(JOIN):
        plan = gates.plan(step(job={"inputs": [{"name": "a", "value": "x"}]}))
        assert plan.wait_for("read")["status"] == "success"
        for pointer in (plan.pointer, gates.deposit("principal", b"{}", "input"), f"depot:{'0' * 26}:{'0' * 64}"):
            other = gates.plan(step("read"), capability="nobody")
            borrowed = hashlib.sha256(pointer.encode()).hexdigest()[:12]
            gates.put(f"{other.plan_id}.{borrowed}", f"{pointer}#read", "index")
            stolen = other.wait_for(borrowed)
            assert stolen["metadata"]["reason"] == "INPUT_REFUSED"
