"""Each gate is killed at each call of a worker, before it arrives or when it is done and its answer is lost; and comes
again. The step ends once, with one output, whoever had done what.
"""

from pathlib import Path

import pytest
from tests.integration.asyncgate.worker_fixture import KILLED_AFTER, KILLED_BEFORE
from tests.integration.worker.plan_fixture import GRANTED, PlanGates
from tests.integration.worker.worker_kinds import JOIN, KINDS

pytestmark = pytest.mark.slow

CALLS = {
    "the lease": ("asyncgate", "POST /lease"),
    "the end": ("asyncgate", "POST /complete"),
    "the plan": ("depotgate", "GET /artifacts/{plan}"),
    "an input": ("depotgate", "GET /artifacts/{input}"),
    "the output": ("depotgate", "POST /artifacts"),
    "how a need ended": ("memorygate", "GET /receipts/"),
}


@pytest.mark.invariant("INV-088")
@pytest.mark.parametrize("when", [KILLED_BEFORE, KILLED_AFTER], ids=["before", "after"])
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_gate_is_killed_at_a_call(gates: PlanGates, tmp_path: Path, kind: str, name: str, when: str) -> None:
    gate_name, call = CALLS[name]
    gate = getattr(gates, gate_name)
    pointer = gates.deposit("principal", b"one ", "input")
    plan = gates.plan(
        {"step_id": "first", "job": {"inputs": [{"name": "a", "value": "zero "}]}, "authority": GRANTED},
        {
            "step_id": "second", "depends_on": ["first"], "authority": GRANTED,
            "job": {"inputs": [{"name": "a", "step": "first"}, {"name": "b", "pointer": pointer}]},
        },
    )  # fmt: skip
    gate.kills[call.format(plan=plan.pointer, input=pointer)] = when
    with KINDS[kind](gates, tmp_path).running(JOIN):
        # A ledger that is away gives the step back for 30 s.
        receipt = plan.wait_for("second", seconds=90)
    assert gate.kills == {}
    assert receipt["status"] == "success"
    assert gates.artifact(receipt["artifact_pointer"])[0] == b"zero one "
    for step_id in ("first", "second"):
        phases = plan.phases(step_id)
        assert (phases.count("complete"), phases.count("escalate")) == (1, 0)
        assert len(gates.artifacts_of(plan.task_id(step_id))) == 1
