"""Which components a Binding permits: exact keys, `prefix*`, or `*` (D-16)."""

from collections.abc import Iterable


def permits(components: Iterable[str], component_key: str) -> bool:
    """Whether the list admits this component; an empty list admits none."""
    return any(_admits(pattern, component_key) for pattern in components)


def meet(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    """The patterns that admit what both lists admit: those of the first list in their order, then of the other."""
    first, second = tuple(one), tuple(other)
    both = [pattern for pattern in first if any(_covers(wider, pattern) for wider in second)]
    both += [pattern for pattern in second if any(_covers(wider, pattern) for wider in first)]
    return tuple(dict.fromkeys(both))


def _admits(pattern: str, component_key: str) -> bool:
    if pattern.endswith("*"):
        return component_key.startswith(pattern[:-1])
    return component_key == pattern


def _covers(wider: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return wider.endswith("*") and pattern.startswith(wider[:-1])
    return _admits(wider, pattern)
