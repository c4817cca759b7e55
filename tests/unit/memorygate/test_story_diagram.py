"""The picture of a story: lanes, rows, arrows and rings, for the wide page and for a phone."""

import pytest

from memorygate.console.story_diagram import MOST_LANES, MOST_RINGS, OTHERS, ROW, OpenEnd, StoryNode, story_diagram


def node(name: str, emitter: str = "alice", *causes: str, kind: str = "obligation") -> StoryNode:
    return StoryNode(name, emitter, kind, "ready", name, name, "+0.000 s", causes)


@pytest.mark.parametrize("narrow", [False, True])
def test_rows_go_down_and_lanes_in_the_order_of_their_emitters(narrow: bool) -> None:
    drawing = story_diagram([node("a"), node("b", "bob", "a"), node("c", "alice", "b")], [], narrow=narrow)
    assert [lane.name for lane in drawing.lanes] == ["alice", "bob"]
    first, second, third = drawing.nodes
    assert (first.x, third.x) == (drawing.lanes[0].x, drawing.lanes[0].x)
    assert second.x == drawing.lanes[1].x
    assert (second.y - first.y, third.y - second.y) == (ROW, ROW)
    assert [(arrow.source, arrow.target) for arrow in drawing.arrows] == [(0, 1), (1, 2)]
    assert all(0 < item.x < drawing.width and 0 < item.y < drawing.height for item in drawing.nodes)
    words = {item.words_x for item in drawing.nodes}
    assert len(words) == (1 if narrow else 2), "beside the lanes, or each beside its node"


def test_a_cause_that_is_not_above_has_no_arrow() -> None:
    """One that is elsewhere, one that was stored later, and the row itself."""
    drawing = story_diagram([node("a", "alice", "b", "a", "elsewhere"), node("b")], [], narrow=False)
    assert drawing.arrows == ()


def test_an_arrow_within_a_lane_bows_around_what_lies_between() -> None:
    drawing = story_diagram([node("a"), node("b"), node("c", "alice", "a")], [], narrow=False)
    [arrow] = drawing.arrows
    x = drawing.nodes[0].x
    assert f" {x - 11 - (2 * ROW - 18) / 40:.1f} " in arrow.path.replace("C", " ")


def test_the_last_lane_is_shared_by_all_who_have_none() -> None:
    names = [f"emitter{number}" for number in range(MOST_LANES + 3)]
    drawing = story_diagram([node(name, name) for name in names], [], narrow=True)
    assert [lane.name for lane in drawing.lanes] == [*names[: MOST_LANES - 1], OTHERS]
    assert {item.x for item in drawing.nodes[MOST_LANES - 1 :]} == {drawing.lanes[-1].x}
    assert drawing.lanes[-1].x < drawing.nodes[0].words_x


def test_rings_stand_below_in_the_lane_of_whoever_they_wait_for() -> None:
    """With a line from the receipt that gave custody, where that is in the picture; so many, and the others are counted."""
    ends = [OpenEnd(f"o{number}", "carol", "a" if number else None, "open") for number in range(MOST_RINGS + 2)]
    drawing = story_diagram([node("a")], ends, narrow=False)
    assert [lane.name for lane in drawing.lanes] == ["alice", "carol"]
    assert {ring.x for ring in drawing.rings} == {drawing.lanes[1].x}
    assert min(ring.y for ring in drawing.rings) == drawing.nodes[0].y + ROW
    assert [ring.path is None for ring in drawing.rings] == [True, *[False] * (MOST_RINGS - 1)]
    assert drawing.hidden_rings == 2
