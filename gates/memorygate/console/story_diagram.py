"""The geometry of a story's picture: a lane for each emitter, time downwards, causes as arrows, open ends as rings.

Two drawings of one story: with the words of each receipt in its lane, and, where there is no room for that, narrow
lanes with the words of all receipts beside them. Rows and nodes are numbered as in the table below the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Shape = Literal["circle", "diamond", "square", "triangle", "hexagon"]

ROW: Final = 30
RADIUS: Final = 6
MOST_LANES: Final = 12
"""Emitters with a lane of their own; the others share the last one."""
MOST_RINGS: Final = 24
OTHERS: Final = "others"

SHAPES: Final[Mapping[str, Shape]] = {
    "obligation": "circle",
    "admission": "diamond",
    "artifact": "square",
    "lifecycle": "triangle",
    "startup": "hexagon",
}
OUTLINES: Final[Mapping[Shape, str]] = {
    "circle": "M-6 0a6 6 0 1 0 12 0a6 6 0 1 0 -12 0Z",
    "diamond": "M0 -7.5L7.5 0L0 7.5L-7.5 0Z",
    "square": "M-5.5 -5.5H5.5V5.5H-5.5Z",
    "triangle": "M0 -6.5L6.5 5H-6.5Z",
    "hexagon": "M-6.5 0L-3.3 -5.8H3.3L6.5 0L3.3 5.8H-3.3Z",
}
"""Around the middle of a node. A kind is told by its shape, an outcome by its colour and by the words beside it."""


class StoryNode(NamedTuple):
    """A row of the table as the picture needs it. `causes`: ids of the nodes that made it happen."""

    node_id: str
    emitter: str
    kind: str
    tone: str
    words: str
    title: str
    time: str
    causes: Sequence[str]
    missing_cause: bool = False


class OpenEnd(NamedTuple):
    """An obligation without an end. `node_id`: of the receipt that gave custody; None: it is not in the picture."""

    obligation_id: str
    custodian: str
    node_id: str | None
    words: str


@dataclass(frozen=True, slots=True)
class DiagramLayout:
    """Where things are in a drawing. `words_left` None: the words of a node stand beside it."""

    head: int
    left: int
    lane: float
    width: float
    words_left: float | None


class Lane(NamedTuple):
    name: str
    x: float


class DrawnNode(NamedTuple):
    number: int
    x: float
    y: float
    words_x: float
    node: StoryNode
    outline: str


class DrawnRing(NamedTuple):
    x: float
    y: float
    words_x: float
    end: OpenEnd
    path: str | None
    """From the receipt that gave custody."""


class Arrow(NamedTuple):
    """From a cause to its effect; `source` and `target` are numbers of nodes. `tip`: the middle of the arrow's head."""

    path: str
    tip_x: float
    tip_y: float
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class StoryDiagram:
    width: float
    height: float
    head: int
    lanes: tuple[Lane, ...]
    nodes: tuple[DrawnNode, ...]
    rings: tuple[DrawnRing, ...]
    arrows: tuple[Arrow, ...]
    hidden_rings: int
    layout: DiagramLayout

    @property
    def bottom(self) -> float:
        return self.height - 10


def wide_layout(lanes: int) -> DiagramLayout:
    """With words in the lanes: as wide as the page, wider where there are many lanes."""
    lane = max(168.0, 1_000.0 / lanes)
    return DiagramLayout(head=38, left=92, lane=lane, width=92 + lanes * lane, words_left=None)


def narrow_layout(lanes: int) -> DiagramLayout:
    """For a phone: words beside the lanes."""
    lane = min(24.0, 150.0 / lanes)
    words_left = 12 + lanes * lane + 4
    return DiagramLayout(head=104, left=12, lane=lane, width=max(340.0, words_left + 196), words_left=words_left)


def lane_names(nodes: Iterable[StoryNode], ends: Iterable[OpenEnd]) -> tuple[str, ...]:
    """Emitters in the order in which they come up, then custodians who emitted nothing."""
    names = list(dict.fromkeys([*(node.emitter for node in nodes), *(end.custodian for end in ends)]))
    return tuple(names) if len(names) <= MOST_LANES else (*names[: MOST_LANES - 1], OTHERS)


def story_diagram(nodes: Sequence[StoryNode], ends: Sequence[OpenEnd], *, narrow: bool) -> StoryDiagram:
    shown_ends = ends[:MOST_RINGS]
    names = lane_names(nodes, shown_ends)
    layout = narrow_layout(len(names)) if narrow else wide_layout(len(names))
    lanes = tuple(
        Lane(name, round(layout.left + (at + (0.5 if narrow else 0.12)) * layout.lane, 1))
        for at, name in enumerate(names)
    )
    middle = {lane.name: lane.x for lane in lanes}
    fallback = lanes[-1].x
    drawn = tuple(_drawn(number, node, middle.get(node.emitter, fallback), layout) for number, node in enumerate(nodes))
    by_id = {node.node.node_id: node for node in drawn}
    arrows = tuple(
        _arrow(by_id[cause], node)
        for node in drawn
        for cause in node.node.causes
        if cause in by_id and by_id[cause].number < node.number
    )
    rings = tuple(
        _ring(end, middle.get(end.custodian, fallback), _row(layout, len(drawn) + at), by_id, layout)
        for at, end in enumerate(shown_ends)
    )
    height = _row(layout, len(drawn) + len(rings)) - ROW / 2 + 8
    return StoryDiagram(
        layout.width, height, layout.head, lanes, drawn, rings, arrows, len(ends) - len(shown_ends), layout
    )


def _row(layout: DiagramLayout, number: int) -> float:
    return layout.head + ROW / 2 + number * ROW


def _drawn(number: int, node: StoryNode, x: float, layout: DiagramLayout) -> DrawnNode:
    outline = OUTLINES[SHAPES.get(node.kind, "circle")]
    return DrawnNode(number, x, _row(layout, number), _words_x(x, layout), node, outline)


def _words_x(x: float, layout: DiagramLayout) -> float:
    return x + RADIUS + 7 if layout.words_left is None else layout.words_left


def _ring(end: OpenEnd, x: float, y: float, by_id: Mapping[str, DrawnNode], layout: DiagramLayout) -> DrawnRing:
    source = None if end.node_id is None else by_id.get(end.node_id)
    path = None if source is None else _curve(source.x, source.y + RADIUS, x, y - RADIUS - 1)
    return DrawnRing(x, y, _words_x(x, layout), end, path)


def _arrow(cause: DrawnNode, effect: DrawnNode) -> Arrow:
    top, bottom = cause.y + RADIUS + 1, effect.y - RADIUS - 5
    return Arrow(_curve(cause.x, top, effect.x, bottom), effect.x, bottom, cause.number, effect.number)


def _curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """Down out of the one and down into the other. In one lane it bows to the left, around what lies between."""
    if x1 == x2 and y2 - y1 > ROW:
        bow = min(11.0 + (y2 - y1) / 40, 26.0)
        return f"M{x1:.1f} {y1:.1f}C{x1 - bow:.1f} {y1 + 14:.1f} {x2 - bow:.1f} {y2 - 14:.1f} {x2:.1f} {y2:.1f}"
    bend = max((y2 - y1) * 0.5, 10.0)
    return f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
