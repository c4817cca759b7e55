"""Two packets compared leaf by leaf. A leaf is a value that is neither a non-empty object nor a non-empty list."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from metagate_crds.rules.findings import Step


class Absent:
    """Stands on the side of a difference where nothing is; JSON's null is a value."""

    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()


@dataclass(frozen=True, slots=True)
class LeafDifference:
    """One leaf that differs, `ABSENT` on the side where it is not."""

    path: tuple[Step, ...]
    before: Any
    after: Any


def iterate_leaves(value: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Every leaf with its path, in the order of the document."""
    if isinstance(value, dict) and value:
        for key, member in value.items():
            yield from iterate_leaves(member, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from iterate_leaves(item, (*path, index))
    else:
        yield path, value


def diff_packets(before: bytes | None, after: bytes | None) -> tuple[LeafDifference, ...]:
    """The leaves that differ between two bodies, by path; None is no packet."""
    old = dict(iterate_leaves(json.loads(before))) if before is not None else {}
    new = dict(iterate_leaves(json.loads(after))) if after is not None else {}
    return _diff_leaves(old, new)


def diff_json(before: Any, after: Any) -> tuple[LeafDifference, ...]:
    """The leaves that differ between two JSON values, by path."""
    return _diff_leaves(dict(iterate_leaves(before)), dict(iterate_leaves(after)))


def _diff_leaves(
    old: Mapping[tuple[Step, ...], Any], new: Mapping[tuple[Step, ...], Any]
) -> tuple[LeafDifference, ...]:
    return tuple(
        LeafDifference(path, old.get(path, ABSENT), new.get(path, ABSENT))
        for path in sorted(old.keys() | new.keys(), key=_sort_key)
        if path not in old or path not in new or not same_json(old[path], new[path])
    )


def same_json(left: Any, right: Any) -> bool:
    """Whether two values are the same JSON: true is not 1, as it is in Python."""
    return left is right or sorted_json(left) == sorted_json(right)


def sorted_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _sort_key(path: tuple[Step, ...]) -> list[tuple[int, int | str]]:
    return [(0, step) if isinstance(step, int) else (1, step) for step in path]
