"""The declared world as the source last told it: events change it, a listing replaces it.

Events may be repeated, late, or out of order; each object's uid and generation decide what is news. What a listing
merely misses passes the brake first (D-40).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import structlog

from metagate_crds.world import CompileSettings, Declared, Namespace, ObjectKey, World
from metagate_operator.brake import Brake
from metagate_operator.source import Event, Gone, Listing, NamespaceGone, NamespacePut, Put

_log = structlog.stdlib.get_logger("metagate.reconcile")
_REMEMBERED: Final = 10_000


class DeclaredWorld:
    """What is declared, and which incarnations were seen to go."""

    def __init__(self, settings: CompileSettings, brake: Brake) -> None:
        self.settings = settings
        self.now = World(settings)
        self._brake = brake
        self._gone: dict[str, None] = {}

    def knows(self, event: Event) -> bool:
        """Whether this is no news: our own status writes come back as events."""
        if not isinstance(event, Put):
            return False
        known = self.now.objects.get(event.object.key)
        return known is not None and (known.uid, known.generation) == (event.object.uid, event.object.generation)

    def apply(self, event: Event) -> frozenset[ObjectKey]:
        """Take the event in; what must be compiled again because of it."""
        match event:
            case Put(declared):
                return self._put(declared)
            case Gone(key, uid):
                return self._remove(key, uid)
            case NamespacePut(space):
                known = self.now.namespaces.get(space.name)
                return self.now.put_namespace(space) if known != space else frozenset()
            case NamespaceGone(name, uid):
                known = self.now.namespaces.get(name)
                gone = known is not None and uid in {"", known.uid}
                return self.now.remove_namespace(name) if gone else frozenset()
            case _:
                return frozenset()

    def _put(self, declared: Declared) -> frozenset[ObjectKey]:
        known = self.now.objects.get(declared.key)
        if known is not None and known.uid == declared.uid and known.generation >= declared.generation:
            return frozenset()
        if declared.uid in self._gone:
            return frozenset()  # told late: an incarnation that was seen to go never comes back
        return self.now.put(declared)

    def _remove(self, key: ObjectKey, uid: str) -> frozenset[ObjectKey]:
        known = self.now.objects.get(key)
        if gone := uid or (known.uid if known is not None else ""):
            self._gone[gone] = None
        while len(self._gone) > _REMEMBERED:
            self._gone.pop(next(iter(self._gone)))
        if known is None or (uid and known.uid != uid):
            return frozenset()
        return self.now.remove(key)

    def listed(
        self,
        listing: Listing,
        stored: Mapping[ObjectKey, Declared],
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
        before = {**stored, **self.now.objects}
        missing = {(key, declared.uid) for key, declared in before.items() if key not in world.objects}
        held = missing - self._brake.believed(missing, Counter(key.kind for key in before), at)
        known_spaces = {**spaces, **self.now.namespaces}
        for key, _ in held:
            if key.namespace not in world.namespaces and key.namespace in known_spaces:
                world.put_namespace(known_spaces[key.namespace])
            world.put(before[key])
        if held:
            said = "a listing misses too many objects: a second one must confirm it"
            _log.warning("brake", held=len(held), known=len(before), message=said)
        return world, len(held)

    def replace(self, world: World) -> None:
        self.now = world
