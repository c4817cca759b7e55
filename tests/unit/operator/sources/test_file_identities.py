"""What files do not know of themselves: uid, generation, age (D-53)."""

from datetime import UTC, datetime, timedelta
from itertools import count

from metagate_crds.objects import ObjectKey
from metagate_operator.sources.file_identities import FileIdentities

KEY = ObjectKey("Profile", "default", "worker")


def book() -> FileIdentities:
    ids, seconds = count(1), count()
    return FileIdentities(
        mint=lambda: f"uid-{next(ids)}",
        clock=lambda: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds)),
    )


def test_generation_counts_spec_changes() -> None:
    """First sight mints uid and age; each other spec is one generation more, the same spec none."""
    identities = book()
    first = identities.observe(KEY, "a")
    assert identities.observe(KEY, "a") is first
    second = identities.observe(KEY, "b")
    assert (first.generation, second.generation) == (1, 2)
    assert (first.uid, first.first_seen) == (second.uid, second.first_seen)


def test_who_comes_back_is_somebody_else() -> None:
    """A removed object that reappears has another uid and starts at generation 1."""
    identities = book()
    first = identities.observe(KEY, "a")
    identities.forget(KEY)
    again = identities.observe(KEY, "a")
    assert (again.uid, again.generation) != (first.uid, first.generation)
    assert again.generation == 1


def test_only_what_was_saved_leaves_the_unsaved() -> None:
    """What is seen while a publish is under way is part of the next one."""
    identities = book()
    identities.observe(KEY, "a")
    unsaved = identities.unsaved()
    newer = identities.observe(KEY, "b")
    identities.saved(unsaved)
    assert identities.unsaved().seen == (newer,)
    identities.saved(identities.unsaved())
    assert not identities.unsaved()
    identities.forget(KEY)
    assert identities.unsaved().forgotten == (KEY,)


def test_restoring_keeps_what_was_never_saved() -> None:
    """The database's memory is taken over; newer sightings survive a reload after an error."""
    identities = book()
    stored = identities.observe(KEY, "a")
    identities.saved(identities.unsaved())
    newer = identities.observe(KEY, "b")
    identities.restore([stored], [])
    assert identities.all()[KEY] == newer
    fresh = book()
    fresh.restore([stored], [])
    assert fresh.observe(KEY, "a") is stored
    assert not fresh.unsaved()
