"""The story that `legivellum explain` tells: its order, its reasons, and what it misses."""

from datetime import UTC, datetime
from typing import Any

import pytest

from legivellum.receipts.chain import chain_seed, link
from legivellum.receipts.story import TaskStory, chain_breaks, endless_leases, in_causal_order, why
from metagate_cli.output import OutputFormat
from metagate_cli.story import show_story

NOW = datetime(2027, 1, 31, 12, tzinfo=UTC)


def receipt(receipt_id: str, second: int = 0, **members: Any) -> dict[str, Any]:
    task = members.pop("task_id", "t")
    return {
        "receipt_id": receipt_id, "stored_at": f"2027-01-30T12:00:{second:02}.000000Z", "emitter": "svc:asyncgate",
        "kind": "obligation", "phase": "accepted", "task_id": task, "obligation_id": task, "status": "NA",
        "recipient_ai": "svc:asyncgate", "metadata": {}, "body": {}, **members,
    }  # fmt: skip


def test_each_stands_behind_its_cause() -> None:
    """Whatever the times say; cycles and causes from elsewhere end no story."""
    receipts = [
        receipt("effect", 1, caused_by_receipt_id="cause"),
        receipt("cause", 5),
        receipt("later effect", 2, caused_by_receipt_id="effect"),
        receipt("a", 3, caused_by_receipt_id="b"),
        receipt("b", 4, caused_by_receipt_id="a"),
        receipt("stray", 0, caused_by_receipt_id="elsewhere"),
    ]
    order = [item["receipt_id"] for item in in_causal_order(receipts)]
    assert order == ["stray", "cause", "effect", "later effect", "a", "b"]


def chained(count: int) -> list[dict[str, Any]]:
    """The first receipts of one chain, linked as the ledger links them."""
    receipts, chain = [], chain_seed("tenant", "t")
    for position in range(1, count + 1):
        stored_at = NOW.replace(second=position)
        chain = link(chain, b"d" * 32, f"r{position}", position, stored_at)
        receipts.append(
            receipt(
                f"r{position}", tenant_id="tenant", root_task_id="t", position=position, sha256=(b"d" * 32).hex(),
                chain_sha256=chain.hex(), stored_at=stored_at.isoformat(),
            )
        )  # fmt: skip
    return receipts


def test_a_broken_chain_is_a_gap() -> None:
    """A receipt that is missing or altered shows at what should follow it; what was linked in order is whole."""
    first, second, third, fourth = chained(4)
    assert chain_breaks([fourth, second, third, first]) == []
    assert chain_breaks([first, third, fourth]) == ["r3"]
    assert chain_breaks([second, third, fourth]) == ["r2"]
    assert chain_breaks([first, {**second, "sha256": "00" * 32}, third, fourth]) == ["r2"]
    assert TaskStory([first, third]).gaps == ["the chain is broken before r3"]


def lease(number: int, second: int, expires_at: str, **members: Any) -> dict[str, Any]:
    body = {"expires_at": expires_at, "evidence": []}
    return receipt(f"l{number}", second, kind="lifecycle", phase="lease_issued", attempt=number, body=body, **members)


@pytest.mark.parametrize("phase", ["complete", "escalate", "queued", "expired", "revoked"])
def test_a_lease_that_ended_is_no_gap(phase: str) -> None:
    issued = lease(1, 1, "2027-01-30T12:01:00.000000Z")
    assert endless_leases([issued, receipt("end", 2, phase=phase)], NOW) == []


def test_a_lease_without_an_end_is_a_gap() -> None:
    """Not while it may live: renewals leave no receipts."""
    assert endless_leases([lease(3, 1, "2027-01-30T11:59:00.000000Z")], NOW) == [("t", 3)]
    assert endless_leases([lease(3, 1, "2027-01-30T12:01:00.000000Z")], NOW) == []


def test_reasons() -> None:
    need = receipt("need", task_id="P.read", phase="complete", status="success")
    issued = lease(2, 1, "", recipient_ai="worker")
    issued["body"]["evidence"] = ["need"]
    admitted = {
        "outcome": "ALLOW", "policy_profile_id": "front", "surface_id": "plans", "derived": {"depth": 1},
        "observed": {"descendants": 4},
    }  # fmt: skip
    denied = {**admitted, "outcome": "DENY", "reason_code": "DEPTH_EXCEEDED", "detail": "depth is 4, at most 3"}
    reasons = [
        why(item, [need])
        for item in (
            issued,
            receipt("a", kind="admission", body=admitted),
            receipt("r", kind="admission", phase="rejected", body=denied),
            receipt("e", phase="escalate", escalation_reason="BROKEN", recipient_ai="lead"),
            receipt("f", phase="complete", status="failure", metadata={"reason": "BROKEN"}),
            receipt("s", kind="artifact", phase="stored", body={"role": "output"}, artifact_size_bytes=7),
        )
    ]
    assert reasons == [
        "lease 2 to worker, needs P.read",
        "admitted by front/plans, depth 1, descendants 4",
        "DEPTH_EXCEEDED by front/plans: depth is 4, at most 3",
        "BROKEN, to lead",
        "failure, BROKEN",
        "output, 7 bytes",
    ]


def test_a_folded_story(capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each task, what it cost, then what is open and with whom; a gap goes to standard error."""
    usage = {"usage": {"calls": 2, "prompt_tokens": 10, "completion_tokens": 5}}
    receipts = [
        receipt("one", 1, task_id="P"),
        lease(1, 2, "2027-01-30T12:01:00Z", task_id="P.read"),
        receipt("end", 3, task_id="P.read", phase="complete", status="failure", metadata={"reason": "BROKEN", **usage}),
    ]
    show_story(TaskStory(receipts, {"P": "lead"}, ["lost"]), OutputFormat.TABLE, fold=True)
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "TASK    STATE           LEASES  WHY              COST",
        "P       open with lead  0       -                -",
        "P.read  failure         1       failure, BROKEN  2 calls, 15 tokens",
        "open: P with lead",
    ]
    assert err == "missing: the cause lost is not in the ledger\n"


def test_the_end_of_one_obligation_is_no_reason_of_another_that_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    """A plan whose planning succeeded is open, and says why it is only where it was escalated."""
    planned = receipt("planned", 1, task_id="P", obligation_id="P:planning", phase="complete", status="success")
    show_story(TaskStory([planned], {"P": "delegate"}), OutputFormat.TABLE, fold=True)
    assert capsys.readouterr().out.splitlines()[1].split() == ["P", "open", "with", "delegate", "0", "-", "-"]
    moved = receipt("moved", 2, task_id="P", phase="escalate", escalation_reason="BROKEN", escalation_to="lead")
    show_story(TaskStory([planned, moved], {"P": "lead"}), OutputFormat.TABLE, fold=True)
    assert "BROKEN" in capsys.readouterr().out.splitlines()[1]
