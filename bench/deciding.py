"""`make bench-deciding`: what one decision of InterroGate costs in Python, as a ratio to `json.loads` of its envelope.

Thread time, so that what else runs on the machine hardly matters. The kinds alternate, round by round; figures are the
medians of the rounds. Nothing is stored: the two statements of a batch are the ledger's benchmark.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import console
import machine

from interrogate.admission_receipt import admission_receipt, read_admission
from interrogate.decide import decide, explain
from interrogate.envelope_parser import parse_envelope
from interrogate.observation import Observed, ParentTask, Requester
from interrogate.ruleset import Ruleset
from metagate_crds.models import PolicyProfileSpec

RESULTS = Path(__file__).resolve().parent / "results"
ROUNDS, CALLS = 15, 2_000
GOALS = {"decide": 10.0, "decide, one small rule": 30.0}
"""Microseconds."""

CAUSE = "01J00000000000000000000000"
POLICY: dict[str, Any] = {
    "limits": {
        "maxSpawnDepth": 5,
        "maxTotalDescendants": 1000,
        "maxRepeatsPerCapability": 50,
        "ancestorWindow": {"size": 8, "maxRepeats": 2},
    },
    "budget": {"initial": 32},
    "invariants": {"allowedTargets": ["delegate"], "maxArtifactBytes": 1_048_576},
    "surfaces": [
        {
            "surfaceId": "public",
            "principals": ["team-*"],
            "capabilities": {"allow": ["doc.*"], "deny": ["doc.delete"]},
            "rateLimit": {"requests": 100, "per": "1m", "burst": 20},
            "targets": [{"name": "delegate", "url": "http://delegate:8004/plans"}],
        }
    ],
}
ENVELOPE = {
    "tenant_id": "team-a",
    "surface_id": "public",
    "policy_profile_id": "front-desk",
    "payload_kind": "plan_request",
    "payload": {"text": "Review the draft and answer the mail."},
    "causality": {
        "root_task_id": "task-1",
        "parent_task_id": "task-2",
        "caused_by_receipt_id": CAUSE,
        "spawn_depth": 3,
        "capability_id": "doc.review",
    },
}


def ruleset(*sources: str) -> Ruleset:
    rules = [{"name": f"rule-{number}", "cel": source} for number, source in enumerate(sources)]
    spec = POLICY | {"invariants": POLICY["invariants"] | {"rules": rules}}
    body = PolicyProfileSpec.model_validate(spec).declared()
    return Ruleset.from_policy(body, profile="front-desk", policy_hash="0" * 64, revision=1)


def measured() -> dict[str, Callable[[], Any]]:
    raw = json.dumps(ENVELOPE).encode()
    envelope, requester = parse_envelope(raw), Requester("team-worker", "principal")
    parent = ParentTask("task-1", 2, 10, ("doc.plan", "mail.send"), CAUSE, "team-worker", open=True)
    observed = Observed(
        at=1_900_000_000_000_000, version=6, descendants=5, repeats=2, parent=parent, cause_task_id="task-2",
        rate_tats=(0,),
    )  # fmt: skip
    plain, small = ruleset(), ruleset("size(payload.text) < 100")
    decision = decide(envelope, requester, plain, observed)
    assert decision.outcome == decide(envelope, requester, small, observed).outcome == "ALLOW"

    def receipt() -> str:
        return admission_receipt(
            envelope, requester, decision, observed, plain, tenant=UUID(int=1), receipt_id=CAUSE, policy_revision=1
        )

    form = receipt()
    return {
        "json.loads": lambda: json.loads(raw),
        "parse the envelope": lambda: parse_envelope(raw),
        "decide": lambda: decide(envelope, requester, plain, observed),
        "decide, one small rule": lambda: decide(envelope, requester, small, observed),
        "explain": lambda: explain(envelope, requester, plain, observed),
        "write the receipt": receipt,
        "read the receipt": lambda: read_admission(form),
    }


def microseconds(call: Callable[[], Any]) -> float:
    started = time.thread_time()
    for _ in range(CALLS):
        call()
    return (time.thread_time() - started) / CALLS * 1e6


def main() -> None:
    calls = measured()
    rounds = [{name: microseconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    medians = {name: statistics.median(figures[name] for figures in rounds) for name in calls}
    ratios = {name: statistics.median(figures[name] / figures["json.loads"] for figures in rounds) for name in calls}
    console.table(
        f"One decision, {len(json.dumps(ENVELOPE))} bytes of envelope",
        ("", "µs", "÷ json.loads", "goal µs"),
        [[name, round(medians[name], 1), round(ratios[name], 1), GOALS.get(name)] for name in calls],
    )
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "deciding.json"
    kept.write_text(
        json.dumps({"machine": machine.described(), "microseconds": medians, "ratios": ratios}, indent=2) + "\n"
    )
    console.step(f"written: {kept}")


if __name__ == "__main__":
    main()
