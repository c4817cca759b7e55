"""Two gates share the kit, and two charts share the library chart: no six lines in a row stand in both."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GATES = (ROOT / "api" / "metagate_api", *sorted((ROOT / "gates").glob("[a-z]*")))
CHARTS = tuple(path.parent for path in sorted(ROOT.glob("charts/*/values.yaml")))
WINDOW = 6


def windows(path: Path) -> Iterator[tuple[tuple[str, ...], int]]:
    """Every six lines in a row that say something, with the number of the first; imports are not code that was copied."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip() and not line.startswith(("import ", "from "))
    ]
    for at in range(len(lines) - WINDOW + 1):
        yield tuple(line for _, line in lines[at : at + WINDOW]), lines[at][0]


def clones(left: list[Path], right: list[Path]) -> list[str]:
    known = {text: f"{path}:{number}" for path in left for text, number in windows(path)}
    return [f"{known[text]} = {path}:{number}" for path in right for text, number in windows(path) if text in known]


@pytest.mark.parametrize(("left", "right"), [*itertools.combinations(GATES, 2)], ids=lambda folder: folder.name)
def test_gates_share_no_code(left: Path, right: Path) -> None:
    mine, theirs = ([*folder.rglob("*.py")] for folder in (left, right))
    assert clones(mine, theirs) == []


@pytest.mark.parametrize(("left", "right"), [*itertools.combinations(CHARTS, 2)], ids=lambda folder: folder.name)
def test_charts_share_no_templates(left: Path, right: Path) -> None:
    """Apart from the library chart, of which each has a copy."""
    mine, theirs = ([*folder.glob("templates/**/*.*")] for folder in (left, right))
    assert mine
    assert theirs
    assert clones(mine, theirs) == []


def test_a_clone_is_found(tmp_path: Path) -> None:
    """Whatever stands around it, and however far it is indented."""
    lines = [f"line {number}" for number in range(WINDOW)]
    (tmp_path / "one").write_text("\n".join(["before", *lines]))
    (tmp_path / "other").write_text("\n\n".join([*(f"  {line}" for line in lines), "after"]))
    assert len(clones([tmp_path / "one"], [tmp_path / "other"])) == 1
