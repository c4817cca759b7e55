"""A batch leaves what the same requests leave one after the other: `DecidedBatch` sees what `observe` would see (IG-01)."""

import json
import random
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.memorygate.conftest import new_id, rows

from interrogate.admission_receipt import admission_receipt, admitted_task
from interrogate.database import InterrogateDatabase, ObservedRequest, Record
from interrogate.decide import decide
from interrogate.decision import Decision
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope
from interrogate.fold import DecidedBatch
from interrogate.observation import ObservationRequest, Requester, observation_request
from interrogate.replaying import replay
from interrogate.ruleset import Ruleset
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.models import PolicyProfileSpec

POLICY_SPEC: dict[str, Any] = {
    "limits": {
        "maxSpawnDepth": 2,
        "maxTotalDescendants": 4,
        "maxRepeatsPerCapability": 3,
        "ancestorWindow": {"size": 4, "maxRepeats": 1},
    },
    "budget": {"initial": 3},
    "invariants": {"maxArtifactBytes": 10},
    "surfaces": [
        {
            "surfaceId": "public",
            "principals": ["*"],
            "parentage": "Tenant",
            "capabilities": {"allow": ["*"], "deny": ["denied"]},
            # So slow that nothing is refilled while the test runs.
            "rateLimit": {"requests": 18, "per": "100h"},
            "rateLimits": [{"name": "mails", "capabilities": ["mail"], "requests": 3, "per": "100h"}],
        }
    ],
}
BODY = PolicyProfileSpec.model_validate(POLICY_SPEC).declared()
RULESET = Ruleset.from_policy(BODY, profile="strict", policy_hash=digest(canonical(BODY)), revision=1)


@dataclass(frozen=True, slots=True)
class RandomRequest:
    envelope: Envelope
    requester: Requester
    key: str | None

    def question(self, tenant: UUID) -> ObservationRequest:
        return observation_request(
            self.envelope,
            self.requester,
            tenant=tenant,
            receipt_id=new_id(),
            idempotency_key=self.key,
            rate_keys=RULESET.rate_keys_of(self.envelope, self.requester.principal_key),
        )


def random_request(rng: random.Random, tasks: list[dict[str, Any]], tenant_names: list[str]) -> RandomRequest:
    """Some request, mostly below one of few tasks, so that they meet."""
    parent = rng.choice(tasks)
    causality: dict[str, Any] = {
        "root_task_id": parent["root"],
        "parent_task_id": parent["task"],
        "caused_by_receipt_id": parent["receipt"],
        "spawn_depth": rng.choice([None, None, parent["depth"] + 1, 7]),
        "capability_id": rng.choice(["doc", "doc", "mail", "denied", "other"]),
    }
    if rng.random() < 0.2:
        name = rng.choice(tenant_names)
        causality |= {"root_task_id": name, "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0}
    elif rng.random() < 0.3:
        causality["task_id"] = rng.choice(tenant_names)
    envelope = {
        "tenant_id": "t",
        "surface_id": "public",
        "policy_profile_id": "strict",
        "payload_kind": rng.choice(["task", "task", "task", "query", "lease"]),
        "payload": rng.randrange(4),
        "causality": causality,
        "artifact_bytes": rng.choice([1, 1, 1, 11]),
    }
    requester = Requester(rng.choice(["alice", "bob"]), "principal")
    key = f"key-{rng.randrange(8)}" if rng.random() < 0.15 else None
    return RandomRequest(parse_envelope(json.dumps(envelope).encode()), requester, key)


def record_of(made: RandomRequest, question: ObservationRequest, seen: Any, decision: Decision) -> Record:
    body = admission_receipt(
        made.envelope,
        made.requester,
        decision,
        seen,
        RULESET,
        tenant=question.tenant,
        receipt_id=question.receipt_id,
        policy_revision=1,
    )
    return Record(
        request=question,
        observed=seen,
        body=body,
        policy_hash=RULESET.policy_hash,
        policy_revision=1,
        ruleset=RULESET.canonical_body,
        admitted=admitted_task(made.envelope, decision, question.receipt_id),
        rate_tats=decision.rate_tats,
        spawns_under_lease=decision.spawns_under_lease,
        forwards=(),
    )


def answer_of(body: str) -> tuple[Any, ...]:
    """What a caller learns, but for what is new each time."""
    record = json.loads(body)["body"]
    derived = record["derived"]
    return record["outcome"], record["reason_code"], derived["depth"], derived["budget_remaining"]


async def decide_all(
    database: InterrogateDatabase, tenant: UUID, requests: list[RandomRequest]
) -> list[tuple[Any, ...]]:
    """As the evaluator does: one batch; what depends on another of it, or moved, is observed again in its order."""
    answers: dict[int, tuple[Any, ...]] = {}
    waiting = {place: (item, item.question(tenant)) for place, item in enumerate(requests)}
    while waiting:
        batch, records = DecidedBatch(), {}
        observed = await database.observe([question for _, question in waiting.values()])
        for (place, (item, question)), observation in zip(waiting.items(), observed, strict=True):
            if (answer := _known(observation)) is not None:
                answers[place] = answer
                continue
            seen = batch.adjusted(question, observation.observed)
            if seen is None:
                break  # In order: nothing behind it is decided before it.
            decision = decide(item.envelope, item.requester, RULESET, seen)
            batch.add(question, seen, decision, begins=item.envelope.begins)
            records[place] = record_of(item, question, seen, decision)
        recorded = await database.record(list(records.values())) if records else []
        for place, result in zip(records, recorded, strict=True):
            assert result.outcome == "STORED", result
            assert result.stored is not None
            answers[place] = answer_of(result.stored.body)
        waiting = {place: pair for place, pair in waiting.items() if place not in answers}
    return [answers[place] for place in range(len(requests))]


def _known(observation: ObservedRequest) -> tuple[Any, ...] | None:
    if observation.replay is not None:
        return answer_of(observation.replay.body)
    return ("conflict",) if observation.conflict else None


TABLES = {
    "root": "root_task_id, version, descendants",
    "capability": "root_task_id, capability_id, admissions",
    "rate": "rate_key",
}


async def left_behind(database: AdmissionDatabase, tenant: UUID) -> dict[str, list[Any]]:
    """The counters of a tenant."""
    return {
        table: sorted(
            await rows(database.superuser, f"SELECT {columns} FROM interrogate.{table} WHERE tenant = $1", tenant)
        )
        for table, columns in TABLES.items()
    }


@pytest.mark.invariant("INV-105")
async def test_a_batch_is_decided_as_one_request_after_the_other(
    admission_database: AdmissionDatabase, admissions: InterrogateDatabase
) -> None:
    reasons = set()
    for seed in range(6):
        answers = await compared(admission_database, admissions, seed)
        reasons |= {answer[1] for answer in answers if len(answer) > 1}
    # The counters that a batch itself moves were met, else there was nothing to see.
    assert {"RATE_LIMITED", "REPEATS_EXCEEDED", "DESCENDANTS_EXCEEDED", None} <= reasons
    # And the ledger tells the order of a batch: all of it follows again from the receipts alone.
    report = await replay(admission_database.superuser)
    assert (report.mismatches, report.mismatch_count) == ([], 0)
    assert report.decisions > 500


async def compared(
    admission_database: AdmissionDatabase, admissions: InterrogateDatabase, seed: int
) -> list[tuple[Any, ...]]:
    """The same requests in two tenants, alone and together."""
    names = [f"task-{number}" for number in range(12)]
    answers, tenants = [], (uuid4(), uuid4())
    per_tenant: list[list[RandomRequest]] = []
    for tenant in tenants:
        rng = random.Random(seed)
        tasks = await trees(admissions, tenant)
        per_tenant.append([random_request(rng, tasks, names) for _ in range(64)])
    alone, together = per_tenant
    answers.append([(await decide_all(admissions, tenants[0], [item]))[0] for item in alone])
    answers.append(await decide_all(admissions, tenants[1], together))
    assert answers[0] == answers[1]
    left = [await left_behind(admission_database, tenant) for tenant in tenants]
    assert left[0] == left[1]
    return answers[0]


async def trees(database: InterrogateDatabase, tenant: UUID) -> list[dict[str, Any]]:
    """Two roots with a child each."""
    tasks = []
    # A principal of its own: its rate is not that of the requests.
    carol = Requester("carol", "principal")
    for root in ("root-1", "root-2"):
        above: dict[str, Any] = {}
        for depth in (0, 1):
            causality = {
                "root_task_id": root,
                "parent_task_id": above.get("task"),
                "caused_by_receipt_id": above.get("receipt"),
                "spawn_depth": depth,
                "capability_id": "begin",
                **({"task_id": f"{root}-child"} if depth else {}),
            }
            envelope = {
                "tenant_id": "t",
                "surface_id": "public",
                "policy_profile_id": "strict",
                "payload_kind": "task",
                "payload": None,
                "causality": causality,
            }
            item = RandomRequest(parse_envelope(json.dumps(envelope).encode()), carol, None)
            question = item.question(tenant)
            [observation] = await database.observe([question])
            decision = decide(item.envelope, carol, RULESET, observation.observed)
            [result] = await database.record([record_of(item, question, observation.observed, decision)])
            assert (decision.outcome, result.outcome) == ("ALLOW", "STORED"), decision
            above = {
                "root": root,
                "task": decision.task_id,
                "receipt": question.receipt_id,
                "depth": depth,
            }
            tasks.append(above)
    return tasks
