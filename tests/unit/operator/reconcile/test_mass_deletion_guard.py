"""D-40: a listing that misses a lot is believed only when a second one says the same."""

from metagate_crds.objects import ObjectKey
from metagate_operator.reconcile.mass_deletion_guard import MassDeletionGuard


def vanished(count: int, kind: str = "PrincipalBinding", start: int = 0) -> set[tuple[ObjectKey, str]]:
    return {(ObjectKey(kind, "default", f"n{i}"), f"uid-{i}") for i in range(start, start + count)}


def guard() -> MassDeletionGuard:
    return MassDeletionGuard(objects=10, share=0.2, seconds=2.0)


def test_few_are_believed_at_once() -> None:
    """Nine of nine, and a fifth of a hundred, are deletions like any other."""
    assert guard().confirmed(vanished(9), {"PrincipalBinding": 9}, 0.0) == vanished(9)
    assert guard().confirmed(vanished(20), {"PrincipalBinding": 100}, 0.0) == vanished(20)


def test_many_wait_for_a_second_listing() -> None:
    """Ten of forty-nine wait two seconds; what is still missing then is gone."""
    deletion_guard = guard()
    assert deletion_guard.confirmed(vanished(10), {"PrincipalBinding": 49}, 0.0) == frozenset()
    assert deletion_guard.waiting
    assert deletion_guard.confirmed(vanished(10), {"PrincipalBinding": 49}, 1.9) == frozenset()
    assert deletion_guard.confirmed(vanished(10), {"PrincipalBinding": 49}, 2.0) == vanished(10)
    assert not deletion_guard.waiting


def test_what_comes_back_is_not_suspected() -> None:
    """Only what both listings miss is gone; the rest starts over."""
    deletion_guard = guard()
    deletion_guard.confirmed(vanished(30), {"PrincipalBinding": 40}, 0.0)
    assert deletion_guard.confirmed(vanished(12, start=20), {"PrincipalBinding": 40}, 2.0) == vanished(10, start=20)
    assert deletion_guard.waiting
    assert deletion_guard.confirmed(set(), {"PrincipalBinding": 30}, 3.0) == frozenset()
    assert not deletion_guard.waiting


def test_kinds_are_counted_apart() -> None:
    """A vanished kind waits; a single object of another kind does not."""
    missing = vanished(15, "Profile") | vanished(1, "Manifest")
    known = {"Profile": 15, "Manifest": 3}
    assert guard().confirmed(missing, known, 0.0) == vanished(1, "Manifest")
