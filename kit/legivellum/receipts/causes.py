"""What a reader of a chain of causes must know: where a cause is missing, and where the chain closes on itself."""

from collections.abc import Mapping


def chain_markers(causes: Mapping[str, str | None], *, truncated: bool) -> dict[str, object]:
    """`causes`: the cause of each receipt of the chain, by receipt id. `truncated`: the chain goes on beyond them."""
    dangling = sorted({cause for cause in causes.values() if cause is not None and cause not in causes})
    return {
        # With a bounded answer a missing cause may only lie beyond the bound.
        "dangling": [] if truncated else dangling,
        "cycles": cycles(causes),
        "truncated": truncated,
    }


def cycles(causes: Mapping[str, str | None]) -> list[str]:
    """The smallest id of each cycle. Every receipt has one cause, so walking up from each finds them all."""
    visited: set[str] = set()
    smallest: list[str] = []
    for start in causes:
        path: list[str] = []
        at: str | None = start
        while at is not None and at in causes and at not in visited:
            visited.add(at)
            path.append(at)
            at = causes[at]
        if at in path:
            smallest.append(min(path[path.index(at) :]))
    return sorted(smallest)
