"""compile_world: from what is declared to what is served. Pure."""

from metagate_crds.declared import LastGood, ObjectKey
from metagate_crds.snapshot import Compiled
from metagate_crds.world import World


def compile_world(world: World, last_good: LastGood, only: frozenset[ObjectKey] | None = None) -> Compiled:
    """Compile the world, or only the closure given: with the same answer for those objects as the full run."""
    raise NotImplementedError
