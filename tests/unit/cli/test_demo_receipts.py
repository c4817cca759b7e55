"""What the demo's receipts are compared with: the table of 33, and what a person is told of each difference."""

from typing import Any

import pytest

from metagate_cli.demo_receipts import EXPECTED, ReceiptLine, differences

PLAN = "01M8HZF1ZKJ72PZT3JRRB1SRKP"
INPUTS = [
    {
        "receipt_id": f"input-{number}", "emitter": "svc:depotgate", "kind": "artifact", "phase": "stored",
        "task_id": f"task-{number}", "obligation_id": f"task-{number}", "caused_by_receipt_id": "NA",
    }
    for number in range(2)
]  # fmt: skip


def receipts_of_the_table() -> dict[ReceiptLine, dict[str, Any]]:
    """A ledger that holds the table: ids by the line's number."""
    numbers = {line: f"receipt-{number}" for number, (line, _) in enumerate(EXPECTED)}
    receipts = {
        line: {
            "receipt_id": numbers[line], "emitter": line.emitter, "kind": line.kind, "phase": line.phase,
            "task_id": line.task.replace("P", PLAN), "obligation_id": line.obligation.replace("P", PLAN),
            "caused_by_receipt_id": "NA" if cause is None else numbers[cause],
            "status": "success", "artifact_pointer": None, "body": {},
        }
        for line, cause in EXPECTED
    }  # fmt: skip

    def one(emitter: str, phase: str, task: str) -> dict[str, Any]:
        return receipts[
            next(line for line in receipts if (line.emitter, line.phase, line.obligation) == (emitter, phase, task))
        ]

    one("svc:depotgate", "stored", "P.merge")["artifact_pointer"] = "depot:report"
    one("delegate", "complete", "P")["artifact_pointer"] = "depot:report"
    for task, needs in (("P.merge", ("P.read-0", "P.read-1")), ("P.close", ("P.merge",))):
        ends = [one("svc:asyncgate", "complete", need)["receipt_id"] for need in needs]
        one("svc:asyncgate", "lease_issued", task)["body"] = {"evidence": [{"receipt_id": end} for end in ends]}
    return receipts


def problems_of(receipts: dict[ReceiptLine, dict[str, Any]], inputs: list[dict[str, Any]] = INPUTS) -> list[str]:
    return differences(list(receipts.values()), inputs, PLAN)


def test_the_table_has_33_rows_of_which_one_has_no_cause() -> None:
    assert len(EXPECTED) == len({line for line, _ in EXPECTED}) == 33
    assert [str(line) for line, cause in EXPECTED if cause is None] == ["svc:interrogate admission/accepted of P"]
    assert {cause for _, cause in EXPECTED if cause} <= {line for line, _ in EXPECTED}


def test_a_ledger_that_holds_the_table_does_not_differ() -> None:
    assert problems_of(receipts_of_the_table()) == []


@pytest.mark.parametrize("row", range(33))
def test_every_row_is_needed(row: int) -> None:
    """Without it the row is missing, and what it caused names a receipt that is not there."""
    receipts = receipts_of_the_table()
    line, _ = EXPECTED[row]
    del receipts[line]
    problems = problems_of(receipts)
    assert f"{line}: is missing" in problems
    assert len(problems) == 1 + sum(cause == line for _, cause in EXPECTED)


@pytest.mark.parametrize("row", range(33))
def test_every_cause_is_compared(row: int) -> None:
    receipts = receipts_of_the_table()
    line, cause = EXPECTED[row]
    other = EXPECTED[5][0] if cause is None else None
    receipts[line]["caused_by_receipt_id"] = "NA" if other is None else receipts[other]["receipt_id"]
    assert problems_of(receipts) == [f"{line}: is caused by {other or 'nothing'}, and not by {cause or 'nothing'}"]


def test_one_receipt_too_many_is_a_difference() -> None:
    receipts = receipts_of_the_table()
    line = next(line for line in receipts if line.phase == "lease_issued")
    again = {**receipts[line], "receipt_id": "again"}
    assert differences([*receipts.values(), again], INPUTS, PLAN) == [
        f"{line}: is one too many, caused by svc:asyncgate lifecycle/queued of P.read-0"
    ]


def test_the_end_is_a_success_with_the_merged_report() -> None:
    receipts = receipts_of_the_table()
    end = next(
        line for line in receipts if (line.emitter, line.phase, line.obligation) == ("delegate", "complete", "P")
    )
    receipts[end] |= {"status": "failure", "artifact_pointer": "depot:other"}
    assert problems_of(receipts) == [
        "delegate obligation/complete of P: is failure, and not success",
        "the plan ended with depot:other, and not with depot:report",
    ]


def test_a_lease_names_the_ends_that_its_task_needed() -> None:
    receipts = receipts_of_the_table()
    lease = next(line for line in receipts if (line.phase, line.task) == ("lease_issued", "P.merge"))
    receipts[lease]["body"]["evidence"].pop()
    assert problems_of(receipts) == [f"{lease}: does not name the ends of P.read-0, P.read-1"]


def test_inputs_are_roots_that_nothing_caused() -> None:
    receipts = receipts_of_the_table()
    assert problems_of(receipts, INPUTS[:1]) == ["the inputs have 1 receipts, and not 2"]
    caused = {**INPUTS[0], "caused_by_receipt_id": "something"}
    below = {**INPUTS[1], "root_task_id": "task-0"}
    assert problems_of(receipts, [caused, below]) == [
        "svc:depotgate artifact/stored of task-0: is no input that was deposited",
        "svc:depotgate artifact/stored of task-1: is no root",
    ]
