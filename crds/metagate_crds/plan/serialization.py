"""Plans and explanations as JSON, the same on the command line and in the API. Paths are JSON pointers (RFC 6901)."""

from collections.abc import Iterable
from typing import Any

from metagate_crds.kinds import API_VERSION
from metagate_crds.objects import DeclaredObject, ObjectKey
from metagate_crds.plan.explanation import Explanation, Leaf
from metagate_crds.plan.packet_diff import ABSENT
from metagate_crds.plan.planner import ChangePlan, Effect, PlanIssue
from metagate_crds.rules.findings import Step


def json_pointer(path: Iterable[Step]) -> str:
    """Like `/services/mail/endpoint`."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def plan_to_dict(plan: ChangePlan) -> dict[str, Any]:
    """A plan as JSON. A side of a difference that is not there is left out; null is a value."""
    return {
        "changes": not plan.empty,
        "objects": {change: [_key_to_dict(key) for key in keys] for change, keys in plan.objects.items()},
        "effects": [_effect_to_dict(effect, plan) for effect in plan.effects],
        "troubles": [_issue_to_dict(issue) for issue in plan.issues],
        "cured": [_issue_to_dict(issue) for issue in plan.resolved],
        "others": [_key_to_dict(key) for key in plan.others],
    }


def leaf_to_dict(leaf: Leaf) -> dict[str, Any]:
    """One leaf; `default` means that the spec leaves it out."""
    return {
        "path": json_pointer(leaf.path),
        "value": leaf.value,
        "layer": leaf.layer,
        "origin": json_pointer(("spec", *leaf.origin)),
        "default": not leaf.declared,
    }


def leaves_to_list(explanation: Explanation) -> list[dict[str, Any]]:
    return [leaf_to_dict(leaf) for leaf in explanation.leaves]


def resource_to_dict(declared: DeclaredObject) -> dict[str, Any]:
    """The object as people apply it."""
    key = declared.key
    metadata = {"name": key.name, **({"namespace": key.namespace} if key.namespace else {})}
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": declared.spec}


def _effect_to_dict(effect: Effect, plan: ChangePlan) -> dict[str, Any]:
    return {
        "count": len(effect.principals),
        "packet": _packet_change(effect),
        "principals": [
            {"namespace": principal.namespace, "name": principal.name, "digest": plan.after.get(principal)}
            for principal in effect.principals
        ],
        "differences": [
            {"path": json_pointer(item.path), **_sides(item.before, item.after)} for item in effect.differences
        ],
        "access": [{"what": name, **_sides(before, after)} for name, before, after in effect.access],
    }


def _packet_change(effect: Effect) -> str:
    if effect.before == effect.after:
        return "unchanged"
    if effect.before is None:
        return "added"
    return "removed" if effect.after is None else "changed"


def _sides(before: Any, after: Any) -> dict[str, Any]:
    sides = {"before": before, "after": after}
    return {name: value for name, value in sides.items() if value is not ABSENT}


def _issue_to_dict(issue: PlanIssue) -> dict[str, Any]:
    return {**_key_to_dict(issue.key), "state": issue.state, "message": issue.message}


def _key_to_dict(key: ObjectKey) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}
