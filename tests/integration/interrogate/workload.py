"""Requests of every kind, decided by the gate's own rules and recorded, for as long as marks move: what the evaluator does, without HTTP.

Its policies change with a number, so that processes can be told to use a newer one in the middle of it.
"""

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.integration.memorygate.conftest import new_id
from tests.unit.interrogate.requests import ABSENT, merged

from interrogate.admission_receipt import admission_receipt, admitted_task
from interrogate.database import InterrogateDatabase, Record
from interrogate.decide import decide
from interrogate.decision import AdmissionOutcome, Decision
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope
from interrogate.fold import DecidedBatch
from interrogate.observation import ObservationRequest, Requester, observation_request
from interrogate.ruleset import Ruleset
from legivellum.postgres.errors import Unavailable
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.models import PolicyProfileSpec

PROFILE = "front-desk"
ALICE, BOB, OBSERVER = Requester("alice", "principal"), Requester("bob", "worker"), Requester("eve", "observer")
LOST_LEASE = Requester("alice", "principal", lease_id="no lease")


def ruleset(revision: int) -> Ruleset:
    """Narrow limits, which change with every revision: now the one is reached first, now the other."""
    declared = {
        "limits": {
            "maxSpawnDepth": 2 + revision % 2,
            # In some revisions the one count is reached first, in the others the other.
            "maxTotalDescendants": 20 + revision if revision % 4 < 2 else 1_000,
            "maxRepeatsPerCapability": 1_000 if revision % 4 < 2 else 6,
            "ancestorWindow": {"size": 3, "maxRepeats": 1 + revision % 2},
        },
        "budget": {"required": False, "initial": 6},
        "invariants": {"canSpawn": True, "maxArtifactBytes": 1_000 + revision, "rules": [{"name": "small", "cel": "payload < 100"}]},
        "surfaces": [{
            "surfaceId": "public", "principals": ["alice", "bob"], "parentage": "Tenant", "mayBegin": ["bob"],
            "capabilities": {"allow": ["doc.*", "mail.send"], "deny": ["doc.delete"]},
            "rateLimit": {"requests": 2_000, "per": "1s", "burst": 50},
            "rateLimits": [{"name": "mail", "capabilities": ["mail.*"], "requests": 10, "per": "1s"}],
            "targets": [{"name": "docs", "url": "http://docs/"}],
        }],
    }  # fmt: skip
    body = PolicyProfileSpec.model_validate(declared).declared()
    return Ruleset.from_policy(body, profile=PROFILE, policy_hash=digest(canonical(body)), revision=revision)


@dataclass(frozen=True, slots=True)
class KnownTask:
    """An admitted task, to which children can be added."""

    root: str
    task_id: str
    receipt_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    envelope: Envelope
    requester: Requester
    receipt_id: str
    idempotency_key: str | None


@dataclass(slots=True)
class Workload:
    """The clients of one process: they share what they know of the trees, as agents of one tenant may."""

    database: InterrogateDatabase
    tenant: UUID
    known: list[KnownTask]
    newest: int
    """The revision to which a client refreshes when it is behind."""
    outcomes: Counter[str] = field(default_factory=Counter)
    answered: Path | None = None
    """Where the receipt of each answer is written, for who looks after the process died."""

    async def run(self, batches: int, revision: int, seed: int) -> None:
        chance = random.Random(seed)
        rules = ruleset(revision)
        for _ in range(batches):
            waiting = [self._request(chance) for _ in range(chance.randint(1, 15))]
            while waiting:
                waiting, behind = await self._decide(waiting, rules)
                if behind:
                    rules = ruleset(self.newest)

    async def _decide(self, waiting: Sequence[WaitingRequest], rules: Ruleset) -> tuple[list[WaitingRequest], bool]:
        """One turn of observe, decide and record; what has to be decided again, and whether the policy was behind."""
        requests = [self._question(item, rules) for item in waiting]
        try:
            answers = await self.database.observe(requests)
        except Unavailable:
            return list(waiting), False
        batch, records, recorded_items, again = DecidedBatch(), [], [], []
        for item, request, answer in zip(waiting, requests, answers, strict=True):
            if answer.replay is not None or answer.conflict:
                self.outcomes["conflict" if answer.conflict else "replay"] += 1
                continue
            observed = batch.adjusted(request, answer.observed)
            if observed is None:
                again.append(item)
                continue
            policy = rules if item.envelope.policy_profile_id == PROFILE else None
            decision = decide(item.envelope, item.requester, policy, observed)
            batch.add(request, observed, decision, begins=item.envelope.begins)
            body = admission_receipt(
                item.envelope, item.requester, decision, observed, policy, tenant=self.tenant, receipt_id=item.receipt_id,
                policy_revision=rules.revision,
            )  # fmt: skip
            recorded_items.append((item, decision))
            records.append(Record(
                request=request, observed=observed, body=body, policy_hash=policy and policy.policy_hash,
                policy_revision=rules.revision, ruleset=policy and policy.canonical_body,
                admitted=admitted_task(item.envelope, decision, item.receipt_id), rate_tats=decision.rate_tats,
                spawns_under_lease=decision.spawns_under_lease, forwards=(),
            ))  # fmt: skip
        behind = False
        try:
            outcomes = await self.database.record(records) if records else []
        except Unavailable:
            # Stored or not, nobody can say: the same requests again, under the same receipt ids.
            self.outcomes["unavailable"] += 1
            return again + [item for item, _ in recorded_items], False
        for (item, decision), recorded in zip(recorded_items, outcomes, strict=True):
            behind = behind or recorded.outcome == "POLICY_BEHIND"
            if recorded.outcome in {"MOVED", "POLICY_BEHIND"}:
                again.append(item)
                self.outcomes[recorded.outcome] += 1
            else:
                self._count(item, decision, recorded.outcome)
        return again, behind

    def _count(self, item: WaitingRequest, decision: Decision, outcome: str) -> None:
        if self.answered is not None and outcome == "STORED":
            with self.answered.open("a") as answers:
                answers.write(f"{item.receipt_id}\n")
        if outcome != "STORED":
            self.outcomes[outcome] += 1
            return
        self.outcomes[str(decision.reason_code or decision.outcome)] += 1
        if decision.outcome is AdmissionOutcome.ALLOW and item.envelope.begins:
            assert decision.root_task_id is not None
            assert decision.depth is not None
            task_id = decision.task_id or item.receipt_id
            self.known.append(KnownTask(decision.root_task_id, task_id, item.receipt_id, decision.depth))

    def _question(self, item: WaitingRequest, rules: Ruleset) -> ObservationRequest:
        keys = (
            rules.rate_keys_of(item.envelope, item.requester.principal_key)
            if item.envelope.policy_profile_id == PROFILE
            else ()
        )
        return observation_request(
            item.envelope,
            item.requester,
            tenant=self.tenant,
            receipt_id=item.receipt_id,
            idempotency_key=item.idempotency_key,
            rate_keys=keys,
        )

    def _request(self, chance: random.Random) -> WaitingRequest:
        requester = chance.choices([ALICE, BOB, OBSERVER, LOST_LEASE], [80, 14, 3, 3])[0]
        members = self._root(chance) if chance.random() < 0.1 or not self.known else self._child(chance)
        if chance.random() < 0.35:
            members = merged(members, self._change(chance))
        key = f"key-{chance.randrange(400)}" if chance.random() < 0.1 else None
        return WaitingRequest(parse_envelope(json.dumps(members).encode()), requester, new_id(), key)

    def _root(self, chance: random.Random) -> dict[str, Any]:
        root = new_id()
        return self._envelope(chance, root_task_id=root, parent_task_id=None, caused_by_receipt_id=None, spawn_depth=0)

    def _child(self, chance: random.Random) -> dict[str, Any]:
        # The first few roots are those of all processes; most of the load is on them.
        parent = chance.choice(self.known[:4] if chance.random() < 0.6 else self.known[-40:])
        return self._envelope(
            chance, root_task_id=parent.root, parent_task_id=parent.task_id, caused_by_receipt_id=parent.receipt_id,
            spawn_depth=parent.depth + 1,
        )  # fmt: skip

    def _envelope(self, chance: random.Random, **causality: Any) -> dict[str, Any]:
        capability = chance.choice(["doc.read", "doc.write", "doc.plan", "mail.send"])
        return {
            "tenant_id": str(self.tenant), "surface_id": "public", "policy_profile_id": PROFILE,
            "payload_kind": chance.choices(["plan_request", "query"], [9, 1])[0], "payload": 1,
            "causality": {**causality, "capability_id": capability},
        }  # fmt: skip

    def _change(self, chance: random.Random) -> Mapping[str, Any]:
        changes: list[dict[str, Any]] = [
            {"payload_kind": ABSENT}, {"policy_profile_id": "unknown"}, {"surface_id": "unknown"}, {"tenant_id": "somebody-else"},
            {"causality": {"spawn_depth": 0}}, {"causality": {"recursion_budget_remaining": 0}}, {"artifact_bytes": 10_000},
            {"causality": {"capability_id": "doc.delete"}}, {"target": "unlisted"}, {"target": "docs"}, {"payload": 1_000},
            {"causality": {"task_id": f"task-{chance.randrange(60)}"}}, {"causality": {"parent_task_id": new_id()}},
            {"causality": {"caused_by_receipt_id": new_id()}}, {"causality": {"spawn_depth": None}},
        ]  # fmt: skip
        return chance.choice(changes)
