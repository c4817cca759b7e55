"""Plans and explanations as JSON, the same on the command line and in the API. Paths are JSON pointers (RFC 6901)."""

from collections.abc import Iterable
from typing import Any

from metagate_crds.declared import Declared, ObjectKey
from metagate_crds.explaining import Explained, Leaf
from metagate_crds.kinds import API_VERSION
from metagate_crds.paths import Step
from metagate_crds.planning import ABSENT, Effect, Plan, Trouble


def pointer(path: Iterable[Step]) -> str:
    """Like `/services/mail/endpoint`."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def plan_told(plan: Plan) -> dict[str, Any]:
    """What a plan says. A side of a difference that is not there is left out; null is a value."""
    return {
        "changes": not plan.empty,
        "objects": {how: [_key(key) for key in keys] for how, keys in plan.objects.items()},
        "effects": [_effect(effect, plan) for effect in plan.effects],
        "troubles": [_trouble(each) for each in plan.troubles],
        "cured": [_trouble(each) for each in plan.cured],
        "others": [_key(key) for key in plan.others],
    }


def leaf_told(leaf: Leaf) -> dict[str, Any]:
    """One leaf; `default` says that the spec leaves it out."""
    return {
        "path": pointer(leaf.path),
        "value": leaf.value,
        "layer": leaf.layer,
        "origin": pointer(("spec", *leaf.origin)),
        "default": not leaf.declared,
    }


def leaves_told(explained: Explained) -> list[dict[str, Any]]:
    return [leaf_told(leaf) for leaf in explained.leaves]


def resource(declared: Declared) -> dict[str, Any]:
    """The object as people apply it."""
    key = declared.key
    metadata = {"name": key.name, **({"namespace": key.namespace} if key.namespace else {})}
    return {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata, "spec": declared.spec}


def _effect(effect: Effect, plan: Plan) -> dict[str, Any]:
    packet = (
        "unchanged" if effect.before == effect.after
        else "added" if effect.before is None
        else "removed" if effect.after is None
        else "changed"
    )  # fmt: skip
    return {
        "count": len(effect.principals),
        "packet": packet,
        "principals": [
            {"namespace": who.namespace, "name": who.name, "digest": plan.after.get(who)} for who in effect.principals
        ],
        "differences": [{"path": pointer(each.path), **_sides(each.before, each.after)} for each in effect.differences],
        "access": [{"what": what, **_sides(before, after)} for what, before, after in effect.access],
    }


def _sides(before: Any, after: Any) -> dict[str, Any]:
    sides = {"before": before, "after": after}
    return {name: value for name, value in sides.items() if value is not ABSENT}


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return {**_key(trouble.key), "state": trouble.state, "message": trouble.message}


def _key(key: ObjectKey) -> dict[str, str]:
    return {"kind": key.kind, "namespace": key.namespace, "name": key.name}
