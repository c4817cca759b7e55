"""A module can be parsed while garbage waits whose finalizers parse too."""

import ast
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.syntax_trees import parse_module


class ParsingGarbage:
    """A cycle that only the collector frees; its finalizer parses deeper in the stack than the test, as a traceback's does."""

    def __init__(self) -> None:
        self.cycle = self

    def __del__(self) -> None:
        self.parse_below(20)

    def parse_below(self, frames: int) -> None:
        if frames:
            self.parse_below(frames - 1)
        else:
            ast.parse("a + b")


@pytest.fixture
def eager_collector() -> Iterator[None]:
    """Collections come often enough that each `ast.parse` of a large module meets one."""
    thresholds = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*thresholds)
    gc.collect()


@pytest.mark.parametrize("enabled", [True, False], ids=["with a collector", "without one"])
def test_a_finalizer_does_not_break_the_tree(tmp_path: Path, eager_collector: None, enabled: bool) -> None:
    """The tree is whole, and the collector is left as it was."""
    path = tmp_path / "large.py"
    path.write_text("\n".join(f"def function_{number}(a, b):\n    return [a, b, {number}]" for number in range(500)))
    garbage = [ParsingGarbage() for _ in range(20)]
    if not enabled:
        gc.disable()
    try:
        del garbage
        assert len(parse_module(path).body) == 500
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
