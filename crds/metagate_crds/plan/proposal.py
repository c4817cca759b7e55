"""The world as it would be after some specs were applied to it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

from metagate_crds.compile.world import World
from metagate_crds.objects import DeclaredObject, Namespace, ObjectKey
from metagate_crds.plan.packet_diff import same_json
from metagate_crds.structural_schema import with_defaults

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)


def propose_world(current: World, specs: Mapping[ObjectKey, Any], *, prune: bool = False) -> World:
    """The world after these specs were applied: known objects keep uid and age, new ones are the youngest.

    `prune`: what is declared now and not among them would be removed.
    """
    objects = {} if prune else dict(current.objects)
    youngest = max((declared.created for declared in current.objects.values()), default=None)
    for position, (key, spec) in enumerate(sorted(specs.items(), key=lambda item: item[0])):
        known = current.objects.get(key)
        if known is None:
            created = (youngest or _oldest_namespace(current)) + timedelta(seconds=position + 1)
            # The same uid in every run: plans of the same files must compare equal.
            objects[key] = DeclaredObject(key, str(uuid5(NAMESPACE_URL, "/".join(key))), 1, created, spec)
        elif same_spec(key, known.spec, spec):
            objects[key] = known
        else:
            objects[key] = replace(known, spec=spec, generation=known.generation + 1)
    namespaces = dict(current.namespaces)
    for key in objects:
        if key.namespace and key.namespace not in namespaces:
            uid = str(uuid5(NAMESPACE_URL, f"namespace/{key.namespace}"))
            namespaces[key.namespace] = Namespace(key.namespace, uid, _oldest_namespace(current))
    return World(current.settings, namespaces.values(), objects.values(), beside=current)


def same_spec(key: ObjectKey, left: Any, right: Any) -> bool:
    """Whether two specs declare the same: a cluster's has its defaults written in, a file's need not."""
    return same_json(left, right) or same_json(with_defaults(key.kind, left), with_defaults(key.kind, right))


def _oldest_namespace(world: World) -> datetime:
    return min((namespace.created for namespace in world.namespaces.values()), default=_EPOCH)
