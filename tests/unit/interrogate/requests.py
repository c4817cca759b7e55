"""Requests for admission that pass, to be changed in one place or another, and the profile by which they pass."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from interrogate.decide import decide
from interrogate.decision import Decision
from interrogate.envelope import Envelope
from interrogate.envelope_parser import parse_envelope, read_envelope
from interrogate.observation import Observed, ObservedLease, ParentTask, Requester
from interrogate.ruleset import Ruleset
from metagate_crds.models import PolicyProfileSpec

NOW = 1_900_000_000_000_000
ABSENT: Any = object()
"""The value of a member that is left out."""
CAUSE = "01J00000000000000000000000"
PARENT_RECEIPT = "01J00000000000000000000001"

POLICY: dict[str, Any] = {
    "limits": {
        "maxSpawnDepth": 5,
        "maxTotalDescendants": 100,
        "maxRepeatsPerCapability": 20,
        "ancestorWindow": {"size": 4, "maxRepeats": 1},
    },
    "budget": {"required": False, "initial": 32},
    "invariants": {"canSpawn": True, "allowedTargets": ["delegate", "doc*"], "maxArtifactBytes": 1000},
    "surfaces": [
        {
            "surfaceId": "public",
            "principals": ["alice", "team-*"],
            "capabilities": {"allow": ["doc.*", "mail.send"], "deny": ["doc.delete"]},
            "rateLimit": {"requests": 10, "per": "1s", "burst": 3},
            "targets": [
                {"name": "delegate", "url": "http://delegate:8004/plans"},
                {"name": "docs", "url": "http://docs/"},
                {"name": "unlisted", "url": "http://unlisted/"},
            ],
        }
    ],
}


def merged(base: Any, patch: Any) -> Any:
    """RFC 7396, with ABSENT for what is removed: null is a value of requests."""
    if not isinstance(base, Mapping) or not isinstance(patch, Mapping):
        return patch
    result = {**base}
    for name, value in patch.items():
        if value is ABSENT:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def ruleset_of(changes: Mapping[str, Any] | None = None, *, surface: Mapping[str, Any] | None = None) -> Ruleset:
    """The rules of POLICY with changes, through the language's own model: as MetaGate would serve them."""
    body = merged(PolicyProfileSpec.model_validate(POLICY).declared(), changes or {})
    if surface is not None:
        body["surfaces"] = [merged(body["surfaces"][0], surface)]
    return Ruleset.from_policy(body, profile="front-desk", policy_hash="0" * 64, revision=7)


ROOT: dict[str, Any] = {
    "tenant_id": "team-a",
    "surface_id": "public",
    "policy_profile_id": "front-desk",
    "payload_kind": "plan_request",
    "payload": {"text": "read"},
    "causality": {
        "root_task_id": "root-1",
        "parent_task_id": None,
        "caused_by_receipt_id": None,
        "spawn_depth": 0,
        "capability_id": "doc.read",
    },
}
"""A principal begins a tree."""
CHILD = merged(ROOT, {"causality": {"parent_task_id": "parent-1", "caused_by_receipt_id": CAUSE, "spawn_depth": 3}})
"""The custodian of a task of depth 2 adds one below it."""

ALICE = Requester("alice", "principal")


def envelope_from(base: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Envelope:
    return parse_envelope(json.dumps(merged(base, changes or {})).encode())


def tool_call(base: Mapping[str, Any], changes: Mapping[str, Any] | None = None, tool: str = "mail/send") -> Envelope:
    """What only the MCP endpoint makes: `POST /v1/evaluate` refuses the kind."""
    members = merged(merged(base, {"payload_kind": "tool_call"}), changes or {})
    return read_envelope(members, json.dumps(members["payload"]).encode(), tool=tool)


def parent(**changes: Any) -> ParentTask:
    values: dict[str, Any] = {
        "root_task_id": "root-1",
        "depth": 2,
        "budget": 10,
        "recent": ("mail.send", "doc.plan", "doc.plan"),
        "admitted_by": PARENT_RECEIPT,
        "custodian": "alice",
        "open": True,
    }
    return ParentTask(**values | changes)


def lease(**changes: Any) -> ObservedLease:
    values: dict[str, Any] = {
        "lease_id": "lease-1",
        "task_id": "parent-1",
        "principal_ai": "alice",
        "number": 1,
        "authority": {"spawn": {"max": 5}, "maxDepth": 5, "exposeTools": ["mail/*"]},
        "spawned": 0,
    }
    return ObservedLease(**values | changes)


def observed_root(**changes: Any) -> Observed:
    values: dict[str, Any] = {"at": NOW, "rate_tats": (0,)}
    return Observed(**values | changes)


def observed_child(**changes: Any) -> Observed:
    values: dict[str, Any] = {
        "at": NOW,
        "version": 6,
        "descendants": 5,
        "repeats": 2,
        "parent": parent(),
        "cause_task_id": "parent-1",
        "rate_tats": (0,),
    }
    return Observed(**values | changes)


def decide_root(
    envelope: Mapping[str, Any] | None = None,
    *,
    requester: Requester = ALICE,
    ruleset: Ruleset | None = None,
    **observed: Any,
) -> Decision:
    """A root request with changes."""
    return decide(envelope_from(ROOT, envelope), requester, ruleset or ruleset_of(), observed_root(**observed))


def decide_child(
    envelope: Mapping[str, Any] | None = None,
    *,
    requester: Requester = ALICE,
    ruleset: Ruleset | None = None,
    **observed: Any,
) -> Decision:
    """A request below an admitted task, with changes."""
    return decide(envelope_from(CHILD, envelope), requester, ruleset or ruleset_of(), observed_child(**observed))
