"""What is declared, as the source last reported it: events change it, a listing replaces it.

Events may be repeated, late, or out of order; each object's uid and generation decide what is news. What a listing
merely misses must be confirmed by the mass-deletion guard first (D-40).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog

from metagate_crds.compile.world import World
from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey
from metagate_operator.reconcile.mass_deletion_guard import MassDeletionGuard
from metagate_operator.sources.source import Event, Listing, NamespaceGone, NamespacePut, ObjectGone, ObjectPut

_log = structlog.stdlib.get_logger("metagate.reconcile")
_REMEMBERED: Final = 10_000


class DesiredState:
    """What is declared, and the incarnations whose deletion was witnessed."""

    def __init__(self, settings: CompileSettings, guard: MassDeletionGuard) -> None:
        self.settings = settings
        self.world = World(settings)
        self._guard = guard
        self._gone: dict[str, None] = {}

    def is_known(self, event: Event) -> bool:
        """Whether this is no news: our own status writes come back as events."""
        if not isinstance(event, ObjectPut):
            return False
        known = self.world.objects.get(event.object.key)
        return known is not None and (known.uid, known.generation) == (event.object.uid, event.object.generation)

    def apply(self, event: Event) -> frozenset[ObjectKey]:
        """Take the event in; what must be compiled again because of it."""
        match event:
            case ObjectPut(declared):
                return self._put(declared)
            case ObjectGone(key, uid):
                return self._remove(key, uid)
            case NamespacePut(space):
                known = self.world.namespaces.get(space.name)
                return self.world.put_namespace(space) if known != space else frozenset()
            case NamespaceGone(name, uid):
                known = self.world.namespaces.get(name)
                gone = known is not None and uid in {"", known.uid}
                return self.world.remove_namespace(name) if gone else frozenset()
            case _:
                return frozenset()

    def _put(self, declared: DeclaredObject) -> frozenset[ObjectKey]:
        known = self.world.objects.get(declared.key)
        if known is not None and known.uid == declared.uid and known.generation >= declared.generation:
            return frozenset()
        if declared.uid in self._gone:
            return frozenset()  # a late event: an incarnation whose deletion was witnessed never comes back
        return self.world.put(declared)

    def _remove(self, key: ObjectKey, uid: str) -> frozenset[ObjectKey]:
        known = self.world.objects.get(key)
        if gone := uid or (known.uid if known is not None else ""):
            self._gone[gone] = None
        while len(self._gone) > _REMEMBERED:
            self._gone.pop(next(iter(self._gone)))
        if known is None or (uid and known.uid != uid):
            return frozenset()
        return self.world.remove(key)

    def merge_listing(
        self,
        listing: Listing,
        stored: Mapping[ObjectKey, DeclaredObject],
        spaces: Mapping[str, Namespace],
        at: float,
    ) -> tuple[World, int]:
        """The world of a listing, and how many objects it misses that are put back until a second one agrees.

        `stored` and `spaces` are what the database holds: the only memory at a start. `at` is a monotonic second.
        Nothing is taken over yet: `replace` does that, once it is published.
        """
        world = World(self.settings, listing.namespaces, listing.objects)
        for declared in listing.objects:
            self._gone.pop(declared.uid, None)
        before = {**stored, **self.world.objects}
        missing = {(key, declared.uid) for key, declared in before.items() if key not in world.objects}
        unconfirmed = missing - self._guard.confirmed(missing, Counter(key.kind for key in before), at)
        known_spaces = {**spaces, **self.world.namespaces}
        for key, _ in unconfirmed:
            if key.namespace not in world.namespaces and key.namespace in known_spaces:
                world.put_namespace(known_spaces[key.namespace])
            world.put(before[key])
        if unconfirmed:
            message = "a listing misses too many objects: a second one must confirm it"
            _log.warning("brake", held=len(unconfirmed), known=len(before), message=message)
        return world, len(unconfirmed)

    def replace(self, world: World) -> None:
        self.world = world
